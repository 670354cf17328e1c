"""One request's fault is its own: it is told for that request, others go on, blocks come back."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.kinds import RowsPlan
from tests.engine.tiny import (
    IMAGE,
    TEXT,
    WIDTH,
    TinyModel,
    caption,
    drawing,
    engine,
    finals,
    finish,
    finished_ids,
    vectors,
)
from unitok_engine import (
    Allow,
    Branch,
    CacheView,
    Embeddings,
    Engine,
    FixedPlan,
    Force,
    FreePlan,
    IdRange,
    Output,
    Request,
    Sampling,
    Stop,
)

PROMPT = tuple(range(2, 15))
GOOD = [caption(1), drawing(2, n=2), caption(3, max_tokens=20)]


def outcome(bad: Sequence[Request], **options: Any) -> list[Output]:
    """What bad requests give among good ones, which must give what they give alone."""
    machine = engine(**options)
    outputs = finish(machine, [GOOD[0], *bad, *GOOD[1:]])
    assert [o.token_ids for o in outputs if o.error is None] == finished_ids(engine(), GOOD)
    assert all(o.finish_reason == "error" for o in outputs if o.error is not None)
    everything_is_back(machine)
    return [output for output in outputs if output.error is not None]


def everything_is_back(machine: Engine) -> None:
    assert machine.stats.free_blocks == machine.config.num_blocks
    assert (machine.stats.running, machine.stats.waiting) == (0, 0)
    assert not machine.has_work
    scheduler = machine._scheduler
    for left in (machine._alive, machine._untold, machine._unplanned, machine._orders):
        assert not left
    for left in (scheduler.waiting._queues, scheduler.waiting._branches, scheduler.waiting._order):
        assert not left
    for left in (
        scheduler._samples,
        scheduler._prefixes._computing,
        scheduler._copy_on_write,
        scheduler._decoding,
    ):
        assert not left


def text(ids: tuple[int, ...] = PROMPT, plan: Any = None, **branch: Any) -> Request:
    return Request((Branch(ids, **branch),), plan or FreePlan(TEXT, frozenset(), 5))


@dataclass(frozen=True)
class Script:
    """Gives steps one after the other; an exception among them is raised."""

    steps: tuple[Any, ...]
    max_length: Any = 8
    exact: Any = False

    def next(self, emitted: Sequence[int]) -> Any:
        step = self.steps[len(emitted)]
        if isinstance(step, Exception):
            raise step
        return step() if callable(step) else step


FREE = Allow(TEXT)


# --- ids, ranges and sizes -----------------------------------------------------------------------


@pytest.mark.parametrize("id", [-1, 72, 10**30])
@pytest.mark.parametrize("place", [0, 6, 12])
def test_a_prompt_with_an_id_that_the_model_lacks_is_refused(id: int, place: int):
    request = text((*PROMPT[:place], id, *PROMPT[place + 1 :]))
    with pytest.raises(ValueError, match=f"id {id} is none of the model's, 0 to 71"):
        engine().add(request)
    second = replace(
        request, branches=(Branch(PROMPT, 2.0), replace(request.branches[0], weight=-1))
    )
    assert [o.error for o in outcome([request, second])] == [
        f"id {id} is none of the model's, 0 to 71"
    ] * 2


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((Force(72),), "ids 72..72"),
        ((FREE, FREE, Force(-1)), "ids -1..-1"),
        ((FREE, Allow(IdRange(60, 80))), "ids 60..79"),
        ((Force(5), Allow(IdRange(100, 101))), "ids 100..100"),
        ((FREE, None), "NoneType"),
        ((FREE, Force("x")), "str"),  # type: ignore[arg-type]
        ((FREE, lambda: Stop(None)), "reason None"),  # type: ignore[arg-type]
        ((FREE, lambda: Allow(TEXT, torch.ones(TEXT.size))), "mask must be bool"),
        ((FREE, lambda: Allow(TEXT, torch.ones(3, dtype=torch.bool))), "mask must be"),
        ((FREE, KeyError("no such state")), "no such state"),
        ((ZeroDivisionError("at once"),), "at once"),
        ((FREE,) * 9, "max_length of 8"),
    ],
)
@pytest.mark.parametrize("n", [1, 2])
def test_a_plan_that_goes_wrong_ends_its_request_alone(steps, words: str, n: int):
    outputs = outcome([replace(text(plan=Script(steps)), n=n)])
    assert len(outputs) == n
    assert all(words in (output.error or "") for output in outputs)


def test_a_range_that_two_heads_share_is_no_single_heads():
    model = TinyModel()
    model.id_ranges = (TEXT, IMAGE)  # type: ignore[misc]
    both = text(plan=FixedPlan(IdRange(30, 50), 3))
    outputs = finish(engine(model), [both, caption(1), drawing(2)])
    assert outputs[0].error == "the plan wants ids 30..49, which no head of the model has"
    assert [o.token_ids for o in outputs[1:]] == finished_ids(engine(), [caption(1), drawing(2)])


class Unknowable:
    """A plan whose properties raise."""

    def __init__(self, max_length: Any, exact: Any) -> None:
        self._told = (max_length, exact)

    @property
    def max_length(self) -> Any:
        return self._tell(0)

    @property
    def exact(self) -> Any:
        return self._tell(1)

    def _tell(self, index: int) -> Any:
        if isinstance(self._told[index], Exception):
            raise self._told[index]
        return self._told[index]

    def next(self, emitted: Sequence[int]) -> Stop:
        return Stop("complete")


@pytest.mark.parametrize(
    ("max_length", "exact", "words"),
    [
        (ZeroDivisionError("how long?"), True, "how long?"),
        (3, ZeroDivisionError("how exact?"), "how exact?"),
        (7.5, False, "float"),
        (float("nan"), True, "float"),
        (None, False, "NoneType"),
    ],
)
def test_a_plan_that_cannot_tell_its_length_is_refused(max_length, exact, words: str):
    request = text(plan=Unknowable(max_length, exact))
    with pytest.raises((ZeroDivisionError, TypeError), match=words.replace("?", r"\?")):
        engine().add(request)
    (output,) = outcome([request])
    assert words in (output.error or "")


def test_what_can_never_fit_is_refused_and_the_rest_goes_on():
    context = text((2,) * 250, FixedPlan(IMAGE, 7))  # 257 of 256
    shifted = text((2,) * 10, FixedPlan(IMAGE, 7), first_position=240)
    pool = text((2,) * 60, FixedPlan(IMAGE, 25))  # 84 ids, 21 blocks
    lines = Request((Branch((2,), 1 / 8),) * 8, FixedPlan(IMAGE, 2))
    outputs = outcome([context, shifted, pool, lines], num_blocks=20, max_running=7)
    told = [output.error or "" for output in outputs]
    assert all("max_context" in one for one in told[:2])
    assert "21 K/V blocks" in told[2] and "max_running" in told[3]
    just = [text((2,) * 249, FixedPlan(IMAGE, 7)), text((2,) * 10, first_position=241)]
    assert all(output.error is None for output in finish(engine(), just))


@pytest.mark.parametrize(
    "make",
    [
        lambda: replace(caption(1), n=0),
        lambda: replace(caption(1), n=1.5),
        lambda: Sampling(temperature=-0.1),
        lambda: Sampling(top_p=0.0),
        lambda: Sampling(top_p=1.01),
        lambda: Sampling(top_k=2.5),  # type: ignore[arg-type]
        lambda: Sampling(seed=0.5),  # type: ignore[arg-type]
        lambda: FixedPlan(IMAGE, 2.0),  # type: ignore[arg-type]
        lambda: FreePlan(TEXT, frozenset(), 2.0),  # type: ignore[arg-type]
        lambda: Embeddings(0, 1, "x", lambda: vectors(0, 1), 0, Unhashable()),
        lambda: Stop("tired"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_would_fail_in_a_step_is_refused_where_it_is_made(make: Callable[[], object]):
    with pytest.raises((ValueError, TypeError)):
        make()


@dataclass
class Unhashable:
    def __call__(self, payloads: Sequence[Any]) -> list[Tensor]:
        return []


# --- features ------------------------------------------------------------------------------------


def pictured(digest: str, compute: Callable[[], Any], many: Any = None) -> Request:
    return text(embeddings=(Embeddings(1, 3, digest, compute, 0, many),))


def raising(*_: Any) -> Any:
    raise OSError("the picture is gone")


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (raising, "the picture is gone"),
        (lambda: vectors(0, 4), "[3, d] with d = 32, not [4, 32]"),
        (lambda: torch.zeros(3, WIDTH + 1), "not [3, 33]"),
        (lambda: torch.zeros(3, 1), "not [3, 1]"),  # which would broadcast
        (lambda: torch.zeros(WIDTH), "not [32]"),
        (lambda: None, "NoneType"),
        (lambda: torch.full((3, WIDTH), torch.nan), "not finite"),
    ],
)
@pytest.mark.parametrize("budget", [2, 2048])
def test_features_that_go_wrong_end_their_request_alone(compute, words: str, budget: int):
    (output,) = outcome([pictured("bad", compute)], max_batch_tokens=budget)
    assert words in (output.error or "")


@pytest.mark.parametrize(
    "many",
    [
        raising,
        lambda payloads: [],
        lambda payloads: None,
    ],
)
def test_a_common_computation_that_goes_wrong_leaves_each_to_its_own(many):
    one, other = (pictured(str(seed), lambda s=seed: vectors(s, 3), many) for seed in (5, 6))
    broken = pictured("broken", raising, many)
    outputs = finish(engine(), [one, broken, other])
    plain = [pictured(str(seed), lambda s=seed: vectors(s, 3)) for seed in (5, 6)]
    assert [outputs[0].token_ids, outputs[2].token_ids] == finished_ids(engine(), plain)
    assert outputs[1].error is not None


@pytest.mark.parametrize("caching", [True, False])
def test_a_picture_one_cannot_read_is_read_by_the_next_that_has_it(caching: bool):
    readable = pictured("same", lambda: vectors(5, 3))
    bad = pictured("same", raising)
    wrong = pictured("same", lambda: vectors(5, 2))
    machine = engine(prefix_caching=caching)
    outputs = finish(machine, [bad, readable, wrong, readable])
    assert [o.token_ids for o in outputs if o.error is None][:1] == finished_ids(
        engine(), [readable]
    )
    assert outputs[0].error == "the picture is gone"
    assert [outputs[1].error, outputs[3].error] == [None, None]
    everything_is_back(machine)


def test_a_digest_may_be_any_string():
    request = pictured("\udcff", lambda: vectors(5, 3))
    assert finished_ids(engine(), [request]) == finished_ids(
        engine(), [pictured("5", lambda: vectors(5, 3))]
    )


# --- a model that raises -------------------------------------------------------------------------


class Flaky(TinyModel):
    """Raises out of one of its parts when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = ""

    def _check(self, part: str) -> None:
        if part == self.broken:
            self.broken = ""
            raise MemoryError("out of memory")

    def embed(self, ids: Tensor) -> Tensor:
        self._check("embed")
        return super().embed(ids)

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        hidden = super().forward(hidden, positions, cache)
        self._check("forward")
        return hidden

    def logits(self, hidden: Tensor, id_range: IdRange) -> Tensor:
        self._check("logits")
        return super().logits(hidden, id_range)


