"""Core-minutes of training: how many there are and are used, and the learning rate by them."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Budget:
    """Counts the core-minutes of updates, over all resumptions of a run.

    They are what a clock says: the time that all threads of this process compute, or what updates
    take by a known pace. So a run on one core gets as much as one on two, and what other processes
    do beside it takes nothing from it.

    Attributes:
        minutes: How many there are.
        used: How many are used.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.process_time) -> None:
        """Begin with all of them.

        Args:
            minutes: More than zero.
            clock: Seconds that were computed since any moment.

        Raises:
            ValueError: There are no minutes.
        """
        if not (minutes > 0 and math.isfinite(minutes)):
            raise ValueError(f"a run needs more than 0 minutes, not {minutes}")
        self.minutes, self.used = minutes, 0.0
        self._clock = clock

    @property
    def share(self) -> float:
        """The share that is used, in [0, 1]."""
        return min(1.0, self.used / self.minutes)

    @property
    def is_spent(self) -> bool:
        """Whether no more updates may begin."""
        return self.used >= self.minutes

    @contextmanager
    def counting(self) -> Iterator[None]:
        """What is done meanwhile uses minutes."""
        began = self._clock()
        yield
        self.used += (self._clock() - began) / 60


@dataclass(frozen=True)
class TimedCosine:
    """A warm-up over updates, then half a cosine over the minutes of a budget.

    A run of given minutes does not know its number of updates.

    Attributes:
        peak: The learning rate that the warm-up reaches.
        warmup: Updates of the warm-up.
        budget: What the cosine follows.
        floor: The lowest rate, as a share of the peak.
    """

    peak: float
    warmup: int
    budget: Budget
    floor: float = 0.02

    def __call__(self, step: int) -> float:
        """The learning rate of an update, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * self.budget.share))
        return self.peak * warm * (self.floor + (1 - self.floor) * cosine)
