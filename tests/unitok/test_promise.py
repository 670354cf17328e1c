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


def test_who_waited_in_vain_is_forgotten():
    promise: Promise[int] = Promise()
    for _ in range(3):
        assert not promise.wait(0)
    assert not promise._calls


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


def test_signals_to_a_caller_keep_no_other_thread_from_setting_the_result():
    """With a `Future`, every second one is left locked."""
    interrupted: list[Promise[int]] = []
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        while len(interrupted) < 300:
            promise, patience = Promise[int](), time.monotonic() + 1
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4)
                # An interrupt amid a finaliser is lost, and the timer rings once.
                while time.monotonic() < patience:
                    promise.wait(0)
                    promise.done()
            except KeyboardInterrupt:
                interrupted.append(promise)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)

    def set_all() -> None:
        for promise in interrupted:
            promise.set_result(1)

    setter = threading.Thread(target=set_all, daemon=True)
    setter.start()
    setter.join(PATIENCE)
    assert all(promise.done() for promise in interrupted)
