"""What a reward is, and how several of them are summed up.

A reward is a function of a prompt and its result that gives a number. One that is faster for many
results at once has a method `many` beside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from unitok.results import Result
from unitok.terminal import one_line
from unitok.training.reinforcement.prompts import Kind, Prompt

Pair = tuple[Prompt, Result]
Reward = Callable[[Prompt, Result], float]
"""A number for the result of a prompt: higher is better. What it raises costs that one sample."""


class RewardsFailedError(RuntimeError):
    """So many samples have no reward that something must be wrong with it."""


@runtime_checkable
class ManyReward(Protocol):
    """A reward that is given many results at once."""

    def __call__(self, prompt: Prompt, result: Result) -> float:
        """The reward of one result."""
        ...

    def many(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """The reward of each result, in order."""
        ...


@dataclass(frozen=True)
class RewardFailure:
    """A reward that is missing.

    Attributes:
        why: In a line.
    """

    why: str


@dataclass(frozen=True)
class ChosenReward:
    """A reward of a run.

    Attributes:
        name: What it is called in recipes.
        reward: Gives the numbers.
        weight: What they are multiplied by.
        kinds: Which results it judges: "text", "image" or both.
    """

    name: str
    reward: Reward
    weight: float = 1.0
    kinds: frozenset[Kind] = frozenset(("text", "image"))


@dataclass(frozen=True)
class Rewards:
    """The rewards of a run, whose sum is what is learned from.

    Attributes:
        chosen: At least one.
    """

    chosen: tuple[ChosenReward, ...]

    def __call__(self, pairs: Sequence[Pair]) -> list[float | RewardFailure]:
        """The weighted sum of the rewards that judge each result, or the first one's failure."""
        totals: list[float | RewardFailure] = [0.0] * len(pairs)
        for each in self.chosen:
            own = [i for i, (prompt, _) in enumerate(pairs) if prompt.kind in each.kinds]
            found = judged(each.reward, [pairs[i] for i in own])
            for i, value in zip(own, found, strict=True):
                totals[i] = added(totals[i], value, each)
        return totals

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Check that there is a reward for each prompt.

        Raises:
            ValueError: There is none that judges its results.
        """
        kinds = frozenset[Kind]().union(*(each.kinds for each in self.chosen))
        for prompt in prompts:
            if prompt.kind not in kinds:
                what = "drawings" if prompt.kind == "image" else "answers"
                names = ", ".join(each.name for each in self.chosen)
                raise ValueError(
                    f"{prompt.name}: no reward judges {what}; those of the recipe are {names}"
                )


def check_failures(
    failed: Sequence[tuple[Prompt, str]], total: int, allowed: float, key: str
) -> None:
    """Check that samples without a reward are few.

    Args:
        failed: The prompt of each such sample, and why it has none.
        total: The number of all samples.
        allowed: The share of them that may fail.
        key: Where the user says so.

    Raises:
        RewardsFailedError: They are too many.
    """
    if len(failed) > allowed * total:
        prompt, why = failed[0]
        raise RewardsFailedError(
            f"{len(failed)} of {total} samples have no reward, and {key} allows {allowed:.0%}; "
            f"the first is of {prompt.name}: {why}"
        )


def added(
    total: float | RewardFailure, value: float | RewardFailure, chosen: ChosenReward
) -> float | RewardFailure:
    """A sum of rewards and one more of them."""
    if isinstance(total, RewardFailure):
        return total
    if isinstance(value, RewardFailure):
        return RewardFailure(f"reward {chosen.name}: {value.why}")
    return total + chosen.weight * value


def judged(reward: Reward, pairs: Sequence[Pair]) -> list[float | RewardFailure]:
    """The reward of each result, one by one where it fails for all together."""
    if pairs and isinstance(reward, ManyReward):
        try:
            found = list(reward.many(pairs))
        except Exception:  # is told of those that fail alone
            found = []
        if len(found) == len(pairs):
            return list(map(checked, found))
    return [judged_alone(reward, prompt, result) for prompt, result in pairs]


def judged_alone(reward: Reward, prompt: Prompt, result: Result) -> float | RewardFailure:
    """The reward of one result."""
    try:
        return checked(reward(prompt, result))
    except Exception as error:  # it is the caller's code, and costs the one sample
        return RewardFailure(f"{type(error).__name__}: {one_line(error)}")


def checked(value: object) -> float | RewardFailure:
    """A number that is finite, or why there is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError, RuntimeError):  # of any number-like class
        return RewardFailure(f"it gave no number, but {type(value).__name__}")
    return number if math.isfinite(number) else RewardFailure(f"it gave {number}")
