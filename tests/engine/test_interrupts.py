"""A step may be broken off at any line: the steps after it give what they would have given."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import unitok_engine
from tests.engine.kinds import MixedPlan, RowsPlan
from tests.engine.test_faults import everything_is_back, raising
from tests.engine.tiny import TinyModel, caption, drawing, engine, finals, finished_ids
from unitok_engine import Embeddings, Engine, Output, Request, Sampling

MODEL = TinyModel()
TRACED = (
    *("engine", "scheduler", "waiting", "caution", "sequence"),
    *("block_pool", "batch", "embeddings", "sampler"),
)
FILES = {str(Path(unitok_engine.__file__).with_name(f"{name}.py")) for name in TRACED}


def broken(seed: int) -> Request:
    """A caption whose picture cannot be read."""
    branch = replace(caption(seed).branches[0], embeddings=(Embeddings(2, 6, "gone", raising),))
    return replace(caption(seed), branches=(branch,))


SHARP = Sampling(temperature=0.7, top_k=9, top_p=0.8, seed=5, min_p=0.02, repetition_penalty=1.4)
GROWING = [replace(caption(seed, 6, stop_ids=()), logprobs=True) for seed in (2, 5)]
REQUESTS = [
    replace(GROWING[0], sampling=SHARP),
    replace(drawing(0, length=3), n=3, branch_logprobs=True),
    replace(drawing(4), plan=RowsPlan(1)),
    broken(7),
    GROWING[1],
    replace(caption(5), plan=MixedPlan(1, 1), n=2),
    drawing(3, length=6),  # aborted
]
BROKEN, DROPPED = 3, len(REQUESTS) - 1
CROWD = (0, 1, 4)  # of one share
ALONE = [finished_ids(engine(MODEL), [request]) for request in REQUESTS]


@dataclass
class Caller:
    """Adds, aborts and steps, each again if it was interrupted; keeps what comes back."""

    machine: Engine
    ids: dict[int, int] = field(default_factory=dict)  # request id -> place in REQUESTS
    outputs: list[Output] = field(default_factory=list)
    interrupts: int = 0

    def call(self, function: Callable[[], Any]) -> Any:
        for _ in range(3):
            try:
                return function()
            except KeyboardInterrupt:
                self.interrupts += 1
        raise AssertionError("interrupted again and again")

    def add(self, place: int) -> None:
        share = "crowd" if place in CROWD else None
        self.ids[self.call(lambda: self.machine.add(REQUESTS[place], share))] = place

    def step(self) -> None:
        self.outputs += self.call(self.machine.step)

    def work(self) -> None:
        """All requests come, one is aborted, all end."""
        for places in ((0, 4), (1, 2, 3), (5, 6)):
            for place in places:
                self.add(place)
            self.step()
        dropped = next(id for id, place in self.ids.items() if place == DROPPED)
        self.call(lambda: self.machine.abort(dropped))
        self.finish()

    def finish(self) -> None:
        for _ in range(200):
            if not self.call(lambda: self.machine.has_work):
                return
            self.step()
        raise AssertionError("it never ends")

    def check(self) -> None:
        """Each sample ended once, with its own ids, each of them told once."""
        everything_is_back(self.machine)
        ended = finals(self.outputs)  # which sees that tokens follow on each other
        for request_id, place in self.ids.items():
            assert not self.machine.is_alive(request_id)
            for sample, ids in enumerate(ALONE[place]):
                check_final(place, ended.pop((request_id, sample)), ids)
        # One was queued by an `add` that was interrupted just before it told the id.
        assert len({request_id for request_id, _ in ended}) <= self.interrupts


def check_final(place: int, output: Output, ids: tuple[int, ...]) -> None:
    if (place == DROPPED and output.finish_reason == "abort") or output.error == "'state'":
        assert output.token_ids == ids[: len(output.token_ids)]
        return
    assert output.token_ids == ids
    assert output.error == ("the picture is gone" if place == BROKEN else None)
    for logprobs, wanted in (
        (output.logprobs, REQUESTS[place].logprobs),
        (output.branch_logprobs, REQUESTS[place].branch_logprobs),
    ):
        assert (logprobs is None) != wanted and (logprobs is None or len(logprobs) == len(ids))


LEFT_OUT = 4  # every so many lines, as all take long
Line = tuple[str, int]  # its function and number


class Tracer:
    """Calls `at_line` before each line of the engine's files."""

    def __init__(self, at_line: Callable[[FrameType], None]) -> None:
        self.at_line = at_line

    def __enter__(self) -> None:
        sys.settrace(self._enter)

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if frame.f_code.co_filename in FILES else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.at_line(frame)
        return self._line


