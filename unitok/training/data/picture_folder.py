"""A folder of pictures with captions becomes JSON lines of conversations.

Captions stand in a `metadata.jsonl` with the keys `file_name` and `text`, as in an image folder of
the library `datasets`, or beside each picture, in a text file of its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unitok.batch.source import MAX_LINE
from unitok.batch.source import Source as Lines
from unitok.picture_names import PICTURE_SUFFIXES
from unitok.shown import shown
from unitok.strict_json import parse_json
from unitok.terminal import one_line
from unitok.training.data.caption_pairs import CaptionPairs
from unitok.training.data.order import hashed

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture with its caption.

    Attributes:
        path: Its file.
        caption: The caption.
        name: Its path in the folder, by which it is ordered and chosen.
    """

    path: Path
    caption: str
    name: str


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of a folder.

    Attributes:
        pictures: Those with captions, ordered by name.
        without: The names of those without.
    """

    pictures: tuple[CaptionedPicture, ...]
    without: tuple[str, ...]


def read_picture_folder(folder: Path) -> PictureFolder:
    """Find the pictures of a folder and of the folders in it, and their captions.

    Raises:
        OSError: The folder or a caption cannot be read.
        ValueError: A caption is missing its picture, or none has a caption.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))]
    names = [n for n in names if Path(n).suffix[1:].lower() in PICTURE_SUFFIXES]
    has_list = (folder / METADATA).is_file()
    found = dict(listed_captions(folder) if has_list else captions_beside(folder, names))
    if not found:
        raise ValueError(
            f"{folder} has no captions: neither a {METADATA} nor a text file beside each picture"
        )
    pictures = (CaptionedPicture(folder / n, found[n], n) for n in sorted(found))
    return PictureFolder(tuple(pictures), tuple(name for name in names if name not in found))


def captions_beside(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The names of pictures that have a text file of their name, and its text."""
    for name in names:
        file = (folder / name).with_suffix(".txt")
        if not file.is_file():
            continue
        if file.stat().st_size > MAX_LINE:
            raise ValueError(f"{file} is longer than {MAX_LINE:,} bytes")
        try:
            text = file.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not UTF-8, from byte {error.start + 1:,} on") from None
        if not text:
            raise ValueError(f"{file} is empty")
        yield name, text


def listed_captions(folder: Path) -> Iterator[tuple[str, str]]:
    """The names and captions in a folder's `metadata.jsonl`.

    Raises:
        ValueError: A line is wrong. The message names it.
    """
    seen: set[str] = set()
    for line in Lines(folder / METADATA).lines():
        where = f"{folder / METADATA}:{line.number}"
        try:
            if line.too_long:
                raise ValueError(f"the line is longer than {MAX_LINE:,} bytes")
            name, text = listed_caption(parse_json(line.data), folder)
        except ValueError as error:
            raise ValueError(f"{where}: {one_line(error)}") from None
        if name in seen:
            raise ValueError(f"{where}: {name} has a caption already")
        seen.add(name)
        yield name, text


def listed_caption(value: object, folder: Path) -> tuple[str, str]:
    """The name and the caption in a value of `metadata.jsonl`, which may have further keys.

    Raises:
        ValueError: One is missing, the picture is not there, or it lies elsewhere.
    """
    keys = ("file_name", "text")
    name, text = (value.get(key) for key in keys) if isinstance(value, dict) else (None, None)
    for key, given in zip(keys, (name, text), strict=True):
        if not isinstance(given, str) or not given.strip():
            raise ValueError(f"{key} must be text, not {shown(given)}")
    assert isinstance(name, str) and isinstance(text, str)
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{shown(name)} leads out of the folder")
    if not path.is_file():
        raise ValueError(f"{folder / name}: no such file")
    return path.relative_to(folder.resolve()).as_posix(), text.strip()


def split(
    pictures: Sequence[CaptionedPicture], share: float
) -> tuple[list[CaptionedPicture], list[CaptionedPicture]]:
    """Pictures to learn, and a share of them that is held out.

    Which are held out depends on their names alone, in no order that one can see.

    Raises:
        ValueError: The share leaves nothing to learn.
    """
    count = round(len(pictures) * share)
    if count >= len(pictures):
        raise ValueError(f"{count} held-out pictures of {len(pictures)} leave none to learn")
    ranked = sorted(pictures, key=lambda picture: (hashed("held out", picture.name), picture.name))
    held = {picture.name for picture in ranked[:count]}
    return [p for p in pictures if p.name not in held], [p for p in pictures if p.name in held]


def lines_of(
    pictures: Iterable[CaptionedPicture], folder: Path, pairs: CaptionPairs
) -> Iterator[bytes]:
    """JSON lines of pictures with captions.

    Args:
        pictures: The pictures.
        folder: The folder of the file, which the paths in it are relative to.
        pairs: What is made of each picture.
    """
    for picture in pictures:
        path = Path(os.path.relpath(picture.path, folder)).as_posix()
        path = f"./{path}" if ":" in path else path  # which would look like a URL
        if not is_utf8(path):
            raise ValueError(f"{shown(path)}: JSON holds UTF-8 alone; give the file another name")
        for messages in pairs.all_messages(path, picture.caption):
            yield json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n"


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8, as the names of some files cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