@pytest.mark.parametrize("part", ["embed", "forward", "logits", "copy", "clear"])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_step_that_raises_may_be_taken_again_and_nothing_is_lost(part: str, steps: int):
    model = Flaky()
    machine = engine(model, max_batch_tokens=16)
    aborted = machine.add(caption(8, max_tokens=9, stop_ids=()))
    requests = [*GOOD, replace(drawing(4, n=3), plan=RowsPlan(4))]
    for request in requests[:-1]:
        machine.add(request)
    outputs = [output for _ in range(steps) for output in machine.step()]
    machine.add(requests[-1])
    machine.abort(aborted)
    if part in ("copy", "clear"):
        break_once(machine._cache, part)
    else:
        model.broken = part
    with pytest.raises(MemoryError):
        while True:
            outputs += machine.step()
    assert machine.stats.running == 0 and machine.stats.free_blocks == 400
    while machine.has_work:
        outputs += machine.step()
    ended = finals(outputs)  # which sees that tokens follow on each other
    assert ended.pop((aborted, 0)).finish_reason == "abort"
    assert [ended[key].token_ids for key in sorted(ended)] == finished_ids(engine(), requests)
    everything_is_back(machine)


def break_once(cache: Any, name: str) -> None:
    """Let a method that has something to do raise, once."""
    whole = getattr(cache, name)

    def broken(blocks: Sequence[Any]) -> None:
        if blocks:
            setattr(cache, name, whole)
            raise MemoryError("out of memory")

    setattr(cache, name, broken)


