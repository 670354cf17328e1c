"""The driver: one thread owns the engine and steps it; callers hand in jobs and get handles.

A caller never steps, and handing in a job never waits for a step. Signals land in the caller's
thread, so Ctrl-C cannot break a step off. Whatever happens to one caller or to one step, every
handle gets its result, and the other callers' go on.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Hashable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import suppress
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

import torch

from unitok.handles import FailReason, Flight, Handle, Job, TokenJob, from_thread
from unitok.image_decoder import ImageDecoder
from unitok.openmp import give_up_team
from unitok.terminal import one_line
from unitok_engine import Engine, Output, Request

logger = logging.getLogger(__name__)

CLOSED = "the model is closed"
MAX_OPEN = 10_000  # jobs that have no result yet
MAX_FAILURES = 100  # turns in a row that raise and bring nothing
PATIENCE = 30.0  # seconds that the interpreter's end waits for a step
FORKED = (
    "this model was loaded before a fork, and its threads did not come along: load it in the child "
    "process, or start processes with multiprocessing's 'spawn'"
)

E = TypeVar("E")
R = TypeVar("R")


Order = tuple[Literal["submit", "cancel", "idle", "close", "look"], Any]


class Driver:
    """Owns an engine and the thread that steps it, which starts with the first job.

    Everything public may be called from any thread. The engine belongs to the driver's thread:
    elsewhere only its `check`, `config` and `stats` are used.
    """

    def __init__(self, engine: Engine, image_decoder: ImageDecoder | None = None) -> None:
        self.engine = engine
        self.image_decoder = image_decoder or ImageDecoder(torch.device("cpu"), background=False)
        # Neither signals nor garbage collection can break off a SimpleQueue's `put`.
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._order: Order | None = None  # the one that is being carried out
        self._flights: dict[int, Flight[Any, Any]] = {}  # by the engine's request id
        self._decoding_images: dict[
            int, Flight[Any, Any]
        ] = {}  # those that wait for pictures alone
        self._outputs: deque[Output] = deque()
        self._delivering: Output | None = None
        self._idlers: list[threading.Event] = []
        self._failures = 0
        self._doubtful = False  # something was broken off, and what it had to say may be lost
        self._refusal: str | None = None  # why nothing can be submitted any more
        self._closing = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.image_decoder.notify = _looker(self._orders)
        _drivers.add(self)

    def submit(
        self, job: Job[E, R], *, share: Hashable | None = None, stream: bool = False
    ) -> Handle[E, R]:
        """Hand in a job; this never waits for a step.

        share: jobs with the same one take turns as one among the others, see `Engine.add`. stream:
        whether the handle gives events.

        Raises:
            ValueError: the engine could never run the job's request.
            RuntimeError: the driver is closed, was forked, or has too many jobs already.
        """
        self.engine.check(job.request)
        return self._submit([job], share, stream)[0]

    def _submit(
        self, jobs: Sequence[Job[E, R]], share: Hashable | None, stream: bool = False
    ) -> list[Handle[E, R]]:
        """Hand in checked jobs that are to begin in the same step."""
        self.check_open()
        waiting = len(self._flights) + len(self._decoding_images) + self._orders.qsize()
        if waiting + len(jobs) > MAX_OPEN:
            raise RuntimeError(f"{MAX_OPEN:,} requests wait already: try again when some are done")
        give_up_team()  # of this thread, which is about to wait
        flights = [Flight(job, share, stream) for job in jobs]
        handles = [Handle(self, flight) for flight in flights]
        try:
            self._start()
            self._orders.put(("submit", flights))
        except BaseException:  # Ctrl-C: whoever caught it may hold on to this frame's handles
            for handle in handles:
                handle.cancel()
            raise
        return handles

    def run(self, jobs: Iterable[Job[E, R]], in_flight: int) -> Generator[R]:
        """Results as they come. Jobs are taken lazily, a bounded number in flight.

        A job that has a result already is not submitted. One that could never run fails alone.
        """
        source, share, numbers = iter(jobs), object(), count()
        flying: dict[int, Handle[E, R]] = {}
        ready: SimpleQueue[int] = SimpleQueue()
        try:
            while True:
                new: list[Job[E, R]] = []
                while len(flying) + len(new) < in_flight:
                    if (job := next(source, None)) is None:
                        break
                    if (result := self._known_result(job)) is not None:
                        yield result
                    else:
                        new.append(job)
                for handle in self._submit(new, share) if new else ():
                    number = next(numbers)
                    flying[number] = handle
                    handle.when_done(partial(ready.put, number))
                if not flying:
                    return
                for number in _all_of(ready):
                    yield flying.pop(number).result()
        finally:
            for handle in flying.values():
                handle.cancel()

    def complete(self, requests: Iterable[Request], in_flight: int = 1024) -> list[Output]:
        """The finished outputs of bare requests, in their order, sample by sample."""
        jobs = [TokenJob(request) for request in requests]
        for _ in self.run(jobs, in_flight):
            pass
        return [output for job in jobs for output in job.result or ()]

    async def arun(self, jobs: AsyncIterator[Job[E, R]], in_flight: int) -> AsyncGenerator[R]:
        """`run`, for `async for`: results come while the next job is still awaited."""
        share, numbers = object(), count()
        flying: dict[int, Handle[E, R]] = {}
        ready: asyncio.Queue[int] = asyncio.Queue()
        getting = asyncio.ensure_future(ready.get())
        taking = asyncio.ensure_future(anext(jobs, None))
        more = True
        try:
            while more or flying:
                may_take = more and len(flying) < in_flight
                waits = {getting, taking} if may_take else {getting}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield flying.pop(getting.result()).result()
                    getting = asyncio.ensure_future(ready.get())
                if not (may_take and taking.done()):
                    continue
                if (job := taking.result()) is None:
                    more = False
                    continue
                taking = asyncio.ensure_future(anext(jobs, None))
                if (result := self._known_result(job)) is not None:
                    yield result
                    continue
                number = next(numbers)
                (flying[number],) = self._submit([job], share)
                flying[number].when_done(from_thread(partial(ready.put_nowait, number)))
        finally:
            getting.cancel()
            taking.cancel()
            for handle in flying.values():
                handle.cancel()

    def _known_result(self, job: Job[E, R]) -> R | None:
        """The result of a job that has one before it begins, as it can never run."""
        if job.result is None:
            self.check_open()
            try:
                self.engine.check(job.request)
            except Exception as error:  # a plan is its caller's code
                job.fail("error", one_line(error))
        return job.result

    def cancel(self, flight: Flight[Any, Any]) -> None:
        """End a job at the next step; nothing if it has ended."""
        self._orders.put(("cancel", flight))

    def check_open(self) -> None:
        """Raise RuntimeError if nothing can be submitted any more."""
        if self._refusal is not None:
            raise RuntimeError(self._refusal)

    def check_fork(self) -> None:
        """Raise RuntimeError in a process that was forked from the driver's."""
        if self._refusal is FORKED:
            raise RuntimeError(FORKED)

    def wait_until_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False if that takes longer than `timeout` seconds."""
        if self._thread is None or not self._thread.is_alive():
            return True
        idle = threading.Event()
        self._orders.put(("idle", idle))
        return idle.wait(timeout)

    def close(self, timeout: float | None = None) -> None:
        """End what runs as aborted, then the thread. Closing again does nothing."""
        self._refusal = self._refusal or CLOSED
        with self._starting:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._orders.put(("close", None))
            thread.join(timeout)
        if (
            self._refusal is not FORKED
        ):  # in a child, the image decoder's thread is not there either
            self.image_decoder.close()

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._starting:
            if self._thread is None:
                wake = _looker(self._orders)
                thread = threading.Thread(
                    target=_drive,
                    args=(weakref.ref(self, lambda _: wake()), self._orders),
                    name="unitok-driver",
                    daemon=True,  # `_close_all` ends it; a step that hangs holds no program up
                )
                thread.start()
                self._thread = thread
                _threads.add(thread)

    # -- what the driver's thread does

    def turn(self) -> bool:
        """Carry out orders, step once, hand out what came; whether there is more to do at once."""
        while (order := self._next_order()) is not None:
            self._carry_out(*order)
            self._order = None
        if self.engine.has_work or self._outputs or self._doubtful:
            self._step()
        self.image_decoder.work()
        for flight in list(self._decoding_images.values()):
            if flight.job.result is not None:
                self._land(flight)
        return self.engine.has_work or self.image_decoder.has_work or not self._orders.empty()

    def note_failure(self, error: BaseException) -> None:
        """A turn was broken off: the next one goes on where it can.

        The engine tries a failed step again with fewer rows, and ends what cannot run by itself. So
        it is only when that brings nothing for long that all are given up.
        """
        logger.warning("a step failed, and is tried again: %s", one_line(error))
        self._doubtful = True
        self._failures += 1
        output, self._delivering = self._delivering, None
        if output is not None and (flight := self._flights.get(output.request_id)) is not None:
            self._fail(flight, "error", one_line(error))
        if self._failures > MAX_FAILURES:
            self._failures = 0
            self._fail_all("error", one_line(error))

    def wake(self, order: Order) -> None:
        """Begin the next turn with an order."""
        self._order = order

    def rest(self) -> bool:
        """Note that there is nothing to do; whether the thread is to end."""
        give_up_team()
        idlers, self._idlers = self._idlers, []
        for idler in idlers:
            idler.set()
        return self._closing

    def _next_order(self) -> Order | None:
        """The order that was broken off, else the next."""
        if self._order is None:
            with suppress(Empty):
                self._order = self._orders.get_nowait()
        return self._order

    def _carry_out(self, what: str, about: Any) -> None:
        """Carry an order out; doing so twice does no harm."""
        if what == "submit":
            for flight in about:
                self._take_off(flight)
        elif what == "cancel" and not about.done.done():
            self._fail(about, "abort", "it was cancelled")
        elif what == "idle":
            self._idlers.append(about)
        elif what == "close":
            self._closing = True
            self._fail_all("abort", CLOSED)

    def _take_off(self, flight: Flight[Any, Any]) -> None:
        if flight.done.done():  # its caller was interrupted, or this is done again
            return
        if self._closing:
            self._fail(flight, "abort", CLOSED)
            return
        try:
            if flight.request_id is None:
                flight.request_id = self.engine.add(flight.job.request, flight.share)
            self._flights[flight.request_id] = flight
        except Exception as error:  # a plan is its caller's code
            self._fail(flight, "error", one_line(error))

    def _step(self) -> None:
        self._outputs.extend(self.engine.step())
        if self._outputs:
            self._failures = 0
        while self._outputs:
            self._delivering = self._outputs.popleft()
            self._deliver(self._delivering)
            self._delivering = None
        if self._doubtful:
            self._doubtful = False
            for request_id, flight in list(self._flights.items()):
                if not self.engine.is_alive(request_id):
                    self._fail(flight, "error", "it was lost in a step that broke off")

    def _deliver(self, output: Output) -> None:
        flight = self._flights.get(output.request_id)
        if flight is None:
            if not output.finished:  # nobody's: its order was broken off
                self.engine.abort(output.request_id)
            return
        try:
            flight.job.feed(output)
            flight.tell()
        except Exception as error:  # its own detokenizer: the others go on
            self._fail(flight, "error", one_line(error))
            return
        if flight.job.ended:
            self._leave_engine(flight)

    def _leave_engine(self, flight: Flight[Any, Any]) -> None:
        """A job wants nothing more of the engine: it has its result, or waits for its pictures."""
        assert flight.request_id is not None
        if self.engine.is_alive(flight.request_id):
            self.engine.abort(flight.request_id)
        if flight.job.result is None:
            self._decoding_images[flight.request_id] = flight
            del self._flights[flight.request_id]
        else:
            self._land(flight)

    def _fail(self, flight: Flight[Any, Any], reason: FailReason, error: str) -> None:
        if flight.request_id is not None:
            self.engine.abort(flight.request_id)
        self.image_decoder.cancel(flight.job.pictures)
        flight.job.fail(reason, error)
        self._land(flight)

    def _fail_all(self, reason: FailReason, error: str) -> None:
        for flight in [*self._flights.values(), *self._decoding_images.values()]:
            self._fail(flight, reason, error)

    def _land(self, flight: Flight[Any, Any]) -> None:
        flight.finish()  # first: what is broken off here is found again
        if flight.request_id is not None:
            self._flights.pop(flight.request_id, None)
            self._decoding_images.pop(flight.request_id, None)

    def forked(self) -> None:
        """In a forked child there is no thread, and locks may be held for ever."""
        self._refusal = FORKED
        self._orders = SimpleQueue()
        self._starting = threading.Lock()
        self._thread = None


def _all_of(queue: SimpleQueue[int]) -> Iterator[int]:
    """What is in a queue, and at least one."""
    yield queue.get()
    with suppress(Empty):
        while True:
            yield queue.get_nowait()


def _drive(driver_ref: weakref.ref[Driver], orders: SimpleQueue[Order]) -> None:
    """The driver's thread. At rest it holds no driver, so that one nobody has any more can go."""
    while (driver := driver_ref()) is not None:
        try:
            busy = driver.turn()
            if not busy and driver.rest():
                return
        except BaseException as error:
            _note(driver, error)
            continue
        if not busy:
            del driver
            order = orders.get()
            if (driver := driver_ref()) is not None:
                driver.wake(order)
            del order  # it may hold a job, which is to go when it is done


def _note(driver: Driver, error: BaseException) -> None:
    """Let nothing end the thread, on which all callers wait."""
    try:
        driver.note_failure(error)
    except BaseException:
        logger.exception("what a failed step left could not be put in order")


def _looker(orders: SimpleQueue[Order]) -> Callable[[], None]:
    """A function that has the driver's thread look for what there is to do."""
    return lambda: orders.put(("look", None))


_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that still steps, or frees a model that nobody has, must not outlive Python."""
    for driver in list(_drivers):
        driver.close(PATIENCE)
    for thread in list(_threads):
        thread.join(PATIENCE)


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
