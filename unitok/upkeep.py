"""Work on the model that is done between two steps of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from unitok.promise import Promise

T = TypeVar("T")


class Upkeep(Generic[T]):
    """Something that the driver's thread is to do between steps, and that a caller waits for.

    Attributes:
        alone: Whether no request may be on its way then.
        done: Holds what it returned or raised.
    """

    def __init__(self, work: Callable[[], T], alone: bool) -> None:
        """Nothing is done yet."""
        self.alone = alone
        self.done: Promise[T] = Promise()
        self._work = work

    def run(self) -> None:
        """Do it, unless it was done or its caller waits no more.

        If an interrupt breaks it off, it is to be run again.
        """
        if self.done.done():
            return
        try:
            result = self._work()
        except Exception as error:  # is its caller's
            self.fail(error)
            return
        self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        """Raise an error where it is waited for, unless it was done."""
        self.done.set_exception(error)
