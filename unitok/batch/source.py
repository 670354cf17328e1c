"""Where the lines of a batch come from: a file, stdin, or another stream such as a named pipe."""

import codecs
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

from unitok.strict_json import JsonObject, parse_json

# Bytes. There is room for pictures of 24 MB in base64. A line is in memory several times, and 64
# requests are in flight.
MAX_LINE = 32 * 2**20
STDIN = ("-", "/dev/stdin")


@dataclass(frozen=True)
class Line:
    """A line that is not blank.

    Attributes:
        number: From 1 on.
        data: Its bytes, without blanks at the ends; empty if it is too long.
        too_long: Whether it has more than `MAX_LINE` bytes.
    """

    number: int
    data: bytes
    too_long: bool = False


class Source:
    """Lines of a file or a stream.

    Attributes:
        path: The file; "-" for stdin.
    """

    def __init__(self, path: Path) -> None:
        """Check that there is something to read. A stream is opened later, as it is read once.

        Raises:
            FileNotFoundError: There is no such file.
            IsADirectoryError: It is a folder.
            ValueError: Stdin is closed.
        """
        self.path = path
        self._is_stdin = str(path) in STDIN
        if self._is_stdin:
            if sys.stdin is None:
                raise ValueError("there is no stdin to read; give a file of JSON lines")
        elif path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; give a file of JSON lines")
        elif not path.exists():
            raise FileNotFoundError(f"{path}: no such file")

    @property
    def is_file(self) -> bool:
        """Whether it can be read more than once."""
        return not self._is_stdin and self.path.is_file()

    @property
    def folder(self) -> Path:
        """What the paths of pictures are relative to: a file's folder, else the working folder."""
        return self.path.parent if self.is_file else Path()

    def count(self) -> int | None:
        """The number of lines that are not blank; None for a stream, which is read only once."""
        return sum(1 for _ in self.lines()) if self.is_file else None

    def lines(self) -> Iterator[Line]:
        """The lines that are not blank.

        Raises:
            OSError: The file cannot be read.
        """
        with self._opened() as file:
            yield from read_lines(file)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self._is_stdin:
            yield sys.stdin.buffer
            return
        with self.path.open("rb") as file:
            yield file


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """The lines of an open file that are not blank."""
    for number in count(1):
        data = file.readline(MAX_LINE + 1)
        if not data:
            return
        if len(data) > MAX_LINE and not data.endswith(b"\n"):
            skip_line(file)
            yield Line(number, b"", too_long=True)
        elif data := data.removeprefix(codecs.BOM_UTF8).strip():
            yield Line(number, data)


def skip_line(file: BinaryIO) -> None:
    """Read up to the end of a line, without keeping it."""
    while (piece := file.readline(2**20)) and not piece.endswith(b"\n"):
        pass


def parse_line(line: Line) -> JsonObject:
    """The JSON object of a line.

    Raises:
        ValueError: The line is anything else, or too long.
    """
    if line.too_long:
        raise ValueError(f"the line is longer than {MAX_LINE:,} bytes; give pictures by their path")
    asked = parse_json(line.data)
    if not isinstance(asked, dict):
        raise ValueError(
            'a line must be an object such as {"caption": "cat.png"} or {"draw": "a cat"}'
        )
    return asked
