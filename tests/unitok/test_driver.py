"""The driver: handles, streams, ends; and that nothing of one caller's fate is another's."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.tiny import TinyModel, caption, drawing, engine, finals
from unitok import driver as driver_module
from unitok.driver import Driver
from unitok.handles import Flight, Handle, TokenJob
from unitok.image_decoder import BACKLOG, ImageDecoder
from unitok.promise import Promise
from unitok_engine import Allow, CacheView, Output, Request

PATIENCE = 100  # seconds until a test that hangs fails; long, as machines may be busy
MIXED = [caption(1), drawing(2, n=2), caption(3, max_tokens=20), drawing(4)]


class Gate(TinyModel):
    """Its forward waits until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.open = threading.Event(), threading.Event()

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        self.entered.set()
        assert self.open.wait(PATIENCE)
        return super().forward(hidden, positions, cache)


@pytest.fixture
def driver() -> Iterator[Driver]:
    made = Driver(engine())
    yield made
    assert_idle(made)
    made.close()


@pytest.fixture
def gated() -> Iterator[tuple[Gate, Driver]]:
    gate = Gate()
    made = Driver(engine(gate))
    yield gate, made
    gate.open.set()
    assert_idle(made)
    made.close()


def assert_idle(driver: Driver) -> None:
    """Nothing of any job is left."""
    assert driver.wait_until_idle(PATIENCE)
    stats = driver.engine.stats
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.free_blocks == stats.num_blocks
    assert not driver.engine.has_work and not driver._flights and not driver._decoding_images
    assert not driver.image_decoder._waiting


def stepped(*requests: Request) -> list[Output]:
    """What requests give when the engine is stepped by hand."""
    machine = engine()
    for request in requests:
        machine.add(request)
    outputs = []
    while machine.has_work:
        outputs += machine.step()
    return [output for _, output in sorted(finals(outputs).items())]


def ids(outputs: Sequence[Output]) -> list[tuple[int, ...]]:
    return [output.token_ids for output in outputs]


# --- results -------------------------------------------------------------------------------------


def test_a_job_gives_what_the_engine_gives(driver: Driver):
    assert ids(driver.complete(MIXED)) == ids(stepped(*MIXED))
    handle = driver.submit(TokenJob(MIXED[1]))
    assert ids(handle.result(PATIENCE)) == ids(stepped(MIXED[1]))
    assert handle.done


def test_submitting_does_not_wait_for_a_step(gated: tuple[Gate, Driver]):
    gate, driver = gated
    first = driver.submit(TokenJob(caption(1)))
    assert gate.entered.wait(PATIENCE)
    others = [driver.submit(TokenJob(caption(i))) for i in range(5)]
    assert not any(handle.done for handle in (first, *others))
    with pytest.raises(TimeoutError):
        first.result(0.01)
    gate.open.set()
    assert [len(handle.result(PATIENCE)) for handle in (first, *others)] == [1] * 6


def test_what_could_never_run_is_refused_where_it_is_submitted(driver: Driver):
    with pytest.raises(ValueError, match="max_context"):
        driver.submit(TokenJob(caption(1, max_tokens=10_000)))
    results = list(driver.run([TokenJob(caption(1, max_tokens=10_000)), TokenJob(caption(2))], 4))
    assert [output.finish_reason == "error" for (output,) in results] == [True, False]


def test_run_takes_jobs_lazily_and_gives_results_as_they_come(driver: Driver):
    taken = []

    def source() -> Iterator[TokenJob]:
        for seed in range(20):
            taken.append(seed)
            yield TokenJob(caption(seed, max_tokens=3 if seed == 2 else 9, stop_ids=()))

    results = driver.run(source(), 4)
    assert taken == []
    assert len(next(results)[0].token_ids) == 3
    assert len(taken) <= 5
    assert len(list(results)) == 19


