"""What a run on several replicas tells at its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from unitok.backends.ray.replica import ShardOutcome


@dataclass(frozen=True)
class FailedLine:
    """A line that failed.

    Attributes:
        line: Its number, from 1 on.
        error: What went wrong.
    """

    line: int
    error: str


@dataclass(frozen=True)
class ReplicaReport:
    """What a replica did. One that was killed and started again is another.

    Attributes:
        name: Its machine and process.
        lines: How many lines it ran.
        seconds: From its first line to its last.
    """

    name: str
    lines: int
    seconds: float

    @property
    def lines_per_second(self) -> float:
        """Its throughput."""
        return self.lines / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class DatasetReport:
    """What became of all lines of a dataset.

    Attributes:
        output: Where the results lie.
        new: How many results this run has written.
        kept: How many an earlier run has written.
        failed: The lines that failed, in their order.
        replicas: What each replica did.
    """

    output: str
    new: int
    kept: int
    failed: tuple[FailedLine, ...]
    replicas: tuple[ReplicaReport, ...]


def report_of(output: str, outcomes: Iterable[ShardOutcome]) -> DatasetReport:
    """The report on the shards of a run."""
    outcomes = list(outcomes)
    failed = sorted(failure for o in outcomes for failure in o.failed)
    return DatasetReport(
        output,
        sum(o.new for o in outcomes),
        sum(o.kept for o in outcomes),
        tuple(FailedLine(*failure) for failure in failed),
        replica_reports(outcomes),
    )


def replica_reports(outcomes: Iterable[ShardOutcome]) -> tuple[ReplicaReport, ...]:
    """What each replica did, by its name."""
    by_name: defaultdict[str, list[ShardOutcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.replica:
            by_name[outcome.replica].append(outcome)
    return tuple(_replica_report(name, by_name[name]) for name in sorted(by_name))


def _replica_report(name: str, outcomes: list[ShardOutcome]) -> ReplicaReport:
    seconds = max(o.ended for o in outcomes) - min(o.began for o in outcomes)
    return ReplicaReport(name, sum(o.span.count - o.kept for o in outcomes), seconds)
