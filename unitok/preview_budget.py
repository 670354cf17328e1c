"""How much time previews may take, beside the drawings that they show."""

import time
from collections.abc import Callable


class PreviewCost:
    """What previews cost, of all drawings of a model together.

    Attributes:
        clock: Tells the time in seconds.
        spent: Seconds that previews have taken so far.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing was decoded yet.

        Args:
            clock: Tells the time in seconds.
        """
        self.clock = clock
        self.spent = 0.0
        self._per_token: float | None = None

    def note(self, seconds: float, tokens: int, previews: bool) -> None:
        """Note what was decoded.

        Args:
            seconds: How long it took.
            tokens: How many tokens were decoded.
            previews: Whether they are of previews, or of finished pictures.
        """
        self._per_token = seconds / tokens
        if previews:
            self.spent += seconds

    @property
    def is_known(self) -> bool:
        """Whether anything was decoded yet."""
        return self._per_token is not None

    def expected(self, tokens: int) -> float:
        """The seconds that so many tokens took the last time; 0 before the first time."""
        return (self._per_token or 0.0) * tokens


class PreviewBudget:
    """The time that one drawing allows previews to take, from now on.

    All previews count, whose ever they are: drawings that go on at the same time share the steps
    of the engine, and a preview of one delays all of them.
    """

    def __init__(self, cost: PreviewCost, share: float | None) -> None:
        """Start the clock.

        Args:
            cost: What previews cost.
            share: The most time of previews, as a share of all other time; None for no limit.
        """
        self._cost, self._share = cost, share
        self._start, self._before = cost.clock(), cost.spent

    def allows(self, tokens: int) -> bool:
        """Whether previews of so many tokens may be decoded now."""
        if self._share is None:
            return True
        spent = self._cost.spent - self._before
        other = self._cost.clock() - self._start - spent
        return spent + self._cost.expected(tokens) <= self._share * other