def test_the_more_pictures_wait_the_more_are_decoded_between_two_steps(driver: Driver):
    decoder, decoded = driver.image_decoder, []
    for i in range(2 * BACKLOG + 1):
        decoder.submit(lambda ids: decoded.append(len(ids)) or torch.zeros(1, 3, 1, 1), (i,))
    calls = []
    while decoder.has_work:
        driver.turn()
        calls.append(len(decoded) - sum(calls))
    assert calls == [3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    thread = ImageDecoder(torch.device("cpu"), background=True)
    assert thread.due == 1  # it decodes all
    thread.close()


def test_pictures_that_wait_let_a_caller_in_after_each(driver: Driver):
    decoder, decoded, woken = driver.image_decoder, [], Promise[None]()

    def decode(ids: Sequence[Sequence[int]]) -> Tensor:
        decoded.append(len(ids))
        if len(decoded) == 1:  # a caller comes meanwhile
            driver._commands.put(("idle", woken))
        return torch.zeros(1, 3, 1, 1)

    for i in range(2 * BACKLOG + 1):
        decoder.submit(decode, (i,))
    assert decoder.due == 3
    assert driver.turn() and len(decoded) == 1
    driver.turn()
    assert len(decoded) > 2 and woken in driver._idlers
    while decoder.has_work:
        driver.turn()
    driver.rest()
    assert woken.done()


def test_too_many_jobs_are_refused_and_none_is_lost(
    gated: tuple[Gate, Driver], monkeypatch: pytest.MonkeyPatch
):
    gate, driver = gated
    monkeypatch.setattr(driver_module, "MAX_OPEN", 5)
    handles = [driver.submit(TokenJob(caption(1)))]
    assert gate.entered.wait(PATIENCE)
    handles += [driver.submit(TokenJob(caption(i))) for i in range(4)]
    with pytest.raises(RuntimeError, match="5 requests wait already"):
        driver.submit(TokenJob(caption(9)))
    gate.open.set()
    assert all(len(handle.result(PATIENCE)) == 1 for handle in handles)


# --- streams -------------------------------------------------------------------------------------


def pieces(events: Sequence[Output], sample: int) -> tuple[int, ...]:
    return sum((e.token_ids for e in events if e.sample == sample), ())


def test_a_stream_gives_every_id_once(driver: Driver):
    events = list(driver.submit(TokenJob(MIXED[1]), stream=True))
    for sample, output in enumerate(stepped(MIXED[1])):
        assert pieces(events, sample) == output.token_ids
    assert [e.finished for e in events].count(True) == 2 and events[-1].finished


def test_what_nobody_reads_is_merged_and_nothing_is_missed(driver: Driver):
    handle = driver.submit(TokenJob(caption(3, max_tokens=60, stop_ids=())), stream=True)
    handle.result(PATIENCE)
    assert len(handle._flight._events) <= 1
    events = list(handle)
    assert len(events) == 1 and len(events[0].token_ids) == 60
    assert list(handle) == [], "it was read"


def test_of_several_samples_the_unread_events_are_one_each(driver: Driver):
    handle = driver.submit(TokenJob(drawing(3, length=40, n=5)), stream=True)
    outputs = handle.result(PATIENCE)
    assert len(handle._flight._events) == 5
    events = list(handle)
    assert [pieces(events, sample) for sample in range(5)] == ids(outputs)


def test_a_job_without_a_stream_has_no_events(driver: Driver):
    handle = driver.submit(TokenJob(caption(1)))
    with pytest.raises(ValueError, match="stream=True"):
        next(iter(handle))
    handle.result(PATIENCE)


def test_streams_may_be_read_side_by_side(driver: Driver):
    streams = [iter(driver.submit(TokenJob(drawing(s)), stream=True)) for s in (1, 2)]
    heard: list[list[Output]] = [[], []]
    while streams[0] or streams[1]:
        for i, stream in enumerate(list(streams)):
            if stream and (event := next(stream, None)) is not None:
                heard[i].append(event)
            else:
                streams[i] = iter(())
        if all(e and e[-1].finished for e in heard):
            break
    for i in (0, 1):
        assert pieces(heard[i], 0) == stepped(drawing(i + 1))[0].token_ids


def test_async_callers_get_events_and_results(driver: Driver):
    async def listen() -> tuple[list[Output], list[Output], list[list[Output]]]:
        events = [e async for e in driver.submit(TokenJob(drawing(1)), stream=True)]
        result = await driver.submit(TokenJob(drawing(1)))

        async def source():
            for seed in range(9):
                yield TokenJob(caption(seed))

        return events, result, [r async for r in driver.arun(source(), 3)]

    events, result, several = asyncio.run(listen())
    assert pieces(events, 0) == result[0].token_ids == stepped(drawing(1))[0].token_ids
    together = {outputs[0].token_ids for outputs in several}
    assert together == set(ids(stepped(*[caption(seed) for seed in range(9)])))


def test_arun_gives_results_while_it_waits_for_the_next_job(driver: Driver):
    async def talk() -> list[int]:
        heard = asyncio.Event()
        lengths = []

        async def source():
            yield TokenJob(caption(1, max_tokens=2, stop_ids=()))
            await heard.wait()  # the next is asked only after the first was answered
            yield TokenJob(caption(2, max_tokens=3, stop_ids=()))

        async for outputs in driver.arun(source(), 4):
            lengths.append(len(outputs[0].token_ids))
            heard.set()
        return lengths

    assert asyncio.run(asyncio.wait_for(talk(), PATIENCE)) == [2, 3]


# --- callers that go away ------------------------------------------------------------------------


def leave_by_cancel(handle: Handle[Output, Any]) -> None:
    handle.cancel()
    assert {o.finish_reason for o in handle.result(PATIENCE)} == {"abort"}
    assert {o.error for o in handle.result(PATIENCE)} == {"it was cancelled"}


def leave_by_closing_the_stream(handle: Handle[Output, Any]) -> None:
    stream = iter(handle)
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def leave_in_the_midst_of_a_loop(handle: Handle[Output, Any]) -> None:
    for _ in handle:
        break


def leave_silently(handle: Handle[Output, Any]) -> None:
    """Its caller lets go of it."""


def leave_by_an_exception(handle: Handle[Output, Any]) -> None:
    stream = iter(handle)
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt())  # type: ignore[attr-defined]


