"""Jobs of the driver, and the handles that their callers get.

A `Job` prepares what the engine needs and collects what it gives. A `Flight` is a job between its
submission and its result. The driver and a `Handle` share it: events go through it from the
driver's thread to the caller's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Literal, Protocol, TypeVar

from torch import Tensor

from unitok.promise import Promise
from unitok_engine import Output, Request, join_outputs

E = TypeVar("E")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Waker = Callable[[], object]
FailReason = Literal["error", "abort", "timeout"]


class Job(Protocol[E, R_co]):
    """A request for the driver: what the engine is asked for, and what becomes of its outputs.

    Only `request` and `timeout` are used by other threads than the driver's.
    """

    @property
    def request(self) -> Request:
        """What the engine is asked for."""
        ...

    @property
    def timeout(self) -> float | None:
        """The most seconds from its submission to its result; None for no limit."""
        ...

    @property
    def pictures(self) -> Sequence[Future[Tensor]]:
        """The pictures that were handed to the image decoder."""
        ...

    @property
    def ended(self) -> bool:
        """Whether it needs no more outputs of the engine."""
        ...

    @property
    def result(self) -> R_co | None:
        """The result; None until it is complete."""
        ...

    def feed(self, output: Output) -> None:
        """Take an output of the engine, which belongs to one sample."""
        ...

    def new_events(self) -> list[E]:
        """The events since the last call. This is called after each `feed`, or never."""
        ...

    def merge(self, unread: E, new: E) -> E | None:
        """One event that replaces an unread one and a new one; None if both are needed."""
        ...

    def fail(self, reason: FailReason, error: str) -> None:
        """End the job now. Its result has this finish reason and this error."""
        ...


class TokenJob:
    """The job of an engine request, without text or pictures.

    Its events are outputs. Its result has one output for each sample, with all its tokens.

    Attributes:
        pictures: Empty, as the tokens are not decoded.
        request: The engine's request.
        timeout: The most seconds until the result; None for no limit.
    """

    pictures: tuple[Future[Tensor], ...] = ()

    def __init__(self, request: Request, timeout: float | None = None) -> None:
        """Nothing has been generated yet."""
        self.request, self.timeout = request, timeout
        self._outputs: dict[int, list[Output]] = {}  # of each sample that goes on
        self._finished: dict[int, Output] = {}  # all of each sample that has ended
        self._reported: dict[int, int] = {}  # outputs of each sample that events had
        self._new: dict[int, Output | None] = {}  # samples with news; the rest of an ended one
        self._weight_version = 0  # of the last output

    @property
    def ended(self) -> bool:
        """Whether every sample has ended."""
        return len(self._finished) == self.request.n

    @property
    def result(self) -> list[Output] | None:
        """An output for each sample, with all its tokens; None before the end."""
        return [self._finished[i] for i in range(self.request.n)] if self.ended else None

    def feed(self, output: Output) -> None:
        """Take an output of the engine."""
        sample, self._weight_version = output.sample, output.weight_version
        outputs = self._outputs.setdefault(sample, [])
        outputs.append(output)
        if not output.finished:
            self._new[sample] = None
            return
        # In this order, so that an interrupt in between loses nothing.
        whole, reported = join_outputs(outputs), self._reported.get(sample, 0)
        self._new[sample] = join_outputs(outputs[reported:]) if reported else whole
        self._finished[sample] = whole
        self._outputs.pop(sample, None)

    def new_events(self) -> list[Output]:
        """The outputs since the last call."""
        events: list[Output] = []
        for sample, rest in self._new.items():
            if rest is not None:
                events.append(rest)
                continue
            outputs = self._outputs[sample]
            events += outputs[self._reported.get(sample, 0) :]
            self._reported[sample] = len(outputs)
        self._new = {}
        return events

    def merge(self, unread: Output, new: Output) -> Output | None:
        """Two outputs of one sample as one output; None if they belong to two samples."""
        return join_outputs([unread, new]) if unread.sample == new.sample else None

    def fail(self, reason: FailReason, error: str) -> None:
        """End the samples that have not ended, with the tokens that they have."""
        prompt = len(self.request.branches[0].token_ids)
        logprobs = () if self.request.logprobs else None
        of_branch = () if self.request.branch_logprobs else None
        for sample in set(range(self.request.n)) - self._finished.keys():
            outputs = self._outputs.get(sample)  # an interrupt of `feed` may leave them empty
            start = outputs[-1].stop if outputs else 0
            values = (reason, error, logprobs, of_branch, self._weight_version)
            self.feed(Output(-1, sample, (), start, prompt, *values))


class Flight(Generic[E, R]):
    """A job between its submission and its result, shared by the driver and a handle.

    Attributes:
        job: The job.
        share: Jobs with an equal share take turns as one among the others, see `Engine.add`.
        streamed: Whether the caller wants events.
        deadline: When the job times out, on the clock of `time.monotonic`; None for never.
        request_id: The engine's id of the request; None until the engine has it.
        done: Holds the result.
    """

    def __init__(self, job: Job[E, R], share: Hashable, streamed: bool) -> None:
        """The engine does not have the job yet."""
        self.job = job
        self.share = share
        self.streamed = streamed
        self.deadline = None if job.timeout is None else time.monotonic() + job.timeout
        self.request_id: int | None = None
        self.done: Promise[R] = Promise()
        self._events: deque[E] = deque()
        self._wakers: list[Waker] = []
        self._lock = threading.Lock()

    def publish(self) -> None:
        """Hand new events to a caller that streams, merged with those it has not read yet."""
        if not self.streamed:
            return
        with self._lock:
            events = self.job.new_events()
            for event in events:
                self._add(event)
        if events:
            self._wake()

    def _add(self, event: E) -> None:
        for place in range(len(self._events) - 1, -1, -1):
            merged = self.job.merge(self._events[place], event)
            if merged is not None:
                self._events[place] = merged
                return
        self._events.append(event)

    def finish(self) -> None:
        """Hand over the job's result. Doing so twice does no harm."""
        result = self.job.result
        assert result is not None
        if not self.done.done():
            self.publish()
        self.done.set_result(result)
        self._wake()

    def take(self, waker: Waker) -> E | None:
        """The next event; None if there is none.

        Args:
            waker: Called when an event or the end comes, if there is no event now.
        """
        with self._lock:
            if self._events:
                return self._events.popleft()
            self._wakers.append(waker)
        if self.done.done():
            self._wake()
        return None

    @property
    def exhausted(self) -> bool:
        """Whether the result is there and every event was taken."""
        return self.done.done() and not self._events

    def _wake(self) -> None:
        with self._lock:
            wakers, self._wakers = self._wakers, []
        for waker in wakers:
            waker()


