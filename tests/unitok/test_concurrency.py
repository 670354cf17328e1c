"""Many callers at once, callers that go away, and interrupts at every place: nothing is left."""

import asyncio
import functools
import gc
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unitok
from tests.engine.tiny import caption, drawing, engine
from tests.unitok.test_driver import PATIENCE, assert_idle, ids, stepped
from tests.unitok.tiny import same, save_tiny
from unitok import Caption, Draw, Event
from unitok.api import Model
from unitok.draw_job import DrawJob
from unitok.driver import Driver
from unitok.handles import Flight, TokenJob
from unitok.text_job import TextJob
from unitok_engine import Request

CALLERS = 300
CROWD = 400  # more than run at once


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("many") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    with unitok.load(folder, device="cpu", dtype="float32", memory="16MB") as made:
        yield made


def picture(seed: int) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(array)


def asked(index: int) -> Caption | Draw:
    if index % 3:
        return Caption(picture(index % 7), max_tokens=3 + index % 9, seed=index, temperature=1.0)
    return Draw(("a dog", "two apples", "a cat")[index % 9 // 3], seed=index, n=1 + index % 2)


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, unitok.TextResult):
        return (one.text, one.completion_tokens) == (other.text, other.completion_tokens)
    return all(map(same, one.images, other.images)) and len(one.images) == len(other.images)


# --- many at once --------------------------------------------------------------------------------


def test_16_threads_and_200_tasks_get_what_single_calls_give(model: Model):
    requests = [asked(i) for i in range(40)]
    alone = [next(model.run([request])) for request in requests]
    wrong: list[int] = []

    def check(index: int, result: Any) -> None:
        if not alike(alone[index], result):
            wrong.append(index)

    def thread(number: int) -> None:
        for i in range(number, 40, 16):
            request = requests[i]
            if isinstance(request, Caption):
                check(i, next(model.run([request])))
            else:
                check(i, model.draw(request.prompt, seed=request.seed, n=request.n))

    async def task(number: int) -> None:
        i = number % 40
        *_, last = [event async for event in model.astream(requests[i])]
        check(i, last.result)

    async def tasks() -> None:
        await asyncio.gather(*(task(number) for number in range(200)))

    threads = [threading.Thread(target=thread, args=(n,)) for n in range(16)]
    for each in threads:
        each.start()
    asyncio.run(asyncio.wait_for(tasks(), PATIENCE))
    for each in threads:
        each.join(PATIENCE)
    assert not any(each.is_alive() for each in threads) and wrong == []
    assert_idle(model.driver)


def test_streamed_text_is_the_result_and_never_half_a_character(model: Model):
    for seed in range(12):
        request = Caption(picture(seed), max_tokens=60, temperature=1.5, seed=seed)
        *events, last = model.stream(request)
        assert isinstance(last.result, unitok.TextResult)
        texts = [event.text for event in events]
        assert "".join(texts) == last.result.text == next(model.run([request])).text  # type: ignore[union-attr]
        half = [i for i, text in enumerate(texts) if text.endswith("\ufffd")]
        assert all("\ufffd" in last.result.text for _ in half)
        assert [event.done for event in events] == sorted({event.done for event in events})


def test_a_stop_string_is_never_streamed_not_even_its_beginning(model: Model):
    whole = model.caption(picture(0), max_tokens=60).text
    for length in (1, 2, 5, 9):
        stop = whole[len(whole) // 2 :][:length]
        *events, last = model.stream(Caption(picture(0), max_tokens=60, stop=stop))
        assert "".join(event.text for event in events) == last.result.text  # type: ignore[union-attr]
        assert last.result.text == whole[: whole.find(stop)].strip()  # type: ignore[union-attr]


def test_a_streamed_drawing_tells_how_far_it_is(model: Model):
    events = list(model.stream(Draw("a dog", seed=1, n=3)))
    kinds = [event.kind for event in events]
    assert kinds[-1] == "result" and kinds.count("image") == 3
    done = [event.done for event in events if event.kind == "tokens"]
    assert done == sorted(done) and done[-1] == events[0].total == 3 * 16
    images = {event.sample: event.image for event in events if event.kind == "image"}
    result = events[-1].result
    assert isinstance(result, unitok.DrawResult)
    assert all(images[i] is image for i, image in enumerate(result.images))
    assert alike(result, model.draw("a dog", seed=1, n=3))


def test_a_stream_that_fails_raises_as_the_call_would(model: Model, monkeypatch):
    def broken(pixels):
        raise RuntimeError("the encoder is broken")

    monkeypatch.setattr(model.family, "features", broken)
    with pytest.raises(RuntimeError, match="the encoder is broken"):
        list(model.stream(Caption(picture(0))))
    with pytest.raises(RuntimeError, match="the encoder is broken"):
        asyncio.run(model.acaption(picture(0)))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        model.stream(Caption("none.png"))
    assert_idle(model.driver)


def test_a_stream_nobody_began_asked_for_nothing(model: Model):
    before = model.stats().forwards
    model.stream(Draw("a dog"))
    gc.collect()
    assert_idle(model.driver)
    assert model.stats().forwards == before


@pytest.mark.parametrize("crowd", ["samples", "prompts"])
def test_a_caption_hardly_waits_beside_another_callers_crowd(model: Model, crowd: str):
    """One that comes when the crowd fills every step has its first token within 3 steps."""
    results: list[Any] = []

    def draw() -> None:
        if crowd == "prompts":
            results.extend(model.draw(["a dog"] * CROWD))
        else:
            results.append(model.draw("a dog", n=CROWD))

    caller = threading.Thread(target=draw)
    start = model.stats().forwards
    caller.start()
    while model.stats().forwards < start + 3:
        time.sleep(0.001)
    before = model.stats().forwards
    stream = model.stream(Caption(picture(0), max_tokens=6))
    next(stream)
    assert model.stats().forwards - before <= 3 + 1, "and the step that ran just then"
    list(stream)
    caller.join(PATIENCE)
    assert not caller.is_alive()
    assert sum(len(result.images) for result in results) == CROWD


# --- callers that go away ------------------------------------------------------------------------


def go_away(model: Model, number: int) -> None:
    """Ask for something, and leave at a random moment in a random way."""
    chance = random.Random(number)
    request = asked(chance.randrange(100))
    way = chance.choice(["stream", "task", "handle", "cancel", "run"])
    if way == "stream":
        stream = model.stream(request)
        for _ in range(chance.randrange(12)):
            next(stream, None)
        stream.close()
    elif way == "task":
        asyncio.run(cancelled_task(model, request, chance.random() / 20))
    elif way == "run":
        results = model.run([request, asked(number + 1), asked(number + 2)])
        if chance.random() < 0.5:
            next(results)
        results.close()
    else:
        handle = model.driver.submit(model.prepare.job(request), stream=chance.random() < 0.5)
        time.sleep(chance.random() / 20)
        if way == "cancel":
            handle.cancel()


async def cancelled_task(model: Model, request: Caption | Draw, seconds: float) -> None:
    async def listen() -> list[Event]:
        return [event async for event in model.astream(request)]

    task = asyncio.ensure_future(listen())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_callers_that_go_away_leave_nothing_behind(model: Model):
    before = model.caption(picture(0), max_tokens=9)
    asyncio.run(model.acaption(picture(0), max_tokens=9))  # type: ignore[arg-type]  # its thread
    threads = threading.active_count()

    def several(first: int) -> None:
        for number in range(first, CALLERS, 16):
            go_away(model, number)

    callers = [threading.Thread(target=several, args=(first,)) for first in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)
    assert not any(caller.is_alive() for caller in callers)
    model._helper.submit(lambda: None).result(PATIENCE)  # it may just prepare for a cancelled task
    assert_idle(model.driver)
    worker = model.driver.image_decoder._worker
    if worker is not None:  # it may just decode a cancelled picture
        worker.submit(lambda: None).result(PATIENCE)
    gc.collect()
    left = [type(x).__name__ for x in gc.get_objects() if type(x) in (Flight, TextJob, DrawJob)]
    assert left == []
    assert threading.active_count() == threads
    assert model.caption(picture(0), max_tokens=9).text == before.text


# --- interrupts ----------------------------------------------------------------------------------


def forwards_of(model: Model, call: Callable[[], object]) -> int:
    before = model.stats().forwards
    call()
    return model.stats().forwards - before


@pytest.mark.timeout(300, method="thread")  # the test needs the signal of the other method
def test_200_signals_amid_a_thousand_drawings_leave_nothing_behind(model: Model):
    """Each comes at another moment: while prompts are written, handed in, awaited, given up."""
    chance = random.Random(0)
    before = model.caption(picture(0), max_tokens=9)
    forwards = forwards_of(model, lambda: model.caption(picture(0), max_tokens=9))
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    try:
        while interrupted < 200:
            signal.setitimer(signal.ITIMER_REAL, 10 ** chance.uniform(-4, -1.3))
            try:
                model.draw("a dog", n=1000)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert_idle(model.driver)
    assert forwards_of(model, lambda: model.caption(picture(0), max_tokens=9)) == forwards
    assert model.caption(picture(0), max_tokens=9).text == before.text


class Trap:
    """Raises KeyboardInterrupt at one of the lines that the driver's thread runs."""

    FILES = ("driver.py", "handles.py", "engine.py", "scheduler.py", "sequence.py", "block_pool.py")
    # Those hold the thread itself, or a lock while an event is handed over.
    SPARED = ("_drive", "_note", "tell", "_wake", "take")

    def __init__(self, place: int | None) -> None:
        self.place, self.lines, self.raised = place, 0, False

    def __call__(self, frame: FrameType, event: str, _: Any) -> "Trap | None":
        code = frame.f_code
        if event == "call":
            name = Path(code.co_filename).name
            return self if name in self.FILES and code.co_name not in self.SPARED else None
        if event == "line":
            self.lines += 1
            if self.lines == self.place:
                self.raised = True
                self.where = f"{code.co_filename}:{frame.f_lineno} {code.co_name}"
                raise KeyboardInterrupt(f"at {code.co_filename}:{frame.f_lineno}")
        return self


WORK = [caption(1, max_tokens=4), drawing(2, length=4, n=2), caption(3, max_tokens=5)]


@functools.cache
def undisturbed(*requests: Request) -> list[tuple[int, ...]]:
    """The ids of each sample, computed once for all places."""
    return ids(stepped(*requests))


def work(trap: Trap) -> int:
    """Jobs that end, one that is streamed and one that is cancelled; how many lines that took."""
    driver = Driver(engine(num_blocks=24))
    threading.settrace(trap)
    try:
        cancelled = driver.submit(TokenJob(drawing(4, length=30)))
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
    handles = [driver.submit(TokenJob(request)) for request in WORK[:2]]
    stream = driver.submit(TokenJob(WORK[2]), stream=True)
    list(stream)
    cancelled.cancel()
    for handle, request in zip([*handles, stream], WORK, strict=True):
        for output, expected in zip(handle.result(PATIENCE), undisturbed(request), strict=True):
            assert output.error or output.token_ids == expected
    cancelled.result(PATIENCE)
    lines, trap.place = trap.lines, None
    assert ids(driver.complete(WORK)) == undisturbed(*WORK)
    assert_idle(driver)
    driver.close()
    return lines


@pytest.mark.timeout(300)
def test_an_interrupt_at_any_line_of_the_drivers_thread_hangs_nobody():
    lines = work(Trap(None))
    # Few of the many lines, as each takes a driver's whole life.
    places = random.Random(0).sample(range(1, lines + 1), 80)
    raised = 0
    for place in places:
        trap = Trap(place)
        work(trap)
        raised += trap.raised
    assert raised > 60, "threads vary how many lines there are, but not by much"