def leave_by_a_cancelled_task(handle: Handle[Output, Any]) -> None:
    async def wait() -> None:
        task = asyncio.ensure_future(handle._wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(wait())


def leave_an_async_loop(handle: Handle[Output, Any]) -> None:
    async def listen() -> None:
        async for _ in handle:
            raise KeyError("mine")

    with pytest.raises(KeyError):
        asyncio.run(listen())


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_cancel,
        leave_by_closing_the_stream,
        leave_in_the_midst_of_a_loop,
        leave_silently,
        leave_by_an_exception,
        leave_by_a_cancelled_task,
        leave_an_async_loop,
    ],
)
def test_a_caller_that_goes_away_leaves_nothing_behind(leave: Callable[[Any], None]):
    slow = Slow()
    driver = Driver(engine(slow))
    kept = driver.submit(TokenJob(drawing(5, length=30)))
    leave(driver.submit(TokenJob(drawing(1, length=200, n=3)), stream=True))
    gc.collect()
    slow.seconds = 0.0
    assert ids(kept.result(PATIENCE)) == ids(stepped(drawing(5, length=30)))
    assert_idle(driver)
    assert driver.engine.stats.forwards < 150, "it was not finished for nobody"
    driver.close()


class Slow(TinyModel):
    """Takes its time, so that something can happen meanwhile."""

    seconds = 0.01

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        time.sleep(self.seconds)
        return super().forward(hidden, positions, cache)


