"""The pictures that an image tokenizer learns: found, cropped, and put in order."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitok.messages import PICTURE_PARTS
from unitok.pictures import PictureLike, open_picture
from unitok.shown import shown
from unitok.training.image_tokenizer.loss import PictureBatch

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
LINES = (".json", ".jsonl", ".ndjson")
READERS = 4  # threads that decode the pictures of a batch
LONGEST_LINE = 2**24  # bytes of a line of JSON
Box = tuple[float, float, float, float]


def find_pictures(where: str | Path) -> list[Path]:
    """Find the pictures of a folder, or those that JSON lines name.

    Args:
        where: A folder, in which and below which all PNG, JPEG and WebP files count, in order of
            their names; or a file of JSON lines. There, pictures stand in parts of messages, as
            `unitok batch` reads them, and paths are relative to the file.

    Raises:
        FileNotFoundError: There is no such folder or file, or a picture that a line names.
        ValueError: There is no picture, or a line is no JSON.
    """
    where = Path(where)
    if where.is_dir():
        found = sorted(p for p in where.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    elif where.is_file():
        if where.suffix.lower() not in LINES:
            raise ValueError(f"{where}: give a folder of pictures, or JSON lines (.jsonl)")
        found = list(dict.fromkeys(pictures_of_lines(where)))
    else:
        raise FileNotFoundError(f"{where}: no such folder or file")
    if not found:
        raise ValueError(f"{where} has no pictures: {', '.join(SUFFIXES)} are read")
    return found


def pictures_of_lines(file: Path) -> Iterator[Path]:
    """The pictures that the lines of a file name, in order; see `find_pictures`."""
    with file.open("rb") as lines:
        number = 0
        while line := lines.readline(LONGEST_LINE):
            number += 1
            place = f"{file}:{number}"
            if len(line) == LONGEST_LINE:
                raise ValueError(f"{place}: the line is longer than {LONGEST_LINE:,} bytes")
            for path in paths_in(parse(line, place)) if line.strip() else ():
                picture = file.parent / path
                if not picture.is_file():
                    raise FileNotFoundError(f"{place}: {shown(path)}: no such file")
                yield picture


def parse(line: bytes, place: str) -> Any:
    """The value of a line of JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: this is no JSON: {error}") from None


def paths_in(value: Any) -> Iterator[str]:
    """The paths of all picture parts in a value of JSON; data URIs are no paths."""
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            yield from paths_in(each)
    if isinstance(value, dict) and value.get("type") == "image":
        sources = [value.get(key) for key in PICTURE_PARTS["image"] if key != "base64"]
        yield from (s for s in sources if isinstance(s, str) and not s.startswith("data:"))


# --- crops ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cropping:
    """How a picture becomes a square of pixels.

    Attributes:
        size: The side of the square in pixels.
        smallest: The smallest side of a random crop, as a share of the picture's shorter side.
        flip: Whether half of the pictures are mirrored.
    """

    size: int
    smallest: float = 1.0
    flip: bool = False

    def random(self, picture: Image.Image, random: Random) -> Tensor:
        """A random square of a picture, [3, size, size] in [0, 1]."""
        side = min(picture.size) * random.uniform(self.smallest, 1)
        left, top = (random.uniform(0, length - side) for length in picture.size)
        pixels = self.scaled(picture, (left, top, left + side, top + side))
        return pixels.flip(-1) if self.flip and random.random() < 0.5 else pixels

    def centre(self, picture: Image.Image) -> Tensor:
        """The largest square in the middle of a picture, [3, size, size] in [0, 1]."""
        side = min(picture.size)
        left, top = ((length - side) / 2 for length in picture.size)
        return self.scaled(picture, (left, top, left + side, top + side))

    def scaled(self, picture: Image.Image, box: Box) -> Tensor:
        """A part of a picture, scaled by bicubic interpolation."""
        box = (*box[:2], min(box[2], picture.width), min(box[3], picture.height))  # of rounding
        scaled = picture.resize((self.size, self.size), Image.Resampling.BICUBIC, box)
        return torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float() / 255


