"""Learning rates by step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class WarmupCosine:
    """A linear warm-up, then half a cosine down to a small share of the peak.

    Attributes:
        peak: The learning rate that the warm-up reaches.
        warmup: Steps of the warm-up; the first step already has 1 / warmup of the rate.
        steps: Steps of the whole run. Beyond them the rate stays at its lowest.
        floor: The lowest rate, as a share of the peak.
    """

    peak: float
    warmup: int
    steps: int
    floor: float = 0.02

    def __call__(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.peak * warm * (self.floor + (1 - self.floor) * cosine)


@dataclass(frozen=True)
class WarmupLinear:
    """A linear warm-up, then a straight line down to zero behind the last step.

    Attributes:
        peak: The learning rate that the warm-up reaches.
        warmup: Steps of the warm-up; the first step already has 1 / warmup of the rate.
        steps: Steps of the whole run. Beyond them the rate stays zero.
    """

    peak: float
    warmup: int
    steps: int

    def __call__(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup)
        return self.peak * warm * max(0.0, 1 - step / self.steps)


@dataclass(frozen=True)
class WarmupConstant:
    """A linear warm-up, then always the same rate.

    Attributes:
        peak: The learning rate that the warm-up reaches.
        warmup: Steps of the warm-up; the first step already has 1 / warmup of the rate.
    """

    peak: float
    warmup: int

    def __call__(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.peak * min(1.0, (step + 1) / self.warmup)
