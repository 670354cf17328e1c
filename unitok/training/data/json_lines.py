"""A file of JSON lines as a data set. An index of its lines is made in one pass."""

from __future__ import annotations

import codecs
import hashlib
import os
from array import array
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from unitok.batch.source import MAX_LINE, skip_line
from unitok.strict_json import parse_json
from unitok.terminal import one_line
from unitok.training.data.conversations import (
    Conversation,
    DataChangedError,
    DataError,
)
from unitok.training.data.order import permutation
from unitok.training.data.preferences import parse_record


class JsonLines:
    """Conversations of a file, one a line. It is a `Source`, whose references are numbers.

    Attributes:
        name: The path of the file.
        identity: The number of its bytes and of its lines, and a digest of them.
        size: How many lines are not blank.
    """

    def __init__(self, path: Path) -> None:
        """Find all lines. They are read later.

        Raises:
            OSError: The file cannot be read.
            ValueError: It has no line.
        """
        self.path, self.name = path, str(path)
        self._starts, self._numbers = array("q"), array("q")
        digest = hashlib.blake2b(digest_size=6)
        for number, start in line_starts(path, digest.update):
            self._starts.append(start)
            self._numbers.append(number)
        self.size: int = len(self._starts)
        if not self.size:
            raise ValueError(f"{path} is empty: it has no line with a conversation")
        self._bytes = os.stat(path).st_size
        self.identity = f"{self._bytes} bytes, {self.size} lines ({digest.hexdigest()})"

    def references(self, seed: int | None) -> Iterator[int]:
        """See `Source`."""
        return permutation(self.size, seed)

    def conversation(self, reference: int) -> Conversation:
        """See `Source`."""
        name = f"{self.path}:{self._numbers[reference]}"
        try:
            record = parse_json(self._line(self._starts[reference]))
        except DataChangedError:
            raise
        except (OSError, ValueError) as error:
            raise DataError(f"{name}: {one_line(error)}") from None
        return parse_record(record, name, self.path.parent)

    def _line(self, start: int) -> bytes:
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != self._bytes:
                raise DataChangedError(f"{self.path} was changed while it was in use; start again")
            file.seek(start)
            line = file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            raise ValueError(
                f"the line is longer than {MAX_LINE:,} bytes; give pictures by their path"
            )
        return line.removeprefix(codecs.BOM_UTF8)


def line_starts(path: Path, read: Callable[[bytes], object]) -> Iterator[tuple[int, int]]:
    """The number, from 1 on, and the first byte of each line that is not blank.

    Args:
        path: The file.
        read: Is called with each line, or with the beginning of one that is too long.
    """
    with path.open("rb") as file:
        for number in count(1):
            start = file.tell()
            line = file.readline(MAX_LINE + 1)
            if not line:
                return
            read(line)
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                skip_line(file)
            if line.removeprefix(codecs.BOM_UTF8).strip():
                yield number, start
