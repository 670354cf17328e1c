"""What a loss function returns, and how the losses of several batches are summed up."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """The loss of one batch.

    Attributes:
        total: What is differentiated, a scalar. It holds the weight of the batch in its update.
        parts: The mean losses that the total is made of, by name; only those that there are.
        tokens: How many tokens were computed.
    """

    total: Tensor
    parts: dict[str, Tensor]
    tokens: int


@dataclass(frozen=True)
class Losses:
    """The losses of one or more batches as plain numbers, for logs.

    Attributes:
        parts: Mean losses by name; a loss that no batch has is missing.
        tokens: How many tokens were computed.
    """

    parts: dict[str, float]
    tokens: int


def merge(losses: Sequence[Losses]) -> Losses:
    """The mean of each loss over the batches that have it, and the sum of tokens."""
    names = dict.fromkeys(name for each in losses for name in each.parts)
    parts = {
        name: _mean([each.parts[name] for each in losses if name in each.parts]) for name in names
    }
    return Losses(parts, sum(each.tokens for each in losses))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
