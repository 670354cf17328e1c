"""Work between steps: it is done once, by the driver's thread, and alone if it asks for that."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from tests.engine.tiny import TinyModel, caption, drawing, engine
from tests.unitok.test_driver import PATIENCE, Gate, assert_idle
from unitok.driver import Driver
from unitok.handles import TokenJob
from unitok.upkeep import Upkeep
from unitok_engine import Engine


@pytest.fixture
def gated() -> Iterator[tuple[Gate, Driver]]:
    gate = Gate()
    made = Driver(engine(gate))
    yield gate, made
    gate.open.set()
    assert_idle(made)
    made.close()


@pytest.fixture
def driver() -> Iterator[Driver]:
    made = Driver(engine())
    yield made
    assert_idle(made)
    made.close()


def test_work_is_done_by_the_drivers_thread_which_goes_on_after_an_error(driver: Driver):
    assert driver.between_steps(lambda: threading.current_thread().name) == "unitok-driver"
    with pytest.raises(ZeroDivisionError):
        driver.between_steps(lambda: 1 / 0, alone=True)
    assert driver.between_steps(lambda: 3, alone=True) == 3
    (output,) = driver.complete([caption(1)])
    assert output.finished


def test_work_that_is_to_be_alone_waits_for_what_has_begun_and_other_work_does_not(
    gated: tuple[Gate, Driver],
):
    gate, driver = gated
    handle = driver.submit(TokenJob(drawing(1, length=5, n=2)))
    assert gate.entered.wait(PATIENCE)
    done: list[str] = []

    def note(what: str) -> None:
        done.append(f"{what}, {driver.engine.stats.running} running")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(driver.between_steps, lambda: note("soon"))
        while not driver._commands.qsize():
            threading.Event().wait(0.01)
        second = pool.submit(driver.between_steps, lambda: note("alone"), True)
        while driver._commands.qsize() < 2:
            threading.Event().wait(0.01)
        waiting = driver.submit(TokenJob(caption(2)))
        gate.open.set()
        first.result(PATIENCE)
        second.result(PATIENCE)
    assert done == ["soon, 2 running", "alone, 0 running"]
    assert handle.done and waiting.result(PATIENCE)


def test_work_that_an_interrupt_breaks_off_is_done_again(driver: Driver):
    calls: list[int] = []

    def work() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return len(calls)

    assert driver.between_steps(work, alone=True) == 2


def test_work_that_nobody_waits_for_any_more_is_not_done(driver: Driver):
    upkeep = Upkeep(lambda: 1 / 0, alone=True)
    upkeep.done.cancel()
    driver.between_steps(lambda: driver._upkeep.append(upkeep))
    assert driver.between_steps(lambda: 1, alone=True) == 1
    upkeep.fail(RuntimeError("nobody hears it"))
    assert upkeep.done.cancelled()


def test_what_comes_too_late_does_no_harm():
    def cancelled() -> int:
        upkeep.done.cancel()
        return 1

    upkeep: Upkeep[int] = Upkeep(cancelled, alone=False)
    upkeep.run()
    upkeep.run()
    assert upkeep.done.cancelled()


def test_the_drivers_own_thread_is_refused_as_it_would_wait_for_itself(
    gated: tuple[Gate, Driver],
):
    gate, driver = gated
    told: list[str] = []

    def called() -> None:
        try:
            driver.between_steps(lambda: None)
        except RuntimeError as error:
            told.append(str(error))

    handle = driver.submit(TokenJob(caption(1)))
    handle.when_done(called)
    gate.open.set()
    assert driver.wait_until_idle(PATIENCE)
    assert told == ["the driver's own thread cannot wait for itself"]


def test_work_that_waits_when_the_driver_is_closed_raises():
    gate = Gate()
    driver = Driver(engine(gate))
    driver.submit(TokenJob(caption(1)))
    handle = driver.submit(TokenJob(caption(2)))
    assert gate.entered.wait(PATIENCE)
    with ThreadPoolExecutor(2) as pool:
        work = pool.submit(driver.between_steps, lambda: 1, True)
        while not driver._commands.qsize():
            threading.Event().wait(0.01)
        closed = pool.submit(driver.close)
        while driver._refusal is None or driver._commands.qsize() < 2:
            threading.Event().wait(0.01)
        gate.open.set()
        closed.result(PATIENCE)
        assert str(work.exception(PATIENCE)) == "the model is closed"
    assert handle.done
    with pytest.raises(RuntimeError, match="closed"):
        driver.between_steps(lambda: 1)


@pytest.mark.parametrize("started", [True, False])
def test_what_comes_while_the_driver_is_closed_is_refused(started: bool):
    """The driver is closed between the look whether it is open and the command."""
    driver = Driver(engine())
    if started:
        driver.complete([caption(1)])
    start, told = driver._start, []

    def closed_meanwhile() -> None:
        if started:
            start()
        driver.close()
        start()

    def ask() -> None:
        try:
            handle = driver.submit(TokenJob(caption(2)))
            told.extend(output.error for output in handle.result(PATIENCE))
        except RuntimeError as error:
            told.append(str(error))
        driver._refusal = None  # as if it was looked at before
        try:
            driver.between_steps(lambda: 1)
        except RuntimeError as error:
            told.append(str(error))

    driver._start = closed_meanwhile  # type: ignore[method-assign]
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert told == ["the model is closed"] * 2
    assert driver._thread is None or not driver._thread.is_alive()


def test_the_result_of_a_job_that_is_cancelled_is_of_the_weights_that_computed_it(
    gated: tuple[Gate, Driver],
):
    gate, driver = gated
    own = cast(Engine, driver.engine)
    driver.between_steps(lambda: own.weights_changed(7), alone=True)
    handle = driver.submit(TokenJob(drawing(1, length=5)), stream=True)
    gate.open.set()
    assert next(iter(handle)).weight_version == 7
    handle.cancel()
    assert {output.weight_version for output in handle.result(PATIENCE)} == {7}


def test_requests_of_a_model_that_changes_between_them_are_those_of_the_old_and_the_new():
    model = TinyModel()
    own = engine(model)
    driver = Driver(own)
    (old,) = driver.complete([caption(1)])

    def change() -> None:
        model.table += 1
        own.weights_changed()

    driver.between_steps(change, alone=True)
    (new,) = driver.complete([caption(1)])
    fresh = TinyModel()
    fresh.table += 1
    expected = Driver(engine(fresh))
    assert new.token_ids == expected.complete([caption(1)])[0].token_ids != old.token_ids
    assert (old.weight_version, new.weight_version) == (0, 1)
    driver.close()
    expected.close()