@pytest.mark.parametrize("way", ["closed", "dropped", "thrown into"])
def test_a_run_whose_reader_goes_away_leaves_nothing_behind(way: str, driver: Driver):
    kept = driver.submit(TokenJob(drawing(5)))
    requests = [caption(2, max_tokens=1), drawing(1, length=200, n=2), drawing(3, length=200)]
    results = driver.run(map(TokenJob, requests), 4)
    next(results)
    if way == "closed":
        results.close()
    elif way == "thrown into":
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt())
    del results
    gc.collect()
    assert ids(kept.result(PATIENCE)) == ids(stepped(drawing(5)))


def test_a_source_that_raises_cancels_what_was_taken_from_it(driver: Driver):
    def source() -> Iterator[TokenJob]:
        yield TokenJob(drawing(1))
        yield TokenJob(drawing(2))
        raise OSError("the file ends here")

    with pytest.raises(OSError, match="ends here"):
        list(driver.run(source(), 4))


def test_a_driver_nobody_has_any_more_is_gone_with_its_thread():
    before = threading.active_count()
    for seed in range(20):
        driver = Driver(engine())
        assert len(driver.complete([caption(seed)])) == 1
        del driver
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_job_that_is_done_is_let_go(driver: Driver):
    for _ in range(3):  # the first starts the thread, the others wake it
        job = TokenJob(caption(1))
        watch = weakref.ref(job)
        driver.submit(job).result(PATIENCE)
        del job
        deadline = time.monotonic() + PATIENCE
        while watch() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert watch() is None


# --- faults --------------------------------------------------------------------------------------


def test_a_job_that_cannot_be_fed_fails_alone(driver: Driver):
    class Choking(TokenJob):
        def feed(self, output: Output) -> None:
            if output.error is None and output.stop == 3:
                raise ArithmeticError("a bone")
            super().feed(output)

    sick = driver.submit(Choking(caption(1)))
    well = driver.submit(TokenJob(caption(2)))
    assert [o.error for o in sick.result(PATIENCE)] == ["a bone"]
    assert ids(well.result(PATIENCE)) == ids(stepped(caption(2)))


