"""Pairs of a model's own answers: of several samples of a prompt, the best and the worst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unitok.requests import Draw
from unitok.results import TextResult
from unitok.training.recipe import FAILURES
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.rewards import RewardFailure, Rewards, check_failures
from unitok.training.reinforcement.rollouts import Rollout, RolloutCollector, RolloutGroup

TOGETHER = 64  # prompts that are sampled at once; their pictures are in memory


@dataclass(frozen=True)
class RankedPair:
    """The best and the worst sample of a prompt.

    Attributes:
        prompt: What was asked.
        chosen: The sample of the highest reward, the first of several.
        rejected: That of the lowest one.
        chosen_reward: The reward of the one.
        rejected_reward: The reward of the other.
    """

    prompt: Prompt
    chosen: Rollout
    rejected: Rollout
    chosen_reward: float
    rejected_reward: float


@dataclass(frozen=True)
class Ranked:
    """What became of a prompt.

    Attributes:
        prompt: What was asked.
        pair: The pair; None if the rewards are too near each other, or the samples are the same.
        rewards: Of the samples that have one.
        failed: Why samples have none, a line each.
    """

    prompt: Prompt
    pair: RankedPair | None
    rewards: tuple[float, ...]
    failed: tuple[str, ...]


def rank(
    collect: RolloutCollector,
    rewards: Rewards,
    prompts: Sequence[Prompt],
    seed: int = 0,
    margin: float = 0.0,
    failures: float = FAILURES,
) -> Iterator[Ranked]:
    """Sample prompts, and take the best and the worst sample of each.

    Args:
        collect: Samples the prompts.
        rewards: Judge the samples.
        prompts: What is asked.
        seed: Equal seeds give equal samples.
        margin: By how much the rewards of a pair differ at least, or by anything if it is 0.
        failures: The share of samples that may have no reward, of those that are made at once. The
            last ones are judged with those before, as a few alone say little.

    Yields:
        What became of each prompt, in order.

    Raises:
        RewardsFailedError: Too many have none. What became of their prompts is not told.
    """
    before: list[Ranked] = []
    for first in range(0, len(prompts), TOGETHER):
        groups = collect(prompts[first : first + TOGETHER], seed)
        ranked = list(rank_groups(groups, rewards, margin))
        recent = ranked if len(ranked) == TOGETHER else before + ranked
        failed = [(each.prompt, why) for each in recent for why in each.failed]
        total = len(failed) + sum(len(each.rewards) for each in recent)
        check_failures(failed, total, failures, "--failures")
        yield from ranked
        before = ranked


def check_sizes(prompts: Sequence[Prompt], size: tuple[int, int]) -> None:
    """Check that drawings are asked for in a size that pairs of them are learned in.

    Args:
        prompts: What is asked.
        size: The width and the height of the model's drawings, unless asked otherwise.

    Raises:
        ValueError: A drawing is asked for in another one.
    """
    for prompt in prompts:
        asked = prompt.request
        if isinstance(asked, Draw) and asked.size not in (None, size):
            raise ValueError(
                f"{prompt.name}: drawings are learned at {size[0]} x {size[1]} pixels: leave out "
                "width and height"
            )


def rank_groups(
    groups: Sequence[RolloutGroup], rewards: Rewards, margin: float
) -> Iterator[Ranked]:
    """The best and the worst of the samples of each prompt. All samples are judged together."""
    usable = [[rollout for rollout in group.rollouts if is_whole(rollout)] for group in groups]
    pairs = zip(groups, usable, strict=True)
    found = iter(rewards([(group.prompt, one.result) for group, own in pairs for one in own]))
    for group, own in zip(groups, usable, strict=True):
        yield _ranked(group, [(next(found), rollout) for rollout in own], margin)


def _ranked(
    group: RolloutGroup, found: Sequence[tuple[float | RewardFailure, Rollout]], margin: float
) -> Ranked:
    failed = [value.why for value, _ in found if isinstance(value, RewardFailure)]
    judged = [(v, r) for v, r in found if not isinstance(v, RewardFailure)]
    values = tuple(value for value, _ in judged)
    pair = pair_of(group.prompt, judged, margin) if judged else None
    return Ranked(group.prompt, pair, values, (*group.failed, *failed))


def pair_of(
    prompt: Prompt, judged: Sequence[tuple[float, Rollout]], margin: float
) -> RankedPair | None:
    """The best and the worst sample; None if their rewards are too near each other.

    None, too, if they say the same: a reward that is no function of them told them apart.
    """
    (high, best), (low, worst) = (end(judged, key=lambda one: one[0]) for end in (max, min))
    if high - low <= 0 or high - low < margin or said(best) == said(worst):
        return None
    return RankedPair(prompt, best, worst, high, low)


def said(rollout: Rollout) -> str | tuple[int, ...]:
    """What a pair learns of a sample: the text of an answer, or the tokens of a drawing."""
    result = rollout.result
    return result.text if isinstance(result, TextResult) else rollout.token_ids


def is_whole(rollout: Rollout) -> bool:
    """Whether a sample is one to learn from: no answer that was cut off, or that is empty."""
    result = rollout.result
    if not isinstance(result, TextResult):
        return True
    return result.finish_reason != "length" and bool(result.text.strip())
