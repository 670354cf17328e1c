"""Rewards of a group, set against each other (GRPO, https://arxiv.org/abs/2402.03300)."""

from collections.abc import Sequence
from statistics import fmean, pstdev

FLAT = 1e-6  # a spread of rewards that counts as none


def is_flat(rewards: Sequence[float]) -> bool:
    """Whether rewards are so alike that nothing can be learned from them."""
    return len(rewards) < 2 or max(rewards) - min(rewards) <= FLAT


def advantages_of(rewards: Sequence[float], normalise: bool) -> list[float]:
    """How much better each sample of a group is than their mean.

    Args:
        rewards: Of the samples, which are not all alike.
        normalise: Whether the differences are divided by their standard deviation. Without it,
            groups that agree less count for more (https://arxiv.org/abs/2503.20783).
    """
    mean = fmean(rewards)
    scale = pstdev(rewards) if normalise else 1.0
    return [(reward - mean) / scale for reward in rewards]
