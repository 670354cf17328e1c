"""Results that threads wait for: what is set first counts, and no interrupt leaves a lock taken."""

import signal
import threading
import time
from concurrent.futures import CancelledError

import pytest

from unitok.promise import Promise

PATIENCE = 60.0


def test_a_result_reaches_all_who_wait_and_all_who_come_later():
    promise: Promise[int] = Promise()
    got: list[int] = []
    waiting = [threading.Thread(target=lambda: got.append(promise.result())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    assert not promise.done() and not promise.wait(0)
    promise.set_result(5)
    for thread in waiting:
        thread.join(PATIENCE)
    assert got == [5, 5, 5] and promise.result(0) == 5


def test_what_is_set_first_counts():
    promise: Promise[int] = Promise()
    promise.set_result(1)
    promise.set_result(2)
    promise.set_exception(ValueError())
    promise.cancel()
    assert promise.result() == 1 and not promise.cancelled()


def test_an_error_is_raised_and_so_is_a_cancellation():
    failed, cancelled = Promise[int](), Promise[int]()
    failed.set_exception(KeyError("no"))
    cancelled.cancel()
    with pytest.raises(KeyError, match="no"):
        failed.result()
    with pytest.raises(CancelledError):
        cancelled.result()
    assert cancelled.cancelled() and not failed.cancelled()


def test_a_result_that_does_not_come_is_a_timeout():
    with pytest.raises(TimeoutError):
        Promise[int]().result(timeout=0.01)
    with pytest.raises(TimeoutError):
        Promise[int]().result(timeout=-1)


def test_callbacks_are_called_once_and_at_once_if_the_result_is_there():
    promise, called = Promise[None](), []
    promise.add_done_callback(lambda: called.append("before"))
    promise.set_result(None)
    promise.set_result(None)
    promise.add_done_callback(lambda: called.append("after"))
    assert called == ["before", "after"]


def test_a_callback_that_raises_keeps_nobody_from_the_result(caplog: pytest.LogCaptureFixture):
    promise, called = Promise[None](), []
    promise.add_done_callback(lambda: 1 / 0)
    promise.add_done_callback(lambda: called.append("second"))
    promise.set_result(None)
    assert called == ["second"] and "ZeroDivisionError" in caplog.text


def test_an_interrupt_amid_the_callbacks_forgets_none_when_it_is_set_again():
    promise, called = Promise[None](), []

    def interrupted() -> None:
        called.append("first")
        if len(called) == 1:
            raise KeyboardInterrupt

    promise.add_done_callback(interrupted)
    promise.add_done_callback(lambda: called.append("second"))
    with pytest.raises(KeyboardInterrupt):
        promise.set_result(None)
    promise.set_result(None)
    assert called == ["first", "first", "second"]


def test_signals_while_one_waits_keep_no_other_thread_from_setting_it():
    """With `Future`, a signal just behind its lock leaves that taken, once in some thousands."""
    waits: list[Promise[int]] = []
    over = threading.Event()

    def set_all() -> None:
        while not over.is_set():
            for promise in waits[-2:]:
                promise.set_result(1)

    setter = threading.Thread(target=set_all, daemon=True)
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    setter.start()
    interrupted, end = 0, time.monotonic() + PATIENCE
    try:
        while interrupted < 300 and time.monotonic() < end:
            waits.append(Promise())
            signal.setitimer(signal.ITIMER_REAL, 1e-4)
            try:
                while True:
                    promise = Promise[int]()
                    waits.append(promise)
                    promise.result(0.001) if len(waits) % 2 else promise.done()
                    del waits[:-4]
            except KeyboardInterrupt:
                interrupted += 1
            except TimeoutError:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        over.set()
    setter.join(PATIENCE)
    assert not setter.is_alive() and interrupted == 300