class Flaky(TinyModel):
    """Its forward raises now and then."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.calls, self.error = 0, error

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        hidden = super().forward(hidden, positions, cache)
        self.calls += 1
        if self.calls % 50 == 3:
            raise self.error("a fuse")
        return hidden


@pytest.mark.parametrize("error", [MemoryError, ValueError, KeyboardInterrupt, SystemExit])
def test_a_model_that_raises_now_and_then_costs_nobody_anything(error: type[BaseException]):
    driver = Driver(engine(Flaky(error)))
    assert ids(driver.complete(MIXED)) == ids(stepped(*MIXED))
    assert_idle(driver)
    driver.close()


class Dead(TinyModel):
    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        raise RuntimeError("the model\nis dead")


def test_a_model_that_always_raises_ends_every_job_with_its_error():
    driver = Driver(engine(Dead()))
    outputs = driver.complete(MIXED)
    assert len(outputs) == 5
    assert all(output.finish_reason == "error" for output in outputs)
    assert all("the model is dead" in str(output.error) for output in outputs)
    assert_idle(driver)
    driver.close()


class Interrupting:
    """A plan that raises what no handler of errors catches."""

    max_length = 9
    exact = False

    def next(self, emitted: Sequence[int]) -> Allow:
        raise KeyboardInterrupt("of its own making")


def test_a_plan_that_always_interrupts_ends_in_the_end():
    driver = Driver(engine())
    sick = driver.submit(TokenJob(replace(caption(1), plan=Interrupting())))
    (output,) = sick.result(PATIENCE)
    assert output.finish_reason == "error"
    assert ids(driver.complete(MIXED)) == ids(stepped(*MIXED))
    assert_idle(driver)
    driver.close()


# --- the end -------------------------------------------------------------------------------------


def test_close_ends_what_runs_as_aborted(gated: tuple[Gate, Driver]):
    gate, driver = gated
    running = driver.submit(TokenJob(drawing(1, n=2)), stream=True)
    assert gate.entered.wait(PATIENCE)
    queued = driver.submit(TokenJob(caption(2)))
    closing = threading.Thread(target=driver.close)
    closing.start()
    gate.open.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    for handle, count in ((running, 2), (queued, 1)):
        assert [o.finish_reason for o in handle.result(PATIENCE)] == ["abort"] * count
        assert "closed" in str(handle.result()[0].error)
    assert list(running)[-1].finished, "a stream ends too"
    with pytest.raises(RuntimeError, match="the model is closed"):
        driver.submit(TokenJob(caption(3)))
    driver.close()
    assert not any(t.name == "unitok-driver" and t is driver._thread for t in threading.enumerate())


def test_a_thread_that_python_takes_for_dead_is_still_waited_for(gated: tuple[Gate, Driver]):
    """As a signal leaves it that breaks `Thread.is_alive` off, which callers must not ask then."""
    gate, driver = gated
    first = driver.submit(TokenJob(drawing(1)))
    assert gate.entered.wait(PATIENCE)
    assert driver._thread is not None
    driver._thread.is_alive = lambda: False
    second = driver.submit(TokenJob(caption(2)))
    assert not driver.wait_until_idle(0.01) and not driver._commands.empty()
    gate.open.set()
    assert ids([*first.result(PATIENCE), *second.result(PATIENCE)]) == ids(
        stepped(drawing(1), caption(2))
    )


def test_a_close_that_ctrl_c_breaks_off_can_be_done_again(gated: tuple[Gate, Driver]):
    gate, driver = gated
    running = driver.submit(TokenJob(drawing(1)))
    assert gate.entered.wait(PATIENCE)
    pressing = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        driver.close(PATIENCE)
    closing = threading.Thread(target=driver.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive() and not driver._ended, "the step still runs, and is waited for"
    gate.open.set()
    closing.join(PATIENCE)
    assert not closing.is_alive() and driver._ended
    assert [output.finish_reason for output in running.result(PATIENCE)] == ["abort"]


def drivers_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "unitok-driver"]


def test_a_signal_amid_the_threads_start_leaves_one_thread(monkeypatch: pytest.MonkeyPatch):
    start, before = threading.Thread.start, drivers_threads()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    driver = Driver(engine())
    with pytest.raises(KeyboardInterrupt):
        driver.submit(TokenJob(drawing(1)))
    assert ids(driver.complete([caption(2)])) == ids(stepped(caption(2)))
    assert [t for t in drivers_threads() if t not in before] == [driver._thread]
    assert_idle(driver)
    driver.close()


def test_what_is_handed_over_while_the_thread_ends_is_answered(monkeypatch: pytest.MonkeyPatch):
    """Nobody waits for the thread any more, who would refuse it."""
    driver, idle, late = Driver(engine()), Promise[None](), Flight(TokenJob(caption(3)), 1, False)
    driver.complete([caption(1)])
    closed = threading.Event()

    def hand_over() -> None:  # the thread does this last before it ends
        if driver._closing and not idle.done():
            monkeypatch.undo()
            assert closed.wait(PATIENCE)
            driver._hand_over(("submit", [late]))
            driver._hand_over(("idle", idle))

    monkeypatch.setattr(driver_module, "give_up_team", hand_over)
    driver.close(timeout=0)
    closed.set()
    assert idle.wait(PATIENCE)
    assert late.done.result(PATIENCE)[0].error == driver_module.CLOSED


def test_an_interrupt_while_callers_are_woken_forgets_none_of_them(driver: Driver):
    class Interrupts(Promise[None]):
        def set_result(self, result: None) -> None:
            first = not self.done()
            super().set_result(result)
            if first:
                raise KeyboardInterrupt

    idlers = [Interrupts() for _ in range(3)]
    for idler in idlers:
        driver._execute(("idle", idler))
    for _ in idlers:
        with pytest.raises(KeyboardInterrupt):
            driver.rest()
    assert not driver.rest() and all(idler.done() for idler in idlers)


def test_a_handle_is_good_after_the_close():
    driver = Driver(engine())
    handle = driver.submit(TokenJob(caption(1)), stream=True)
    handle.result(PATIENCE)
    driver.close()
    assert ids(handle.result()) == ids(stepped(caption(1)))
    assert pieces(list(handle), 0) == handle.result()[0].token_ids
    handle.cancel()
    assert handle.done


IMPORTS = """
import os, sys
from tests.engine.tiny import engine, caption, drawing
from unitok.driver import Driver
from unitok.handles import TokenJob
"""
SETUP = IMPORTS + "driver = Driver(engine())\n"


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])},
        capture_output=True,
        text=True,
        timeout=PATIENCE * (1 + len(words)),
        check=False,
    )


# Each is run by a process of its own, which imports nothing again.
ENDS = """
for code in sys.argv[1:]:
    if os.fork() == 0:
        driver = Driver(engine())
        exec(code)
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.mark.timeout(300)
def test_python_ends_whatever_the_driver_is_doing():
    codes = {
        "idle": "driver.complete([caption(1)])",
        "busy": "handles = [driver.submit(TokenJob(drawing(i, n=50))) for i in range(50)]",
        "exit": "driver.submit(TokenJob(drawing(1, n=50))); raise SystemExit(0)",
        "streaming": "next(stream := iter(driver.submit(TokenJob(drawing(1)), stream=True)))",
        "dropped": "driver.submit(TokenJob(drawing(1, n=50))); del driver",
    }
    done = python(IMPORTS + ENDS, *codes.values())
    assert (done.returncode, done.stderr) == (0, "")
    assert dict(zip(codes, done.stdout.split(), strict=True)) == dict.fromkeys(codes, "0")


