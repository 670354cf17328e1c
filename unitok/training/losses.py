"""What a loss function returns, and how the losses of several batches are summed up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

PAIR_PARTS = ("dpo", "accuracy", "margin", "chosen_reward", "rejected_reward")
"""What is measured of pairs of answers."""

PARTS = ("text", "image", "z_loss", *PAIR_PARTS, "chosen")
"""All parts that the losses of a run may have."""


@dataclass(frozen=True)
class Loss:
    """The loss of one batch.

    Attributes:
        total: What is differentiated, a scalar. It holds the weight of the batch in its update.
        parts: The mean losses that the total is made of, by name; only those that there are.
        tokens: How many tokens were computed.
        counts: Of how many tokens each part is the mean; a part that is missing counts once.
    """

    total: Tensor
    parts: dict[str, Tensor]
    tokens: int
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Losses:
    """The losses of one or more batches as plain numbers, for logs.

    Attributes:
        parts: Mean losses by name; a loss that no batch has is missing.
        tokens: How many tokens were computed.
        counts: Of how many tokens each part is the mean; a part that is missing counts once.
        gradient_norm: The norm of all gradients before clipping; None of a batch alone.
    """

    parts: dict[str, float]
    tokens: int
    counts: Mapping[str, int] = field(default_factory=dict)
    gradient_norm: float | None = field(default=None, compare=False)


def merge(losses: Sequence[Losses]) -> Losses:
    """The mean of each loss over the tokens of the batches that have it, and the sum of tokens."""
    names = dict.fromkeys(name for each in losses for name in each.parts)
    having = {name: [each for each in losses if _has(each, name)] for name in names}
    having = {name: each for name, each in having.items() if each}
    parts = {name: _mean(name, each) for name, each in having.items()}
    counts = {
        name: sum(one.counts[name] for one in each)
        for name, each in having.items()
        if all(name in one.counts for one in each)
    }
    return Losses(parts, sum(each.tokens for each in losses), counts)


def _has(losses: Losses, name: str) -> bool:
    """Whether a loss is the mean of any token; that of a batch which is no one's is not."""
    return name in losses.parts and losses.counts.get(name, 1) > 0


def _mean(name: str, losses: Sequence[Losses]) -> float:
    weights = [each.counts.get(name, 1) for each in losses]
    if sum(weights) == len(losses):  # so that plain means are rounded as before
        return sum(each.parts[name] for each in losses) / len(losses)
    return sum(each.parts[name] * w for each, w in zip(losses, weights, strict=True)) / sum(weights)
