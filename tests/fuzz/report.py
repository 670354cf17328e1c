"""What came of the inputs, target by target."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.worker import Verdict


@dataclass
class Finding:
    """A kind of problem.

    Attributes:
        problem: What was wrong with the first input.
        path: Where that input is.
        inputs: How many inputs had it.
    """

    problem: str
    path: Path
    inputs: int = 0


@dataclass
class Row:
    """What came of the inputs of a target.

    Attributes:
        inputs: How many there were.
        accepted: How many of them were taken, not refused.
        seconds: Of all together.
        slowest: The most seconds of one.
        memory: The most bytes of one.
        findings: The problems by kind.
    """

    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    memory: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, verdict: Verdict, save: Callable[[], Path]) -> None:
        """Count an input.

        Args:
            verdict: What came of it.
            save: Saves it, if it shows a problem of a new kind.
        """
        self.inputs += 1
        self.accepted += verdict.accepted
        self.seconds += verdict.seconds
        self.slowest = max(self.slowest, verdict.seconds)
        self.memory = max(self.memory, verdict.memory)
        if verdict.problem:
            if verdict.kind not in self.findings:
                self.findings[verdict.kind] = Finding(verdict.problem, save())
            self.findings[verdict.kind].inputs += 1


def print_report(rows: Mapping[str, Row]) -> None:
    """Print a table of the targets, then all findings."""
    print(f"{'target':12} {'inputs':>8} {'taken':>8} {'per s':>7} {'slowest':>8} {'memory':>8}")
    for name, row in rows.items():
        rate = row.inputs / max(row.seconds, 1e-9)
        print(
            f"{name:12} {row.inputs:8,} {row.accepted:8,} {rate:7.0f} {row.slowest:6.2f} s "
            f"{row.memory / 2**20:5.0f} MB"
        )
    for name, row in rows.items():
        for finding in row.findings.values():
            where = os.path.relpath(finding.path)
            print(f"\n{name}, {finding.inputs} inputs, first {where}:\n  {finding.problem[:600]}")
    print(f"\n{sum(len(row.findings) for row in rows.values())} findings")