def lines_of(work: Callable[[], object]) -> list[Line]:
    """Each line run, in order."""
    lines: list[Line] = []
    with Tracer(lambda frame: lines.append((frame.f_code.co_qualname, frame.f_lineno))):
        work()
    return lines


def interrupted(work: Callable[[], object], place: int) -> None:
    """Run with a KeyboardInterrupt before the line at `place`; once raised, nothing is traced."""
    left = place

    def count(frame: FrameType) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    with Tracer(count):
        work()


def small() -> Engine:
    """So few blocks that text is preempted as it grows."""
    return engine(MODEL, num_blocks=10, max_batch_tokens=40)


def swapping() -> Engine:
    """So few blocks that a sequence of the crowd makes room for another request."""
    return engine(MODEL, num_blocks=11, max_batch_tokens=40)


def cautious() -> Engine:
    """As after a step that raised."""
    machine = swapping()
    machine._caution.limit = 9
    return machine


def chosen_places(lines: Sequence[Line], known: set[Line]) -> list[int]:
    """Some occurrence of most lines that are not known, now early, now late."""
    occurrences: dict[Line, list[int]] = {}
    for place, line in enumerate(lines):
        if line not in known:
            occurrences.setdefault(line, []).append(place)
    return [
        places[line[1] % len(places)]
        for index, (line, places) in enumerate(occurrences.items())
        if index % LEFT_OUT
    ]


@pytest.mark.timeout(300)
def test_an_interrupt_at_any_line_loses_nothing():
    known: set[Line] = set()
    count = 0
    for make in (small, swapping, cautious):
        for _ in range(2):  # what is made once is made by the first
            undisturbed = Caller(make())
            lines = lines_of(undisturbed.work)
            undisturbed.check()
            assert undisturbed.machine.stats.preemptions > 0 or make is cautious
        for place in chosen_places(lines, known):
            caller = Caller(make())
            interrupted(caller.work, place)
            caller.check()
            assert caller.interrupts == 1
            count += 1
        known |= set(lines)
    assert count >= 500
    names = {name.removeprefix("Scheduler.") for name, _ in known}
    assert {"_displace", "_make_room", "_victim_of_growth"} <= names


def half_done() -> Caller:
    """In the middle of a step that was interrupted, as was what puts things right after it."""
    caller = Caller(small())
    for place in range(len(REQUESTS)):
        caller.add(place)
        caller.outputs += caller.machine.step() if place in (1, 4) else []
    caller.machine.abort(DROPPED)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(caller.machine._scheduler, "commit", interrupt)
        patch.setattr(caller.machine._scheduler, "reset", interrupt)
        caller.machine.step()
    return caller


def interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_what_puts_things_right_may_be_interrupted_too():
    lines = lines_of(half_done().step)
    names = [name for name, _ in lines]
    recovery = lines[: names.index("Engine._carry_out_orders")]
    assert {"Engine._rebuild", "Scheduler.reset", "Sequence.restart"} <= {x for x, _ in recovery}
    for place in sorted({lines.index(line) for line in recovery}):
        caller = half_done()
        interrupted(caller.step, place)
        caller.finish()
        caller.check()
        assert caller.interrupts == 1


class Interrupting:
    """A plan whose `count`-th question raises, once."""

    def __init__(self, plan: Any, count: int, error: BaseException) -> None:
        self._plan, self._count, self._error = plan, count, error
        self.max_length, self.exact = plan.max_length, plan.exact

    def next(self, emitted: Sequence[int]) -> Any:
        self._count -= 1
        if self._count == -1:
            raise self._error
        return self._plan.next(emitted)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), KeyError("state")], ids=str)
@pytest.mark.parametrize("count", range(12))
def test_a_plan_may_raise_at_any_call(count: int, error: BaseException):
    """An interrupt loses nothing; an error of the plan's own ends one sample."""
    caller = Caller(small())
    for place in range(len(REQUESTS)):
        plan = Interrupting(REQUESTS[place].plan, count, error)
        request = replace(REQUESTS[place], plan=plan) if place == 1 else REQUESTS[place]
        caller.ids[caller.machine.add(request)] = place
    caller.finish()
    failed = [output for output in caller.outputs if output.error == "'state'"]
    assert (caller.interrupts, len(failed)) == ((0, 1) if isinstance(error, KeyError) else (1, 0))
    caller.check()
