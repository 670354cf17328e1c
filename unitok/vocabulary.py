"""The one id space: text ids and image ids on one line.

Two layouts are known. In Janus (https://arxiv.org/abs/2410.13848) image ids follow the text ids;
in Chameleon and Emu3 they lie inside the text vocabulary. Both are one contiguous range of ids.
"""

from dataclasses import dataclass
from typing import overload

import torch

from unitok_engine import IdRange


@dataclass(frozen=True)
class Vocabulary:
    """Which ids are text, which are image codes, and how a code becomes an id.

    Ids below `text_size` belong to the text tokenizer; image code c is id `image_start` + c for c
    in 0, ..., `image_size` - 1. Raises ValueError if the image ids neither follow the text ids nor
    lie wholly inside them.
    """

    text_size: int
    image_start: int
    image_size: int

    def __post_init__(self):
        if self.image_start < 0 or self.image_size < 0:
            raise ValueError(f"sizes of a vocabulary are not negative: {self}")
        follows = self.image_start == self.text_size
        inside = self.image_start + self.image_size <= self.text_size
        if not follows and not inside:
            raise ValueError(f"image ids must follow the text ids or lie inside them: {self}")

    @property
    def size(self) -> int:
        """How many ids there are in all."""
        return max(self.text_size, self.image_start + self.image_size)

    @property
    def text_range(self) -> IdRange:
        """Ids of the text tokenizer; where image ids lie inside it, they are among these."""
        return IdRange(0, self.text_size)

    @property
    def image_range(self) -> IdRange:
        return IdRange(self.image_start, self.image_start + self.image_size)

    @overload
    def code_to_id(self, code: int) -> int: ...
    @overload
    def code_to_id(self, code: torch.Tensor) -> torch.Tensor: ...
    def code_to_id(self, code: int | torch.Tensor) -> int | torch.Tensor:
        """Ids of image codes (an int or an integer tensor); ValueError for what is no code."""
        _check_within(code, 0, self.image_size, "an image code")
        return code + self.image_start

    @overload
    def id_to_code(self, token: int) -> int: ...
    @overload
    def id_to_code(self, token: torch.Tensor) -> torch.Tensor: ...
    def id_to_code(self, token: int | torch.Tensor) -> int | torch.Tensor:
        """Image codes of ids (an int or an integer tensor); ValueError for what is no image id."""
        _check_within(token, self.image_range.start, self.image_range.stop, "an image id")
        return token - self.image_start

    def is_image(self, ids: torch.Tensor) -> torch.Tensor:
        """Which of the ids are image ids: a bool tensor of the shape of `ids`."""
        return (ids >= self.image_range.start) & (ids < self.image_range.stop)


def _check_within(value: int | torch.Tensor, start: int, stop: int, what: str) -> None:
    if isinstance(value, torch.Tensor):
        if value.numel() == 0:
            return
        low, high = (int(bound) for bound in value.aminmax())
    else:
        low = high = value
    if low < start or high >= stop:
        wrong = low if low < start else high
        raise ValueError(f"{wrong} is not {what}: those are {start} to {stop - 1}")