def test_what_a_model_that_never_works_holds_can_be_aborted():
    model = Flaky()
    machine = engine(model)
    ids = [machine.add(request) for request in GOOD]
    for _ in range(3):
        model.broken = "forward"
        with pytest.raises(MemoryError):
            machine.step()
    for request_id in ids:
        machine.abort(request_id)
    assert sorted(o.request_id for o in machine.step()) == [0, 1, 1, 2]
    everything_is_back(machine)
    assert finished_ids(machine, GOOD) == finished_ids(engine(), GOOD)


def test_outputs_of_a_step_that_raises_are_told_by_the_next():
    model = Flaky()
    machine = engine(model)
    dropped, kept = machine.add(drawing(1)), machine.add(caption(2))
    machine.step()
    machine.abort(dropped)
    model.broken = "forward"
    with pytest.raises(MemoryError):
        machine.step()
    assert machine.has_work and machine.is_alive(dropped)
    first, *_ = machine.step()
    assert (first.request_id, first.finish_reason) == (dropped, "abort")
    assert machine.is_alive(kept) and not machine.is_alive(dropped)
    while machine.has_work:
        machine.step()
    everything_is_back(machine)


def test_features_that_failed_in_a_step_that_raises_are_told():
    model = Flaky()
    machine = engine(model)
    machine.add(pictured("bad", raising))
    machine.add(caption(1))
    model.broken = "forward"
    with pytest.raises(MemoryError):
        machine.step()
    outputs = []
    while machine.has_work:
        outputs += machine.step()
    assert [o.error for o in outputs if o.finished] == ["the picture is gone", None]


