"""What became of each prompt so far, in a file, so that making pairs goes on after a kill."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unitok.batch.journal import json_line, write_all
from unitok.strict_json import parse_json

try:
    import fcntl
except ImportError:  # not a Unix: nothing then keeps two runs from writing to one file
    fcntl = None


@dataclass(frozen=True)
class PairEntry:
    """What became of a prompt.

    Attributes:
        record: Of its pair; None if there is none.
        rewards: Of the samples that have one.
        failed: Why samples have none, a line each.
    """

    record: Mapping[str, Any] | None
    rewards: Sequence[float]
    failed: Sequence[str]


class PairJournal:
    """Entries in the order of the prompts, one a line, behind a line that says what made them.

    Attributes:
        path: The file. While it is open, no other run writes to it.
        entries: Those that it has.
    """

    def __init__(self, path: Path, identity: str) -> None:
        """Open a journal, or begin one. A last line that was cut off is removed.

        Args:
            path: The file.
            identity: Differs if what makes the entries does.

        Raises:
            ValueError: The file is of something else, or another run writes to it.
            OSError: It cannot be read or written.
        """
        self.path = path
        self.entries: list[PairEntry] = []
        self._first = json_line({"identity": identity})
        self._file = path.open("ab", buffering=0)
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> PairJournal:
        """The journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let other runs write to the file. One without an entry is removed."""
        is_empty = not os.fstat(self._file.fileno()).st_size
        self._file.close()
        if is_empty:
            self.path.unlink(missing_ok=True)

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run is writing to {self.path}; wait until it ends") from None

    def _read(self) -> None:
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        first, *lines = data[:end].splitlines(keepends=True) or [b""]
        try:
            if not self._first.startswith(first or data):
                parse_json(first)
                raise ValueError("it was begun with other options, prompts or another model")
            self.entries = [PairEntry(**parse_json(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path} is no beginning of these pairs: {error}; remove it, or give another "
                "--out"
            ) from None
        self._file.truncate(end)  # only now: before, it might be a file of something else

    def append(self, entry: PairEntry) -> None:
        """Keep what became of the next prompt.

        Raises:
            OSError: The file cannot be written.
        """
        is_begun = os.fstat(self._file.fileno()).st_size
        write_all(self._file, (b"" if is_begun else self._first) + json_line(asdict(entry)))
        self.entries.append(entry)

    def remove(self) -> None:
        """Remove the file, whose entries are no longer needed."""
        self.path.unlink()
