"""Jobs of the driver, and the handles by which their callers hold them.

A `Job` is a request on its way. A `Flight` is a job between its submission and its result, as the
driver and a `Handle` share it: events go through it from the driver's thread to a caller's.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, Literal, Protocol, TypeVar

from unitok_engine import Output, Request, join_outputs

E = TypeVar("E")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Waker = Callable[[], object]
FailReason = Literal["error", "abort"]


class Job(Protocol[E, R_co]):
    """A request on its way. All but `request` is used by the driver's thread alone."""

    @property
    def request(self) -> Request: ...

    @property
    def pictures(self) -> Sequence[Future[Any]]:
        """Pictures that were handed to the image decoder."""
        ...

    @property
    def ended(self) -> bool:
        """Whether it wants nothing more of the engine."""
        ...

    @property
    def result(self) -> R_co | None:
        """What became of it; None while anything is to come."""
        ...

    def feed(self, output: Output) -> None:
        """Take what the engine gave for one sample."""
        ...

    def news(self) -> list[E]:
        """What is new since this was last asked; it is asked after each `feed`, or never."""
        ...

    def merge(self, unread: E, new: E) -> E | None:
        """One event in place of one that is not read yet and a new one; None if both are needed."""
        ...

    def fail(self, reason: FailReason, error: str) -> None:
        """End it now: from here on there is a result, with this finish reason and error."""
        ...


class TokenJob:
    """The job of a bare engine request.

    Its events are outputs, and its result has one output for each sample, with all its tokens.
    """

    pictures: tuple[Future[Any], ...] = ()

    def __init__(self, request: Request) -> None:
        self.request = request
        self._outputs: dict[int, list[Output]] = {}  # of each sample, so far
        self._finished: dict[int, Output] = {}  # all of each sample that has ended
        self._news: list[Output] = []

    @property
    def ended(self) -> bool:
        """Whether every sample has ended."""
        return len(self._finished) == self.request.n

    @property
    def result(self) -> list[Output] | None:
        """An output for each sample, with all its tokens; None before the end."""
        return [self._finished[i] for i in range(self.request.n)] if self.ended else None

    def feed(self, output: Output) -> None:
        """Take an output of the engine's."""
        self._news.append(output)
        outputs = self._outputs.setdefault(output.sample, [])
        outputs.append(output)
        if output.finished:
            self._finished[output.sample] = join_outputs(outputs)

    def news(self) -> list[Output]:
        """The outputs since the last call."""
        news, self._news = self._news, []
        return news

    def merge(self, unread: Output, new: Output) -> Output | None:
        """Two outputs of one sample as one; None if they belong to two."""
        return join_outputs([unread, new]) if unread.sample == new.sample else None

    def fail(self, reason: FailReason, error: str) -> None:
        """End the samples that have not ended."""
        prompt = len(self.request.branches[0].token_ids)
        for sample in set(range(self.request.n)) - self._finished.keys():
            start = self._outputs[sample][-1].stop if sample in self._outputs else 0
            self.feed(Output(-1, sample, (), start, prompt, reason, error))


class Flight(Generic[E, R]):
    """A job between its submission and its result, shared by the driver and a handle."""

    def __init__(self, job: Job[E, R], share: Hashable, streamed: bool) -> None:
        self.job = job
        self.share = share
        self.streamed = streamed
        self.request_id: int | None = None  # the engine's, once it has the request
        self.done: Future[R] = Future()
        self._events: deque[E] = deque()
        self._wakers: list[Waker] = []
        self._lock = threading.Lock()

    def tell(self) -> None:
        """Hand what is new to a caller that streams; what it has not read yet is merged."""
        if not self.streamed:
            return
        with self._lock:
            for event in self.job.news():
                self._add(event)
        self._wake()

    def _add(self, event: E) -> None:
        for place in range(len(self._events) - 1, -1, -1):
            merged = self.job.merge(self._events[place], event)
            if merged is not None:
                self._events[place] = merged
                return
        self._events.append(event)

    def finish(self) -> None:
        """Hand the job's result over. Doing it twice does no harm."""
        result = self.job.result
        assert result is not None
        if not self.done.done():
            self.tell()
            self.done.set_result(result)
        self._wake()

    def take(self, waker: Waker) -> E | None:
        """The next event, if one is there. Else `waker` is called when there is one, or the end."""
        with self._lock:
            if self._events:
                return self._events.popleft()
            self._wakers.append(waker)
        if self.done.done():
            self._wake()
        return None

    @property
    def read(self) -> bool:
        """Whether the result is there and every event was taken."""
        return self.done.done() and not self._events

    def _wake(self) -> None:
        with self._lock:
            wakers, self._wakers = self._wakers, []
        for waker in wakers:
            waker()


class Owner(Protocol):
    """What a handle needs of the driver."""

    def cancel(self, flight: Flight[Any, Any], /) -> None:
        """End a job at the next step; nothing if it has ended."""
        ...

    def check_fork(self) -> None:
        """Raise RuntimeError in a process that was forked from the driver's."""
        ...


class Handle(Generic[E, R]):
    """A caller's hold on a job: its events, its result, and the way to cancel it.

    Whoever lets go of the handle lets go of the job: it is cancelled. Iterate over the handle, or
    `async for`, if it was submitted with `stream=True`; `await` it for the result.
    """

    def __init__(self, owner: Owner, flight: Flight[E, R]) -> None:
        self._owner = owner
        self._flight = flight

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result. A job that was cancelled has one too, which says so.

        Raises:
            TimeoutError: it did not come within `timeout` seconds.
            RuntimeError: the process was forked meanwhile.
        """
        if not self.done:
            self._owner.check_fork()
        return self._flight.done.result(timeout)

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self._flight.done.done()

    def when_done(self, call: Callable[[], object]) -> None:
        """Have a function called when the result is there: by the driver's thread, or at once."""
        self._flight.done.add_done_callback(lambda _: call())

    def cancel(self) -> None:
        """End the job at the next step, if it has not ended. This does not wait."""
        if not self.done:
            self._owner.cancel(self._flight)

    def __del__(self) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[E]:
        self._check_streamed()
        try:
            while not self._flight.read:
                ready = threading.Event()
                event = self._flight.take(ready.set)
                if event is None:
                    ready.wait()
                else:
                    yield event
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[E]:
        self._check_streamed()
        try:
            while not self._flight.read:
                ready = asyncio.Event()
                event = self._flight.take(from_thread(ready.set))
                if event is None:
                    await ready.wait()
                else:
                    yield event
        finally:
            self.cancel()

    def __await__(self) -> Generator[Any, None, R]:
        return self._wait().__await__()

    async def _wait(self) -> R:
        ready = asyncio.Event()
        self.when_done(from_thread(ready.set))
        try:
            await ready.wait()
        finally:
            self.cancel()
        return self.result()

    def _check_streamed(self) -> None:
        if not self._flight.streamed:
            raise ValueError("submit the job with stream=True to get its events")


def from_thread(call: Callable[[], object]) -> Waker:
    """A function that has another called in the running event loop; callable from any thread."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(call)

    return wake