# --- not a number --------------------------------------------------------------------------------


class Poisoned(TinyModel):
    """Gives NaN behind one id, in its K/V and so in all that follows it in a line."""

    def embed(self, ids: Tensor) -> Tensor:
        return super().embed(ids).masked_fill((ids == 39)[:, None], torch.nan)


@pytest.mark.parametrize("preempt", [False, True])
@pytest.mark.parametrize("budget", [3, 2048])
@pytest.mark.parametrize("n", [1, 3])
def test_only_the_line_with_a_nan_fails_and_nothing_of_it_is_found(
    preempt: bool, budget: int, n: int
):
    """It comes while decoding: the first blocks are good, and shared with the others."""
    sick = replace(text((*PROMPT[:8], 5), Script((FREE, Force(39), FREE))), n=n)
    well = [text((*PROMPT[:8], 5)), text((*PROMPT[:8], 7, 9))]
    machine = engine(Poisoned(), num_blocks=26, max_batch_tokens=budget, preempt_every_step=preempt)
    requests = [well[0], sick, well[1], *well]
    for _ in range(2):
        outputs = finish(machine, requests)
        errors = [o.error for o in outputs if o.error is not None]
        assert errors == ["the model gave logits that are not finite"] * n
        expected = finished_ids(engine(), [well[0], well[1], *well])
        assert [o.token_ids for o in outputs if o.error is None] == expected
        everything_is_back(machine)


