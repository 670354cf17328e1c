"""What a round of rollouts was like, for the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean

from unitok.training.reinforcement.prompts import Kind
from unitok.training.reinforcement.rollouts import Rollout

COUNTS = ("failed", "solved")  # whose sums are told, and not their means


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """Numbers of one round. What there was nothing of is None.

    Attributes:
        reward: The mean of all samples.
        reward_text: That of answers.
        reward_image: That of drawings.
        live_groups: How many prompts had samples of different rewards, from which is learned.
        flat_groups: How many had not.
        solved: How many prompts come no more, as all their samples had the highest reward.
        failed: How many samples had no reward, and were dropped.
        entropy_text: Nats per token of answers, estimated by what was sampled.
        entropy_image: Nats per token of drawings.
        answer_tokens: The mean length of answers.
        rollout_seconds: How long samples and rewards took.
    """

    reward: float | None
    reward_text: float | None
    reward_image: float | None
    live_groups: int
    flat_groups: int
    solved: int
    failed: int
    entropy_text: float | None
    entropy_image: float | None
    answer_tokens: float | None
    rollout_seconds: float


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return fmean(values) if values else None


def entropy_of(rollouts: Sequence[Rollout], kind: Kind) -> float | None:
    """The mean of -log p over all sampled tokens of a kind, in nats; None if there is none."""
    own = [each for each in rollouts if each.prompt.kind == kind]
    tokens = sum(each.sampled for each in own)
    return -sum(sum(each.logprobs) for each in own) / tokens if tokens else None


def merged(reports: Sequence[RoundReport]) -> dict[str, float]:
    """The numbers of several rounds as one record: means, and sums of what is counted."""
    found: dict[str, float] = {}
    for name in (field.name for field in fields(RoundReport)):
        values = [getattr(report, name) for report in reports]
        known = [value for value in values if value is not None]
        if known:
            found[name] = sum(known) if name in COUNTS else fmean(known)
    return found
