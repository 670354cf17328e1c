"""The driver: one thread owns the engine and steps it; callers submit jobs and get handles.

A caller never steps the engine, and `submit` never waits for a step. Signals arrive in the caller's
thread, so Ctrl-C cannot interrupt a step. Whatever happens to one caller or to one step, every
handle gets its result, and the jobs of other callers go on.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
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

from unitok.backends.backend import Backend
from unitok.handles import AnyFlight, FailReason, Flight, Handle, Job, TokenJob, from_thread
from unitok.image_decoder import ImageDecoder
from unitok.openmp import give_up_team
from unitok.promise import Promise
from unitok.terminal import one_line
from unitok.throughput import Throughput
from unitok.upkeep import Upkeep
from unitok_engine import Output, Request

logger = logging.getLogger(__name__)

CLOSED = "the model is closed"
PAUSED = "the model is paused, and requests have begun that cannot end: resume it first"
MAX_OPEN = 10_000  # jobs that have no result yet
MAX_FAILURES = 100  # turns in a row that fail without an output
PATIENCE = 30.0  # seconds that the interpreter's exit waits for a step
LONGEST_REST = 3600.0  # seconds that the thread sleeps at once while a deadline is set
FORKED = (
    "this model was loaded before a fork, and its threads did not come along: load it in the child "
    "process, or start processes with multiprocessing's 'spawn'"
)

E = TypeVar("E")
R = TypeVar("R")
T = TypeVar("T")
# What callers want of the driver's thread.
Command = (
    tuple[Literal["submit"], Sequence[AnyFlight]]
    | tuple[Literal["cancel"], AnyFlight]
    | tuple[Literal["idle"], Promise[None]]
    | tuple[Literal["upkeep"], Upkeep[Any]]
    | tuple[Literal["close", "look"], None]
)


class Driver:
    """Owns an engine and the thread that steps it. The thread starts with the first job.

    Callers may use the driver from any thread. The engine belongs to the driver's thread: other
    threads use only its `check`, `config` and `stats`.

    Attributes:
        engine: The engine.
        image_decoder: Where jobs have their pictures decoded.
    """

    def __init__(self, engine: Backend, image_decoder: ImageDecoder | None = None) -> None:
        """Take an engine over; no thread runs yet.

        Args:
            engine: An engine that nobody else steps: our own, or another that fits `Backend`.
            image_decoder: By default one that decodes between steps, on the CPU.
        """
        self.engine = engine
        self.image_decoder = image_decoder or ImageDecoder(torch.device("cpu"), background=False)
        # Neither signals nor garbage collection can break off a SimpleQueue's `put`.
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._command: Command | None = None  # the one that is being executed
        self._flights: dict[int, AnyFlight] = {}  # by the engine's request id
        self._decoding_images: dict[int, AnyFlight] = {}  # those that wait only for pictures
        self._deadlines: dict[int, float] = {}  # of flights that have one
        self._throughput = Throughput()
        self._outputs: deque[Output] = deque()
        self._delivering: Output | None = None
        self._idlers: set[Promise[None]] = set()
        self._upkeep: deque[Upkeep[Any]] = deque()
        self._failures = 0
        self._doubtful = False  # a turn was interrupted, and its outputs may be lost
        self._refusal: str | None = None  # why nothing can be submitted any more
        self._closing = False
        # Whether the thread executes no more commands. `Thread.is_alive` must not be asked: when a
        # signal breaks it off, it takes a thread that runs for one that has ended.
        self._ended = False
        self._over: Promise[None] = Promise()  # set at the same time, for those who wait
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.image_decoder.notify = _looker(self._commands)
        _drivers.add(self)

    def submit(
        self, job: Job[E, R], *, share: Hashable | None = None, stream: bool = False
    ) -> Handle[E, R]:
        """Submit a job. This never waits for a step.

        Args:
            job: The job, which belongs to the driver from now on.
            share: Jobs with an equal share take turns as one among the others, see `Engine.add`.
            stream: Whether the handle gives events.

        Returns:
            The handle, which must be kept: the job is cancelled when it is garbage collected.

        Raises:
            ValueError: The engine could never run the job's request.
            RuntimeError: The driver is closed, was forked, or has too many jobs already.
        """
        self.engine.check(job.request)
        return self._submit([job], share, stream)[0]

    def _submit(
        self, jobs: Sequence[Job[E, R]], share: Hashable | None, stream: bool = False
    ) -> list[Handle[E, R]]:
        """Submit checked jobs that are to begin in the same step."""
        self.check_open()
        waiting = len(self._flights) + len(self._decoding_images) + self._commands.qsize()
        if waiting + len(jobs) > MAX_OPEN:
            raise RuntimeError(f"{MAX_OPEN:,} requests wait already: try again when some are done")
        give_up_team()  # of this thread, which is about to wait
        flights = [Flight(job, share, stream) for job in jobs]
        handles = [Handle(self, flight) for flight in flights]
        try:
            self._start()
            self._hand_over(("submit", flights))
        except BaseException:  # Ctrl-C: the traceback may keep the handles of this frame
            for handle in handles:
                handle.cancel()
            raise
        return handles

    def run(self, jobs: Iterable[Job[E, R]], in_flight: int) -> Generator[R]:
        """Results as they come. Jobs are taken lazily.

        A job that has its result already is not submitted. A job that could never run fails, and
        the others go on.

        Args:
            jobs: The jobs.
            in_flight: The most jobs that run at once.

        Raises:
            RuntimeError: The driver is closed, was forked, or has too many jobs already.
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
                    give_up_team()  # the caller may have computed, and is about to wait
        finally:
            for handle in flying.values():
                handle.cancel()

    def complete(self, requests: Iterable[Request], in_flight: int = 1024) -> list[Output]:
        """The outputs of engine requests, in the order of the requests and of their samples.

        Args:
            requests: The requests.
            in_flight: The most requests that run at once.
        """
        jobs = [TokenJob(request) for request in requests]
        for _ in self.run(jobs, in_flight):
            pass
        return [output for job in jobs for output in job.result or ()]

    async def arun(self, jobs: AsyncIterator[Job[E, R]], in_flight: int) -> AsyncGenerator[R]:
        """`run`, for `async for`. Results come while the next job is still awaited."""
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
        """The result of a job that can never run; None if it can."""
        if job.result is None:
            self.check_open()
            try:
                self.engine.check(job.request)
            except Exception as error:  # the plan is the caller's code
                job.fail("error", one_line(error))
        return job.result

    def cancel(self, flight: AnyFlight) -> None:
        """End a job at the next step, unless it has ended."""
        self._commands.put(("cancel", flight))

    def check_open(self) -> None:
        """Check that jobs can still be submitted.

        Raises:
            RuntimeError: The driver is closed, or was forked.
        """
        if self._refusal is not None:
            raise RuntimeError(self._refusal)

    def check_fork(self) -> None:
        """Check that this is the driver's own process.

        Raises:
            RuntimeError: This process was forked from it.
        """
        if self._refusal is FORKED:
            raise RuntimeError(FORKED)

    def wait_until_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do.

        Args:
            timeout: The most seconds to wait; None waits for ever.

        Returns:
            Whether the driver became idle in time.
        """
        if self._thread is None or self._ended:
            return True
        idle: Promise[None] = Promise()
        self._hand_over(("idle", idle))
        return idle.wait(timeout)

    def between_steps(self, work: Callable[[], T], alone: bool = False) -> T:
        """Have the driver's thread do something between two steps, and wait for it.

        Args:
            work: What it does. An interrupted step may have it done twice.
            alone: Whether no request may be on its way then. Those that have begun are run to their
                end first. The others, and new ones, begin afterwards.

        Returns:
            What the work returned.

        Raises:
            RuntimeError: The driver is closed or was forked, or its own thread asks.
            Exception: What the work raised.
        """
        self.check_open()
        if threading.current_thread() is self._thread:
            raise RuntimeError("the driver's own thread cannot wait for itself")
        give_up_team()
        upkeep = Upkeep(work, alone)
        try:
            self._start()
            self._hand_over(("upkeep", upkeep))
            return upkeep.done.result()
        except BaseException:  # Ctrl-C: nobody waits any more
            upkeep.done.cancel()
            self._commands.put(("look", None))
            raise

    def close(self, timeout: float | None = None) -> None:
        """Abort the jobs that run, then end the thread. Closing again does nothing.

        Args:
            timeout: The most seconds to wait for the thread; None waits for ever.
        """
        self._refusal = self._refusal or CLOSED
        with self._starting:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._commands.put(("close", None))
            # A signal that breaks `Thread.join` off makes the thread count as one that has ended.
            if self._over.wait(timeout):
                thread.join(timeout)
            self._refuse_late()
        if self._refusal is not FORKED:  # a forked child has no thread of the image decoder either
            self.image_decoder.close()

    def _hand_over(self, command: Command) -> None:
        """Give the thread a command; if it has ended meanwhile, the command is refused here."""
        self._commands.put(command)
        self._refuse_late()

    def _refuse_late(self) -> None:
        """Refuse the commands that came when the driver was closed and its thread had ended."""
        if not self._ended:
            return
        with suppress(Empty):
            while True:
                self._execute(self._commands.get_nowait())
        self._wake_idlers()

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._starting:
            self.check_open()  # again: once this is closed, no thread may start
            if self._thread is None:
                wake = _looker(self._commands)
                thread = threading.Thread(
                    target=_drive,
                    args=(weakref.ref(self, lambda _: wake()), self._commands),
                    name="unitok-driver",
                    daemon=True,  # `_close_all` ends it; a step that hangs must not block the exit
                )
                thread.start()
                self._adopt(thread)

    def _adopt(self, thread: threading.Thread) -> None:
        self._thread = thread
        _threads.add(thread)

    # -- what the driver's thread does

    def claim(self) -> bool:
        """Whether the current thread is the driver's. It becomes that if there is none.

        A caller that is interrupted while it starts the thread does not come to note it.
        """
        current = threading.current_thread()
        if self._thread is not current:
            with self._starting:
                if self._thread is None and self._refusal is None:
                    self._adopt(current)
        return self._thread is current

    def turn(self) -> bool:
        """Execute commands, step once, deliver the outputs.

        Returns:
            Whether there is more to do at once.
        """
        while (command := self._next_command()) is not None:
            self._execute(command)
            self._command = None
        self._end_overdue()
        if self._wants_to_be_alone:
            self.engine.hold()
        if self.engine.has_work or self._outputs or self._doubtful:
            self._step()
        for _ in range(self.image_decoder.due):
            self.image_decoder.work()
            if not self._commands.empty():  # a picture of a large model takes long
                break
        for flight in list(self._decoding_images.values()):
            if flight.job.result is not None:
                self._finish(flight)
        self._keep_up()
        # While only pictures are awaited, the image decoder wakes the thread.
        waits = self.engine.paused or (self._wants_to_be_alone and self.engine.idle)
        steps = self.engine.has_work and not waits
        return steps or self.image_decoder.has_work or not self._commands.empty()

    @property
    def _wants_to_be_alone(self) -> bool:
        return any(upkeep.alone for upkeep in self._upkeep)

    def _keep_up(self) -> None:
        """Do what was to be done between steps, in order, as far as it can be done now."""
        while self._upkeep:
            first = self._upkeep[0]
            if first.alone and not (first.done.done() or self._is_alone):
                if not self.engine.paused or self.engine.idle:
                    return
                first.fail(RuntimeError(PAUSED))
            first.run()
            self._upkeep.popleft()
        self.engine.resume()

    @property
    def _is_alone(self) -> bool:
        return self.engine.idle and not self._outputs and not self._decoding_images

    def note_failure(self, error: BaseException) -> None:
        """Note that a turn was interrupted. The next turn goes on from there.

        The engine tries a failed step again with fewer rows, and fails the requests that cannot run
        even alone. Only if many turns in a row bring nothing do all jobs fail.
        """
        logger.warning("a step failed and is tried again: %s", one_line(error))
        self._doubtful = True
        self._failures += 1
        output, self._delivering = self._delivering, None
        if output is not None and (flight := self._flights.get(output.request_id)) is not None:
            self._fail(flight, "error", one_line(error))
        if self._failures > MAX_FAILURES:
            self._failures = 0
            self._fail_all("error", one_line(error))

    def wake(self, command: Command) -> None:
        """Begin the next turn with a command."""
        self._command = command

    def rest(self) -> bool:
        """Wake those who wait for the driver to be idle.

        Returns:
            Whether the thread is to end.
        """
        give_up_team()
        self._throughput.rest()
        waits = self.engine.has_work and not self._closing  # while the engine is paused
        if self._upkeep or waits:  # of upkeep, only pictures are awaited
            return False
        self._ended = self._closing
        self._refuse_late()  # what came before others could see that this thread has ended
        self._wake_idlers()
        if self._ended:
            self._over.set_result(None)
        return self._ended

    def _wake_idlers(self) -> None:
        for idler in tuple(self._idlers):
            idler.set_result(None)  # first, so that it is not forgotten if this is interrupted
            self._idlers.discard(idler)

    @property
    def time_left(self) -> float | None:
        """The seconds until the next deadline, within bounds; None if there is none."""
        if not self._deadlines:
            return None
        left = min(self._deadlines.values()) - time.monotonic()
        return min(max(left, 0.0), LONGEST_REST)

    @property
    def tokens_per_second(self) -> float:
        """The rate of generated tokens while the engine is busy; see `Throughput.rate`."""
        return self._throughput.rate

    def _next_command(self) -> Command | None:
        """The command that was interrupted, else the next."""
        if self._command is None:
            with suppress(Empty):
                self._command = self._commands.get_nowait()
        return self._command

    def _execute(self, command: Command) -> None:
        """Execute a command. Doing so twice does no harm."""
        if command[0] == "submit":
            for flight in command[1]:
                self._begin(flight)
        elif command[0] == "cancel":
            if not command[1].done.done():
                self._fail(command[1], "abort", "it was cancelled")
        elif command[0] == "idle":
            self._idlers.add(command[1])
        elif command[0] == "upkeep":
            self._upkeep.append(command[1])
        elif command[0] == "close":
            self._closing = True
            self._fail_all("abort", CLOSED)
        if self._closing:
            while self._upkeep:
                self._upkeep.popleft().fail(RuntimeError(CLOSED))

    def _begin(self, flight: AnyFlight) -> None:
        if flight.done.done():  # its caller was interrupted, or the command is executed again
            return
        if self._closing:
            self._fail(flight, "abort", CLOSED)
            return
        try:
            if flight.request_id is None:
                flight.request_id = self.engine.add(flight.job.request, flight.share)
            self._flights[flight.request_id] = flight
            if flight.deadline is not None:
                self._deadlines[flight.request_id] = flight.deadline
        except Exception as error:  # the plan is the caller's code
            self._fail(flight, "error", one_line(error))

    def _end_overdue(self) -> None:
        """End the jobs whose time is over."""
        if not self._deadlines:
            return
        now = time.monotonic()
        for request_id in [i for i, deadline in self._deadlines.items() if deadline <= now]:
            flight = self._flights.get(request_id) or self._decoding_images[request_id]
            self._fail(flight, "timeout", timed_out(flight.job.timeout))

    def _step(self) -> None:
        self._throughput.begin(time.monotonic(), self.engine.generated_tokens)
        self._outputs.extend(self.engine.step())
        self._throughput.note(time.monotonic(), self.engine.generated_tokens)
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
                    self._fail(flight, "error", "it was lost in a step that was interrupted")

    def _deliver(self, output: Output) -> None:
        flight = self._flights.get(output.request_id)
        if flight is None:
            if not output.finished:  # its caller was interrupted, and nobody waits for it
                self.engine.abort(output.request_id)
            return
        try:
            flight.job.feed(output)
            flight.publish()
        except Exception as error:  # of its own detokenizer: the other jobs go on
            self._fail(flight, "error", one_line(error))
            return
        if flight.job.ended:
            self._leave_engine(flight)

    def _leave_engine(self, flight: AnyFlight) -> None:
        """Take a job out of the engine: it has its result, or waits only for its pictures."""
        assert flight.request_id is not None
        if self.engine.is_alive(flight.request_id):
            self.engine.abort(flight.request_id)
        if flight.job.result is None:
            self._decoding_images[flight.request_id] = flight
            del self._flights[flight.request_id]
        else:
            self._finish(flight)

    def _fail(self, flight: AnyFlight, reason: FailReason, error: str) -> None:
        if flight.request_id is not None:
            self.engine.abort(flight.request_id)
        self.image_decoder.cancel(flight.job.pictures)
        flight.job.fail(reason, error)
        self._finish(flight)

    def _fail_all(self, reason: FailReason, error: str) -> None:
        for flight in [*self._flights.values(), *self._decoding_images.values()]:
            self._fail(flight, reason, error)

    def _finish(self, flight: AnyFlight) -> None:
        flight.finish()  # first, so that the flight is found again if this is interrupted
        if flight.request_id is not None:
            self._deadlines.pop(flight.request_id, None)
            self._flights.pop(flight.request_id, None)
            self._decoding_images.pop(flight.request_id, None)

    def forked(self) -> None:
        """Refuse further jobs: a forked child has no thread, and locks may be held for ever."""
        self._refusal = FORKED
        self._commands = SimpleQueue()
        self._starting = threading.Lock()
        self._thread = None


def _all_of(queue: SimpleQueue[int]) -> Iterator[int]:
    """The elements of a queue. This waits for the first."""
    yield queue.get()
    with suppress(Empty):
        while True:
            yield queue.get_nowait()


def _drive(driver_ref: weakref.ref[Driver], commands: SimpleQueue[Command]) -> None:
    """Run the driver's thread. While it is idle it holds no reference that keeps the driver."""
    while (driver := driver_ref()) is not None:
        try:
            if not driver.claim():
                return
            busy = driver.turn()
            if not busy and driver.rest():
                return
        except BaseException as error:
            _note(driver, error)
            continue
        if busy:
            continue
        seconds = driver.time_left
        del driver
        try:
            command = commands.get(timeout=seconds)
        except Empty:  # a deadline has come
            continue
        if (driver := driver_ref()) is not None:
            driver.wake(command)
        del command  # it may hold a job, which is to be freed when it is done


def _note(driver: Driver, error: BaseException) -> None:
    """Note a failure. Nothing may end the thread, as all callers wait for it."""
    try:
        driver.note_failure(error)
    except BaseException:
        logger.exception("the driver could not recover from a failed step")


def timed_out(timeout: float | None) -> str:
    """What is said of a request whose time is over."""
    return f"the request was not done within its timeout of {timeout:g} s"


def _looker(commands: SimpleQueue[Command]) -> Callable[[], None]:
    """A function that has the driver's thread look for work."""
    return lambda: commands.put(("look", None))


_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End all threads: one that still steps or frees a model must not outlive the interpreter."""
    for driver in list(_drivers):
        driver.close(PATIENCE)
    for thread in list(_threads):
        thread.join(PATIENCE)


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