def test_one_range_with_a_nan_does_not_spoil_another():
    class HalfPoisoned(TinyModel):
        def logits(self, hidden: Tensor, id_range: IdRange) -> Tensor:
            logits = super().logits(hidden, id_range)
            return logits.fill_(torch.nan) if id_range == IMAGE else logits

    outputs = finish(engine(HalfPoisoned()), [caption(1), drawing(2), caption(3)])
    assert [o.finish_reason == "error" for o in outputs] == [False, True, False]
    assert [outputs[0].token_ids, outputs[2].token_ids] == finished_ids(
        engine(), [caption(1), caption(3)]
    )


# --- aborts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "waiting", "prefilling", "decoding", "preempted"])
@pytest.mark.parametrize("again", [False, True])
def test_an_abort_frees_at_the_next_step_in_whatever_state_it_finds_a_request(
    state: str, again: bool
):
    machine = engine(num_blocks=17, max_batch_tokens=4)
    kept = machine.add(caption(1, max_tokens=40, stop_ids=()))  # up to 13 of 17 blocks
    machine.step()
    dropped = machine.add(caption(3, max_tokens=40, stop_ids=()))

    def there() -> bool:
        sequences = machine._alive.get(dropped)
        if sequences is None:
            return state == "queued"
        (sequence,) = sequences
        return {
            "waiting": not sequence.running and not sequence.preempted,
            "prefilling": sequence.running and not sequence.decoding,
            "decoding": sequence.running and sequence.decoding,
            "preempted": not sequence.running and sequence.preempted,
        }.get(state, False)

    if state == "waiting":
        machine._scheduler.config = replace(machine.config, max_running=1)
    outputs: list[Output] = []
    while not there():
        outputs += machine.step()
    machine.abort(dropped)
    if again:
        machine.abort(dropped)
    outputs += machine.step()
    assert (machine.stats.running, machine.stats.waiting) == (1, 0)
    held = sum(len(branch.blocks) for s in machine._scheduler.running for branch in s.branches)
    assert machine.stats.free_blocks == 17 - held
    machine.abort(dropped)
    while machine.has_work:
        outputs += machine.step()
    reasons = [(o.request_id, o.finish_reason) for o in outputs if o.finished]
    assert reasons == [(dropped, "abort"), (kept, "length")]
    everything_is_back(machine)


def test_an_abort_of_nothing_known_does_nothing():
    machine = engine()
    machine.abort(7)
    assert machine.step() == []
    machine.add(caption(1))
    machine.abort(-1)
    machine.abort(1)
    assert finished_ids(machine, [caption(2)]) == finished_ids(engine(), [caption(2)])


def test_an_abort_from_another_thread_amid_a_step_takes_effect_at_the_next():
    machine = engine()
    dropped, kept = machine.add(drawing(1, n=2)), machine.add(drawing(2))
    run = machine.runner.run

    def aborted_meanwhile(batch):
        thread = threading.Thread(target=machine.abort, args=(dropped,))
        thread.start()
        thread.join()
        return run(batch)

    machine.runner.run = aborted_meanwhile
    first = machine.step()
    assert [o.finished for o in first] == [False, False]
    machine.runner.run = run
    second = machine.step()
    assert [(o.request_id, o.finish_reason) for o in second if o.finished] == [
        (dropped, "abort")
    ] * 2
    assert len(machine._scheduler.running) == 1
    while machine.has_work:
        second += machine.step()
    assert second[-1].request_id == kept
    assert finals([*first, *second])[kept, 0].token_ids == finished_ids(engine(), [drawing(2)])[0]