AnyFlight = Flight[Any, Any]


class Owner(Protocol):
    """What a handle needs of the driver."""

    def cancel(self, flight: AnyFlight, /) -> None:
        """End a job at the next step, unless it has ended."""
        ...

    def check_fork(self) -> None:
        """Raise RuntimeError in a process that was forked from the driver's."""
        ...


class Handle(Generic[E, R]):
    """What a caller has of a job: its events, its result, and the way to cancel it.

    A job that was submitted with `stream=True` gives its events to `for` and `async for`. `await`
    gives the result. A handle that is garbage collected cancels its job.
    """

    def __init__(self, owner: Owner, flight: Flight[E, R]) -> None:
        """Share a flight with its driver."""
        self._owner = owner
        self._flight = flight

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result. The result of a cancelled job says that it was cancelled.

        Args:
            timeout: The most seconds to wait; None waits for ever.

        Raises:
            TimeoutError: The result did not come in time.
            RuntimeError: The process was forked meanwhile.
        """
        if not self.done:
            self._owner.check_fork()
        return self._flight.done.result(timeout)

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self._flight.done.done()

    def when_done(self, call: Callable[[], object]) -> None:
        """Call a function when the result is there.

        Args:
            call: Called by the driver's thread, or at once if the result is there already.
        """
        self._flight.done.add_done_callback(call)

    def cancel(self) -> None:
        """End the job at the next step, unless it has ended. This does not wait."""
        if not self.done:
            self._owner.cancel(self._flight)

    def __del__(self) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[E]:
        self._check_streamed()
        try:
            while not self._flight.exhausted:
                ready: Promise[None] = Promise()
                event = self._flight.take(partial(ready.set_result, None))
                if event is None:
                    ready.wait()
                else:
                    yield event
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[E]:
        self._check_streamed()
        try:
            while not self._flight.exhausted:
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
    """Let other threads call a function of the running event loop.

    Args:
        call: Called by the event loop.

    Returns:
        A function that may be called from any thread, and has `call` called.
    """
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(call)

    return wake
