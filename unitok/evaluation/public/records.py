"""Reads the files of public suites. Every error names the file and the line."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unitok.shown import shown
from unitok.strict_json import parse_json
from unitok_tokenizers.bounded_files import parse_json as parse_large_json
from unitok_tokenizers.bounded_files import read_file

MOST = 512 * 2**20  # bytes of a file; the largest, with all captions of COCO, has 150 MB
NAMED = 3  # in a message

Record = Mapping[str, Any]


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank, each with its place for messages.

    A line ends as it does in a text editor. Other characters that end lines in Unicode, such as
    U+2028, may be in a line, as JSON allows it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is too large, not text, or empty.
    """
    lines = enumerate(io.StringIO(decoded(path), newline=None), 1)
    found = [(f"{path}, line {i}", line.rstrip("\n")) for i, line in lines if line.strip()]
    if not found:
        raise ValueError(f"{path} is empty")
    yield from found


def decoded(path: Path) -> str:
    """A text file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is too large, or not text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return read_file(path, MOST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 at byte {error.start}") from None


def read_records(path: Path) -> Iterator[tuple[str, Record]]:
    """The objects of a file of JSON lines, each with its place for messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is empty, or a line is no JSON object.
    """
    for where, line in read_lines(path):
        try:
            record = parse_json(line.encode())
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{where}: not a JSON object but {shown(record)}")
        yield where, record


def read_document(path: Path) -> Record:
    """The object of a large JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        document = parse_large_json(read_file(path, MOST))
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no JSON object")
    return document


def text_of(record: Record, key: str, where: str) -> str:
    """The text under a key.

    Raises:
        ValueError: There is none.
    """
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key} must be text, not {shown(value)}")
    return value


def number_of(record: Record, key: str, where: str, least: int = 0) -> int:
    """The whole number under a key.

    Raises:
        ValueError: There is none, or it is too small.
    """
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{where}: {key} must be a whole number, not {shown(value)}")
    return value


def list_of(record: Record, key: str, where: str) -> list[Record]:
    """The objects in the list under a key.

    Raises:
        ValueError: There is no list, or something else is in it.
    """
    value = record.get(key)
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise ValueError(f"{where}: {key} must be a list of objects, not {shown(value)}")
    return value


class Once:
    """Sees to it that nothing is there twice."""

    def __init__(self, what: str) -> None:
        """What the things are called in messages."""
        self.what, self._places = what, dict[Any, str]()

    def add(self, thing: Any, where: str) -> None:
        """Note a thing.

        Raises:
            ValueError: It was there before.
        """
        if thing in self._places:
            raise ValueError(
                f"{where}: the {self.what} {shown(thing)} is at {self._places[thing]} already"
            )
        self._places[thing] = where


def need_pictures(paths: Iterable[Path], option: str) -> None:
    """Check that pictures are there.

    Args:
        paths: Their files.
        option: What names their folder, for the message.

    Raises:
        FileNotFoundError: Some are missing; the first ones are named.
    """
    missing = [path for path in dict.fromkeys(paths) if not path.is_file()]
    if missing:
        few = ", ".join(map(str, missing[:NAMED]))
        raise FileNotFoundError(
            f"{len(missing)} pictures are missing, such as {few}; {option} names their folder"
        )


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file by its name within a folder.

    Raises:
        ValueError: The name leads out of the folder.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise ValueError(f"{where}: {shown(name)} is no name within {folder}")
    return folder / path


def digest(paths: Sequence[Path]) -> str:
    """A digest of files' contents."""
    found = hashlib.sha256()
    for path in paths:
        found.update(hashlib.sha256(read_file(path, MOST)).digest())
    return found.hexdigest()


def first_of_each(groups: Iterable[str], limit: int | None) -> list[int]:
    """The places of the first `limit` members of each group; of all if it is None."""
    seen: dict[str, int] = {}
    chosen = []
    for i, group in enumerate(groups):
        seen[group] = seen.get(group, 0) + 1
        if limit is None or seen[group] <= limit:
            chosen.append(i)
    return chosen
