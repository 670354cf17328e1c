"""The records of a training run, as JSON lines."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOSSES_ONLY = "speed"  # a key that records of losses have and records of scores do not


class TrainingLog:
    """Records of losses and of scores, each with its step, appended to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record at the end."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All records by step; where a run went back to its checkpoint, the later ones count."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        latest = {(r["step"], LOSSES_ONLY in r): r for r in map(json.loads, lines)}
        return sorted(latest.values(), key=lambda record: record["step"])

    def losses(self) -> list[dict[str, Any]]:
        """The records of losses."""
        return [record for record in self.records() if LOSSES_ONLY in record]

    def scores(self) -> list[dict[str, Any]]:
        """The records of evaluations."""
        return [record for record in self.records() if LOSSES_ONLY not in record]
