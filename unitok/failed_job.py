"""The job of a request that could not be prepared."""

from __future__ import annotations

from concurrent.futures import Future

from torch import Tensor

from unitok.handles import FailReason
from unitok.results import Event, Result
from unitok_engine import Output, Request


class FailedJob:
    """A job that has its result before it begins. It is a `unitok.handles.Job`.

    Attributes:
        pictures: Empty, as nothing is generated.
        timeout: None, as it takes no time.
        ended: Always true.
        result: What the caller gets, with its error.
    """

    pictures: tuple[Future[Tensor], ...] = ()
    timeout: float | None = None
    ended = True

    def __init__(self, result: Result) -> None:
        """Keep a result that has an error."""
        self.result = result

    @property
    def request(self) -> Request:
        """There is no request for the engine.

        Raises:
            ValueError: Always, with the error of the result.
        """
        raise ValueError(str(self.result.error))

    def feed(self, output: Output) -> None:
        """Do nothing, as the engine never has this job."""

    def fail(self, reason: FailReason, error: str) -> None:
        """Do nothing, as the job has failed already."""

    def new_events(self) -> list[Event]:
        """The result."""
        return [Event("result", result=self.result)]

    def merge(self, unread: Event, new: Event) -> Event | None:
        """None, as there are no events to merge."""
        return None
