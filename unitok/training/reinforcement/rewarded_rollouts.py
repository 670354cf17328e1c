"""Samples of prompts with their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unitok.training.reinforcement.advantages import FLAT, is_flat
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.rewards import RewardFailure, Rewards
from unitok.training.reinforcement.rollouts import Rollout, RolloutCollector


@dataclass(frozen=True, eq=False)
class Rewarded:
    """A rollout with its reward.

    Attributes:
        rollout: The rollout.
        reward: Of the recipe's rewards together.
    """

    rollout: Rollout
    reward: float


@dataclass(frozen=True, eq=False)
class RewardedGroup:
    """The samples of a prompt that have rewards.

    Attributes:
        prompt: What was asked.
        samples: With their rewards.
        failed: Why others have none.
    """

    prompt: Prompt
    samples: tuple[Rewarded, ...]
    failed: tuple[str, ...] = ()

    @property
    def rewards(self) -> list[float]:
        """The reward of each sample."""
        return [each.reward for each in self.samples]

    @property
    def is_live(self) -> bool:
        """Whether something can be learned: the rewards are not all alike."""
        return not is_flat(self.rewards)

    def is_solved(self, highest: float | None) -> bool:
        """Whether every sample has the highest reward, and none failed."""
        if highest is None or self.failed or not self.samples:
            return False
        return min(self.rewards) >= highest - FLAT  # 0.6 + 0.3 + 0.1 is a little less than 1


class RewardedRollouts:
    """Samples prompts and rewards the samples.

    Attributes:
        collect: Samples prompts.
        rewards: Judges the samples.
    """

    def __init__(self, collect: RolloutCollector, rewards: Rewards) -> None:
        """Nothing is sampled yet."""
        self.collect, self.rewards = collect, rewards

    def __call__(self, prompts: Sequence[Prompt], seed: int) -> list[RewardedGroup]:
        """The samples of each prompt that have rewards. The others are told as failed."""
        groups = self.collect(prompts, seed)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        found = iter(self.rewards([(each.prompt, each.result) for each in rollouts]))
        rewarded: list[RewardedGroup] = []
        for group in groups:
            pairs = [(rollout, next(found)) for rollout in group.rollouts]
            why = [reward.why for _, reward in pairs if isinstance(reward, RewardFailure)]
            kept = [Rewarded(o, r) for o, r in pairs if not isinstance(r, RewardFailure)]
            rewarded.append(RewardedGroup(group.prompt, tuple(kept), (*group.failed, *why)))
        return rewarded
