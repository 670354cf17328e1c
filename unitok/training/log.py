"""The records of a training run, as JSON lines."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

LOSSES_ONLY = "speed"  # a key that records of losses have and records of scores do not


class TrainingLog:
    """Records of losses and of scores, each with its step, appended to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record at the end, in a line of its own."""
        with self.path.open("a+b") as file:
            start = b"\n" if self._is_cut_off(file) else b""
            file.write(start + json.dumps(record).encode() + b"\n")

    @staticmethod
    def _is_cut_off(file: IO[bytes]) -> bool:
        """Whether the last line has no end, as its writer was killed or the disk was full."""
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"

    def records(self) -> list[dict[str, Any]]:
        """All records by step; where a run went back to its checkpoint, the later ones count.

        A line that is no record, as it was cut off, is left out.
        """
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        found = [record for record in map(_record_of, lines) if record is not None]
        latest = {(r["step"], LOSSES_ONLY in r): r for r in found}
        return sorted(latest.values(), key=lambda record: record["step"])

    def losses(self) -> list[dict[str, Any]]:
        """The records of losses."""
        return [record for record in self.records() if LOSSES_ONLY in record]

    def scores(self) -> list[dict[str, Any]]:
        """The records of evaluations."""
        return [record for record in self.records() if LOSSES_ONLY not in record]


def _record_of(line: str) -> dict[str, Any] | None:
    """The record in a line; None if it is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "step" in record else None
