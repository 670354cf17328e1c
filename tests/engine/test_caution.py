"""After a step that raised the next ones are smaller, and whoever makes them raise is found."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from tests.engine.kinds import RowsPlan
from tests.engine.test_faults import everything_is_back
from tests.engine.tiny import TEXT, TinyModel, caption, drawing, engine, finals, finished_ids
from unitok_engine import (
    Allow,
    Branch,
    CacheView,
    Engine,
    FixedPlan,
    Force,
    FreePlan,
    Output,
    Request,
    Stop,
)

POISON = 39  # an id that no prompt of `caption` and `drawing` has, nor anything emitted


class Limited(TinyModel):
    """Raises, after it wrote K/V, when a forward has more rows than `most`."""

    def __init__(self, most: int, error: Callable[[], Exception] = MemoryError) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.rows: list[int] = []

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        self.rows.append(len(hidden))
        hidden = super().forward(hidden, positions, cache)
        if len(hidden) > self.most:
            raise self.error()
        return hidden


class Poisoned(TinyModel):
    """Raises whenever a certain id is in the batch."""

    def embed(self, ids: Tensor) -> Tensor:
        if POISON in ids:
            raise RuntimeError("a poisoned id")
        return super().embed(ids)


def worked_off(
    machine: Engine, outputs: Sequence[Output] = ()
) -> tuple[dict[tuple[int, int], Output], int]:
    """All that was emitted, after earlier outputs, and how many steps raised on the way."""
    outputs, raised = list(outputs), 0
    for _ in range(3000):
        if not machine.has_work:
            everything_is_back(machine)
            return finals(outputs), raised
        try:
            outputs += machine.step()
        except Exception:
            raised += 1
    raise AssertionError("it never ends")


CROWD = [
    *(caption(seed, 12, stop_ids=()) for seed in range(6)),
    *(drawing(seed, length=9, n=1 + seed % 3) for seed in range(6)),
    replace(drawing(4, n=2), plan=RowsPlan(4)),
]


@functools.cache
def ids_of_crowd() -> list[tuple[int, ...]]:
    return finished_ids(engine(), CROWD)


@pytest.mark.parametrize("most", [3, 7, 20, 60])
@pytest.mark.parametrize("budget", [5, 2048])
@pytest.mark.parametrize("caching", [True, False])
def test_a_model_that_has_room_for_few_rows_gets_few(most: int, budget: int, caching: bool):
    model = Limited(most)
    machine = engine(model, max_batch_tokens=budget, prefix_caching=caching, num_blocks=150)
    for request in CROWD:
        machine.add(request)
    ended, raised = worked_off(machine)
    assert [ended[key].token_ids for key in sorted(ended)] == ids_of_crowd()
    assert raised <= 8
    good = [rows for rows in model.rows if rows <= most]
    assert not raised or max(good) > most // 2  # no less than need be


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, RuntimeError])
def test_memory_of_the_device_is_given_back_once_after_it_ran_out(
    device: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    given_back: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append("all"))
    model = Limited(9, error)
    machine = engine(model)
    machine._device = torch.device(device)
    machine.add(caption(0))  # 9 tokens
    machine.step()
    machine.add(caption(1))
    with pytest.raises(error):
        machine.step()
    assert given_back == []
    while machine.has_work:
        machine.step()
    assert given_back == ["all"] * (device == "cuda" and error is not RuntimeError)


def test_the_limit_goes_away_after_a_good_while():
    model = Limited(16)
    machine = engine(model, max_running=8, max_batch_tokens=24)
    machine.add(replace(caption(0), n=3))
    machine.add(drawing(1))
    with pytest.raises(MemoryError):
        machine.step()
    limits, failed = [], model.rows.pop()
    model.most, model.rows = 1000, []
    while machine._caution.limit is not None:
        limits.append(machine._caution.limit)
        machine.add(drawing(len(limits)))
        machine.step()
        assert model.rows[-1] <= limits[-1]
    assert limits == [failed // 2 * factor for factor in (1, 2) for _ in range(256)]
    assert 4 * (failed // 2) > 24 + 8  # as many as any step has


def poisoned(place: int, length: int = 14) -> Request:
    ids = [3 + i for i in range(length)]
    ids[place] = POISON
    return Request((Branch(tuple(ids)),), FixedPlan(TEXT, 4))


@dataclass(frozen=True)
class PoisonPlan:
    """It is poisoned by an id that is emitted, after `good` others."""

    good: int
    max_length: int = 6
    exact: bool = True

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        if len(emitted) == self.max_length:
            return Stop("complete")
        return Force(POISON) if len(emitted) == self.good else Allow(TEXT, UNPOISONED)


UNPOISONED = torch.arange(TEXT.size) != POISON
WELL = [
    *(
        replace(caption(seed), plan=FreePlan(TEXT, frozenset(), 10, UNPOISONED))
        for seed in range(10)
    ),
    *(drawing(seed, length=8, n=2) for seed in range(4)),
]
SICK = [
    poisoned(0),
    poisoned(13),
    replace(poisoned(6), n=5),
    replace(drawing(1, n=3), plan=PoisonPlan(0)),
    replace(caption(2), plan=PoisonPlan(3), n=2),
]


@functools.cache
def ids_of_well() -> list[tuple[int, ...]]:
    return finished_ids(engine(), WELL)


@pytest.mark.parametrize("budget", [4, 2048])
@pytest.mark.parametrize("place", [0, 7, 14])
@pytest.mark.parametrize("sick", SICK, ids=["first id", "last id", "samples", "forced", "later"])
def test_only_the_request_that_makes_every_step_raise_fails(sick: Request, place: int, budget: int):
    machine = engine(Poisoned(), max_batch_tokens=budget)
    requests = [*WELL[:place], sick, *WELL[place:]]
    for request in requests:
        machine.add(request)
    ended, raised = worked_off(machine)
    failed = {key: output for key, output in ended.items() if key[0] == place}
    assert len(failed) == sick.n
    for output in failed.values():
        assert output.finish_reason == "error"
        assert output.error == f"RuntimeError in a step of {rows(output)} rows: a poisoned id"
    ids = [ended[key].token_ids for key in sorted(ended) if key not in failed]
    assert ids == ids_of_well()
    assert raised <= 30


def rows(output: Output) -> str:
    return str(output.error).split(" rows")[0].split()[-1]


def test_requests_beside_one_that_makes_every_step_raise_hardly_wait_for_it():
    machine = engine(Poisoned())
    for request in [*WELL, poisoned(5)]:
        machine.add(request)
    _, raised = worked_off(machine)
    plain = engine()
    finished_ids(plain, WELL)
    assert machine.runner.forwards - raised < 4 * plain.runner.forwards


@pytest.mark.parametrize("n", [1, 4])
def test_a_model_that_always_raises_fails_all_in_few_steps(n: int):
    machine = engine(Limited(0, lambda: torch.OutOfMemoryError("CUDA out of memory.\nTried 2 GiB")))
    requests = [*(replace(caption(seed), n=n) for seed in range(9)), drawing(3, n=n)]
    for request in requests:
        machine.add(request)
    ended, raised = worked_off(machine)
    assert len(ended) == 10 * n and raised <= 10 * 2 + 20
    for (request_id, _), output in ended.items():
        size = "2 rows" if request_id == 9 else "1 rows"
        assert output.error == f"out of memory in a step of {size}: CUDA out of memory. Tried 2 GiB"


def test_one_alone_survives_a_step_that_raises_at_any_time():
    (ids,) = finished_ids(engine(), [drawing(2)])
    for steps in range(16):
        model = Limited(1000)
        machine = engine(model)
        machine.add(drawing(2))
        outputs = [output for _ in range(steps) for output in machine.step()]
        model.most = 0
        with pytest.raises(MemoryError):
            machine.step()
        model.most = 1000
        ended, _ = worked_off(machine, outputs)
        assert ended[0, 0].token_ids == ids