FORK = """
kept = driver.submit(TokenJob(caption(1)))
kept.result(30)
running = driver.submit(TokenJob(drawing(1, length=100, n=20)))
child = os.fork()
if child == 0:
    try:
        driver.submit(TokenJob(caption(2)))
    except RuntimeError as error:
        print(error)
    try:
        running.result(30)
    except RuntimeError as error:
        print(error)
    print(len(kept.result()))
    driver.close()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
print(len(running.result(30)))
"""


def test_after_a_fork_it_is_a_clear_error_and_the_parent_goes_on():
    done = python(SETUP + FORK)
    assert done.returncode == 0, done.stderr
    first, second, kept, parent = done.stdout.splitlines()
    assert first == second == driver_module.FORKED
    assert "spawn" in first and (kept, parent) == ("1", "20")


def test_a_long_job_that_nobody_streams_keeps_one_output(driver: Driver):
    job = TokenJob(caption(3, max_tokens=60, stop_ids=()))
    driver.submit(job).result(PATIENCE)
    assert not job._outputs and len(job._new) == 1


def test_what_was_emitted_before_a_cancel_keeps_its_log_probabilities():
    request = replace(caption(1), logprobs=True, branch_logprobs=True)
    job = TokenJob(request)
    job.feed(Output(0, 0, (3, 4), 0, 5, None, None, (-1.0, -2.0), (-3.0, -4.0)))
    job.fail("abort", "cancelled")
    (output,) = job.result or []
    assert (output.token_ids, output.finish_reason) == ((3, 4), "abort")
    assert (output.logprobs, output.branch_logprobs) == ((-1.0, -2.0), (-3.0, -4.0))


def test_a_job_that_fails_before_its_first_token_tells_the_first_branchs_prompt():
    request = drawing(1)
    branches = (replace(request.branches[0], token_ids=(1, 2, 3)), *request.branches[1:])
    job = TokenJob(replace(request, branches=branches))
    job.fail("error", "it broke")
    assert job.result is not None and len(request.branches) > 1
    assert [(o.prompt_tokens, o.error) for o in job.result] == [(3, "it broke")]
    assert len(branches[-1].token_ids) != 3