# --- order ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batching:
    """How many pictures are learned at a time.

    Attributes:
        update: Pictures of an update, of all ranks.
        micro: Pictures that are computed at once.
        seed: Of the order, the crops and the flips.
        rank: The number of this process.
        ranks: How many processes train together.
    """

    update: int
    micro: int
    seed: int = 0
    rank: int = 0
    ranks: int = 1


class PictureUpdates:
    """Pictures in a new order each epoch, some at a time; the state resumes exactly.

    What a picture's crop is depends on the seed, the epoch and the picture alone.

    Args:
        pictures: Paths, or what else `open_picture` reads. A sequence may open its items when they
            are asked for, as a column of a Hugging Face data set does.
        cropping: How they become pixels.
        batching: How many there are at a time.

    Raises:
        ValueError: There are no pictures, or fewer in an update than ranks.
    """

    def __init__(
        self, pictures: Sequence[PictureLike], cropping: Cropping, batching: Batching
    ) -> None:
        if not len(pictures):
            raise ValueError("there are no pictures to learn")
        if batching.update % batching.ranks:
            raise ValueError(
                f"batch {batching.update} must be a multiple of the number of ranks, "
                f"{batching.ranks}"
            )
        self.pictures, self.cropping, self.batching = pictures, cropping, batching
        self.taken = 0  # pictures of all updates so far
        self._order: tuple[int, Tensor] | None = None

    def __next__(self) -> list[PictureBatch]:
        """This rank's batches of the next update."""
        share = self.batching.update // self.batching.ranks
        start = self.taken + self.batching.rank * share
        places = range(start, start + share)
        self.taken += self.batching.update
        micro = self.batching.micro
        return [self.batch(places[i : i + micro]) for i in range(0, share, micro)]

    def batch(self, places: Sequence[int]) -> PictureBatch:
        """The pictures at places of the order."""
        chosen = [self.at(place) for place in places]
        names = tuple(self.name(index) for _, index in chosen)
        with ThreadPoolExecutor(READERS) as pool:
            pixels = torch.stack(list(pool.map(lambda one: self.pixels(*one), chosen)))
        return PictureBatch(pixels, len(places) / self.batching.update, names)

    def at(self, place: int) -> tuple[int, int]:
        """The epoch and the index of the picture at a place of the endless order."""
        epoch, offset = divmod(place, len(self.pictures))
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(hash_of(self.batching.seed, epoch))
            self._order = epoch, torch.randperm(len(self.pictures), generator=generator)
        return epoch, int(self._order[1][offset])

    def pixels(self, epoch: int, index: int) -> Tensor:
        """A picture's pixels in an epoch, [3, S, S] in [0, 1]."""
        random = Random(hash_of(self.batching.seed, epoch, index))
        return self.cropping.random(open_picture(self.pictures[index]), random)

    def name(self, index: int) -> str:
        """A picture's path, or its number."""
        picture = self.pictures[index] if isinstance(self.pictures, list | tuple) else None
        return str(picture) if isinstance(picture, str | os.PathLike) else f"picture {index}"

    @property
    def identity(self) -> str:
        """Differs if the pictures are others, as far as their number and their names tell."""
        names = repr([self.name(index) for index in range(len(self.pictures))])
        digest = hashlib.sha256(names.encode()).hexdigest()
        return f"{len(self.pictures)} pictures ({digest[:12]})"

    def state_dict(self) -> dict[str, Any]:
        """How many pictures were learned, and of which."""
        return {"taken": self.taken, "identity": self.identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            ValueError: The pictures are others.
        """
        before = state.get("identity", self.identity)
        if before != self.identity:
            raise ValueError(
                f"the pictures have changed since the checkpoint was written: there were {before}, "
                f"and there are {self.identity}"
            )
        self.taken = state["taken"]


def hash_of(*numbers: int) -> int:
    """A seed that depends on several numbers, the same in every process."""
    return Random(str(numbers)).getrandbits(63)
