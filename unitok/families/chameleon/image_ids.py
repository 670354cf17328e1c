"""Which ids of the vocabulary are image codes: their names, IMGIMG...Z, say it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.checkpoints.settings import is_int
from unitok.shown import shown

IMAGE_NAME = re.compile("IMGIMG([A-J]+)Z")  # the letters are the digits of the code


@dataclass(frozen=True)
class ImageIds:
    """The ids of image codes, which are one range.

    Attributes:
        start: The first of them.
        codes: The code of each, in the order of the ids.
    """

    start: int
    codes: tuple[int, ...]

    def reorder(self, codebook: Tensor) -> Tensor:
        """The codebook [codes, d] in the order of the ids, so that code c is id start + c."""
        if self.codes == tuple(range(len(self.codes))):
            return codebook
        return codebook[torch.tensor(self.codes, device=codebook.device)]


def read_image_ids(vocabulary: object, where: str) -> ImageIds:
    """Find the image ids by their names.

    Args:
        vocabulary: Names to ids.
        where: The file, for messages.

    Raises:
        ValueError: There are none, or they are not one range with each code once.
    """
    if not isinstance(vocabulary, Mapping):
        raise ValueError(f"{where} has no vocabulary")
    names = ((id, IMAGE_NAME.fullmatch(name)) for name, id in vocabulary.items())
    named = [(id, name[1]) for id, name in names if name]
    if strange := [id for id, _ in named if not is_int(id, 0)]:
        raise ValueError(f"{where}: an image token has the id {shown(strange[0])}")
    found = sorted((id, code_of(letters)) for id, letters in named)
    if not found:
        raise ValueError(f"{where} names no image tokens (IMGIMG...Z)")
    ids, codes = zip(*found, strict=True)
    everything = list(range(len(found)))
    if [id - ids[0] for id in ids] != everything or sorted(codes) != everything:
        raise ValueError(f"{where}: its image tokens are not one range of ids with each code once")
    return ImageIds(ids[0], codes)


def code_of(letters: str) -> int:
    """The code that the letters of a name spell: A is 0 and BA is 10."""
    return int("".join(str(ord(letter) - ord("A")) for letter in letters))


def check_text(text: str) -> None:
    """Raise ValueError for a text that spells an image token: the tokenizer would make it one."""
    if found := IMAGE_NAME.search(text):
        raise ValueError(f"the text holds {found[0]}, the name of an image token: write it apart")
