"""A result that one thread hands over and others wait for, whatever signal interrupts them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar, cast

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Promise(Generic[T]):
    """A result to come. What is set first counts; setting again does no harm.

    It is what `concurrent.futures.Future` is, and `threading.Event`, but for the lock. Theirs is
    taken by Python code, and a signal that raises just behind it leaves it taken. Whoever sets the
    result then waits for ever. Here each lock is taken by the interpreter in one go.
    """

    def __init__(self) -> None:
        """Nothing is set yet."""
        self._lock = threading.Lock()
        self._outcome: tuple[T | None, BaseException | None] | None = None
        self._calls: deque[Callable[[], object]] = deque()

    def done(self) -> bool:
        """Whether the result is there, or an error in its place."""
        return self._outcome is not None

    def cancelled(self) -> bool:
        """Whether `cancel` came first."""
        return self._outcome is not None and isinstance(self._outcome[1], CancelledError)

    def set_result(self, result: T) -> None:
        """Hand the result over. If an interrupt breaks this off, it is to be called again."""
        self._settle((result, None))

    def set_exception(self, error: BaseException) -> None:
        """Have an error raised where the result is waited for."""
        self._settle((None, error))

    def cancel(self) -> None:
        """Say that nobody waits any more."""
        self.set_exception(CancelledError())

    def _settle(self, outcome: tuple[T | None, BaseException | None]) -> None:
        with self._lock:
            if self._outcome is None:
                self._outcome = outcome
        while (call := self._first_call()) is not None:
            _call(call)
            with self._lock:  # afterwards, so that an interrupt forgets none
                if self._calls and self._calls[0] is call:
                    self._calls.popleft()

    def _first_call(self) -> Callable[[], object] | None:
        with self._lock:
            return self._calls[0] if self._calls else None

    def add_done_callback(self, call: Callable[[], object]) -> None:
        """Have a function called when the result is there: by who sets it, or at once.

        Args:
            call: It may be called twice, if who sets the result is interrupted.
        """
        with self._lock:
            waits = self._outcome is None
            if waits:
                self._calls.append(call)
        if not waits:
            _call(call)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the result.

        Args:
            timeout: The most seconds to wait; None waits for ever.

        Returns:
            Whether it is there.
        """
        if self.done():
            return True
        ready = threading.Lock()
        ready.acquire()
        call = partial(_open, ready)
        self.add_done_callback(call)
        longest = -1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX)
        try:
            ready.acquire(timeout=longest)
        finally:
            self._forget(call)
        return self.done()

    def _forget(self, call: Callable[[], object]) -> None:
        with self._lock, suppress(ValueError):
            self._calls.remove(call)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result and return it.

        Args:
            timeout: The most seconds to wait; None waits for ever.

        Raises:
            TimeoutError: It did not come in time.
            CancelledError: It was cancelled.
            BaseException: The error that was set.
        """
        if not self.wait(timeout):
            raise TimeoutError
        assert self._outcome is not None
        result, error = self._outcome
        if error is not None:
            raise error
        return cast("T", result)


def _call(call: Callable[[], object]) -> None:
    """Call a function; its errors are its own."""
    try:
        call()
    except Exception:
        logger.exception("what was to be called with a result raised")


def _open(lock: threading.Lock) -> None:
    """Release a lock that one waits for; nothing if it is open already."""
    with suppress(RuntimeError):
        lock.release()
