"""What became of each prompt so far, in a file, so that making pairs goes on after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unitok.strict_json import parse_json


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
        path: The file.
        entries: Those that it has.
    """

    def __init__(self, path: Path, identity: str) -> None:
        """Open a journal, or begin one. A last line that was cut off is removed.

        Args:
            path: The file.
            identity: Differs if what makes the entries does.

        Raises:
            ValueError: The file is of something else.
            OSError: It cannot be read or written.
        """
        self.path = path
        self.entries: list[PairEntry] = []
        if path.exists():
            self._read(identity)
        if not path.exists() or not path.stat().st_size:
            path.write_bytes(first_line(identity))

    def _read(self, identity: str) -> None:
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        first, *lines = data[:end].splitlines() or [b""]
        try:
            if not end and not first_line(identity).startswith(data):
                raise ValueError("it is another file")
            if first and parse_json(first) != {"identity": identity}:
                raise ValueError("it was begun with other options, prompts or another model")
            self.entries = [PairEntry(**parse_json(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path} is no beginning of these pairs: {error}; remove it, or give another "
                "--out"
            ) from None
        os.truncate(self.path, end)  # only now: before, it might be a file of something else

    def append(self, entry: PairEntry) -> None:
        """Keep what became of the next prompt.

        Raises:
            OSError: The file cannot be written.
        """
        line = json.dumps(asdict(entry), ensure_ascii=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.entries.append(entry)


def first_line(identity: str) -> bytes:
    """The line that says what made the entries."""
    return json.dumps({"identity": identity}).encode() + b"\n"
