"""Counts of what is right, by group, and their tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unitok.evaluation.intervals import wilson
from unitok.evaluation.suite import Judgement


@dataclass(frozen=True)
class Tally:
    """A group of judgements, counted.

    Attributes:
        group: Its name.
        count: How many there are.
        failed: How many requests failed.
        judged: How many are right or wrong.
        right: How many are right.
        mean_score: The mean of the scores; None if there are none.
        seconds: The time that all took together.
    """

    group: str
    count: int
    failed: int
    judged: int
    right: int
    mean_score: float | None
    seconds: float

    @property
    def share(self) -> float | None:
        """The share that is right; None if nothing is right or wrong."""
        return self.right / self.judged if self.judged else None

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the share, at 95%."""
        return wilson(self.right, self.judged)


def tally(group: str, judged: Sequence[Judgement]) -> Tally:
    """Count judgements."""
    verdicts = [j.ok for j in judged if j.ok is not None]
    return Tally(
        group,
        len(judged),
        sum(j.error is not None for j in judged),
        len(verdicts),
        sum(verdicts),
        mean([j.score for j in judged if j.score is not None]),
        sum(j.seconds for j in judged),
    )


def tallies(judged: Sequence[Judgement]) -> list[Tally]:
    """Count judgements by group, the groups in the order in which they come."""
    return [tally(group, members) for group, members in by_group(judged).items()]


def by_group(judged: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    """Judgements by the names of their groups, in order."""
    groups: dict[str, list[Judgement]] = {}
    for judgement in judged:
        groups.setdefault(judgement.group, []).append(judgement)
    return groups


def mean(values: Sequence[float]) -> float | None:
    """The mean of values; None of no values."""
    return sum(values) / len(values) if values else None


def shares(judged: Sequence[Judgement]) -> dict[str, float]:
    """The share that is right of each group that is judged, rounded to four digits."""
    found = {one.group: one.share for one in tallies(judged)}
    return {group: round(share, 4) for group, share in found.items() if share is not None}
