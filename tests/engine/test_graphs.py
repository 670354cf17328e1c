"""Static decode steps: the padded path that CUDA graphs record, run on a CPU.

A plain function stands in for the paged kernel here, so whole engines can be compared; in
`tests/parity/test_xformers_static.py` the kernel itself runs.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.tiny import IMAGE, TinyModel, Waits, caption, drawing, finish, finished_ids
from unitok_engine import (
    Drafter,
    DraftTable,
    DraftWidth,
    Engine,
    EngineConfig,
    GridDrafter,
    GridPlan,
    IdRange,
    Request,
    graphs,
)
from unitok_engine.attention import xformers
from unitok_engine.attention.base import AttentionMetadata, StaticShape
from unitok_engine.attention.xformers import PagedAttention, padded_context, padded_rows
from unitok_engine.batch import Batch
from unitok_engine.graphs import StaticStep
from unitok_engine.sampler import collect

# Prompts and lengths that differ, so that rows come and go and lines take new blocks.
REQUESTS = [
    *(caption(seed, max_tokens=5 + 4 * seed) for seed in range(4)),
    *(drawing(seed, length=9 + 3 * seed) for seed in range(3)),
    drawing(9, n=3),
]


def paged_attention(self: PagedAttention, layer: int, q: Tensor) -> Tensor:
    """What the kernel gives, from the same tensors: contexts and tables on the device."""
    rows = len(self.contexts)
    queries, heads = q.unflatten(0, (rows, -1)).transpose(1, 2), q.shape[1]
    keys, values = self._layout.gather(layer, self.tables.long())
    keys, values = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (keys, values))
    scores = queries @ keys.transpose(2, 3) / q.shape[2] ** 0.5
    last = self.contexts[:, None] - queries.shape[2] + torch.arange(queries.shape[2])
    hidden = torch.arange(keys.shape[2]) > last[:, None, :, None]
    out = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values
    return out.transpose(1, 2).flatten(0, 1)


@pytest.fixture
def paged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Makes engines over the xformers backend, whose prompts too go through the stand-in."""
    monkeypatch.setattr(PagedAttention, "__call__", paged_attention)
    monkeypatch.setattr(xformers, "MAX_QUERIES", 10**9)

    def make(cuda_graphs: bool = True, drafter: Drafter | None = None, **options) -> Engine:
        config = EngineConfig(
            attention="xformers", cuda_graphs=cuda_graphs, block_size=4, max_context=256,
            **{"num_blocks": 200, **options},
        )  # fmt: skip
        return Engine(TinyModel(), config, drafter=drafter)

    return make


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[StaticStep]:
    """The static step of each call, in order."""
    calls: list[StaticStep] = []
    run = StaticStep.__call__
    monkeypatch.setattr(
        StaticStep, "__call__", lambda self, b: (calls.append(self), run(self, b))[1]
    )
    return calls


@pytest.mark.parametrize(
    "options",
    [{}, {"max_batch_tokens": 7}, {"num_blocks": 24}, {"preempt_every_step": True}],
    ids=["all at once", "chunks", "little memory", "preemption"],
)
def test_static_steps_give_the_ids_of_ordinary_ones(paged, steps, options):
    ordinary = finished_ids(paged(cuda_graphs=False, **options), REQUESTS)
    assert not steps
    assert finished_ids(paged(**options), REQUESTS) == ordinary
    assert steps or options.get("preempt_every_step")  # which leaves no step of decode rows alone
    gathered = EngineConfig(attention="torch-gather", num_blocks=200, block_size=4, max_context=256)
    assert ordinary == finished_ids(Engine(TinyModel(), gathered), REQUESTS)


def test_what_was_recorded_is_dropped_in_sleep_and_recorded_anew(paged, steps):
    machine = paged()
    before = finished_ids(machine, REQUESTS)
    old = set(map(id, steps))
    attention = machine.runner.attention
    machine.sleep()
    assert machine.runner.attention.layout.keys.shape[1] < attention.layout.keys.shape[1]
    machine.wake()
    assert machine.runner.attention.layout.keys.shape == attention.layout.keys.shape
    assert machine.runner.attention is not attention
    kept, steps[:] = list(steps), []  # kept, so that no new one has the id of an old one
    assert finished_ids(machine, REQUESTS) == before
    assert kept and steps and not old & set(map(id, steps))


def test_an_engine_sleeps_only_when_it_is_idle_and_runs_nothing_meanwhile(paged):
    machine = paged()
    machine.add(REQUESTS[0])
    machine.step()
    with pytest.raises(RuntimeError, match="cannot sleep while requests are computed"):
        machine.sleep()
    assert run_out(machine) == 1
    machine.sleep()
    machine.add(REQUESTS[1])
    forwards = machine.stats.forwards
    assert machine.step() == [] and machine.stats.forwards == forwards and machine.paused
    machine.wake()
    assert run_out(machine) == 1 and not machine.paused


def run_out(machine: Engine) -> int:
    """Step until nothing is left; how many samples ended."""
    ended = 0
    while machine.has_work:
        ended += sum(output.finished for output in machine.step())
    return ended


def test_log_probabilities_are_those_of_ordinary_steps(paged):
    requests = [replace(r, logprobs=True, branch_logprobs=True) for r in REQUESTS[2:6]]
    for one, other in zip(
        finish(paged(), requests), finish(paged(cuda_graphs=False), requests), strict=True
    ):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.branch_logprobs == pytest.approx(other.branch_logprobs, abs=1e-4)


def test_each_shape_is_recorded_once_and_then_replayed(paged, steps, monkeypatch):
    """A replay fills the tensor that it gave before, and calls no Python."""
    recorded: list[Tensor] = []

    def record(run: Callable[[], Tensor], pool) -> Callable[[], Tensor]:
        run()  # the warm-up
        output = torch.zeros_like(run())
        recorded.append(output)
        return lambda: output.copy_(run())

    monkeypatch.setattr(graphs, "record", record)
    ids = finished_ids(paged(), REQUESTS)
    assert ids == finished_ids(paged(cuda_graphs=False), REQUESTS)
    assert len(recorded) == len(set(map(id, steps))) < len(steps)
    rows = [len(output) for output in recorded]
    assert sorted(rows) == sorted(set(rows)) and set(rows) <= {1, 2, 4, 8, 16}


def test_a_decode_step_waits_for_the_device_only_to_collect_its_ids(paged, steps, monkeypatch):
    """What was cached is noted before, while a device would still be busy."""
    machine, events = paged(), []
    for request in REQUESTS[:5]:
        machine.add(request)
    machine.step()
    commit, waits = machine._scheduler.commit, Waits()

    def collected(drawn):
        events.append("collect")
        assert waits.found == []
        return collect(drawn)

    monkeypatch.setattr("unitok_engine.engine.collect", collected)
    machine._scheduler.commit = lambda chunks: (events.append("commit"), commit(chunks))
    # Inference mode hides from torch's dispatcher that a number is asked for.
    step: Any = vars(Engine)["_step"].__wrapped__
    with waits, torch.no_grad():
        step(machine)
    assert steps
    assert events == ["commit", "collect"]
    assert waits.found == []


def test_padding_touches_nothing_that_a_line_reads(paged, steps):
    """Three rows in a step of four: only the lines' own blocks and the scratch block change."""
    engine = paged()
    requests = [caption(seed, max_tokens=6, stop_ids=()) for seed in range(3)]
    for request in requests:
        engine.add(request)
    engine.step()
    attention: Any = engine.runner.attention
    layout, scratch_block = attention.layout, attention.scratch_block
    before = layout.keys.clone()
    engine.step()
    assert len(steps) == 1
    changed = (layout.keys != before).flatten(2).any(dim=2).any(dim=0).nonzero().flatten().tolist()
    own = {branch.blocks[-1] for s in engine._scheduler.running for branch in s.branches}
    assert set(changed) == own | {scratch_block}
    assert scratch_block not in {layout.zero_block, *range(engine.config.num_blocks)}
    assert not layout.keys[:, layout.zero_block].any()


def test_a_step_with_a_prompt_in_it_is_no_static_one(paged, steps):
    engine = paged()
    engine.add(caption(0, max_tokens=8, stop_ids=()))
    engine.step()
    engine.step()
    assert len(steps) == 1
    engine.add(caption(1, max_tokens=8, stop_ids=()))
    engine.step()
    assert len(steps) == 1


def test_a_failing_row_fails_alone(paged):
    """Logits that are not finite end one request; its neighbours in the same step go on."""
    engine = paged()
    logits = engine.runner.model.logits

    def spoilt(hidden: Tensor, id_range: IdRange) -> Tensor:
        out = logits(hidden, id_range)
        if engine.runner.forwards == 4:
            out[0] = torch.nan
        return out

    engine.runner.model.logits = spoilt
    requests: list[Request] = [caption(seed, stop_ids=()) for seed in range(3)]
    reasons = [output.finish_reason for output in finish(engine, requests)]
    assert reasons == ["error", "length", "length"]
    assert engine.stats.free_blocks == engine.stats.num_blocks


def test_shapes_are_few_and_waste_little():
    rows = sorted({padded_rows(n) for n in range(1, 129)})
    assert rows == [1, 2, 4, 8, 16, 32, 48, 64, 96, 128]
    assert all(n <= padded_rows(n) < max(2 * n, 2) for n in range(1, 2000))
    assert [padded_context(n) for n in (1, 1024, 1025, 5000)] == [1024, 1024, 2048, 8192]


# -- several tokens of a row

GRIDS = (
    GridPlan(IMAGE, rows=6, columns=6),
    GridPlan(IMAGE, rows=5, columns=4, row_end=5, closing=(6, 7)),
)
PICTURES = [replace(drawing(seed), plan=GRIDS[seed % 2]) for seed in range(5)]


class Widths(DraftWidth):
    """Steps of all widths in turn."""

    def __init__(self) -> None:
        super().__init__()
        self._next = cycle((4, 1, 16, 2, 7))

    def choose(self, drafted: int, others: int) -> int:
        return next(self._next)


def widths(steps: list[StaticStep]) -> set[int]:
    return {step._shape.width for step in steps}


@pytest.mark.parametrize(
    ("requests", "options"),
    [(PICTURES[:2], {}), ([*PICTURES[:3], *REQUESTS[:2]], {"num_blocks": 60})],
    ids=["alone", "beside captions, little memory"],
)
def test_rows_of_drafts_are_static_and_give_the_ids_of_ordinary_steps(
    paged, steps, requests, options
):
    expected = finished_ids(paged(cuda_graphs=False), requests)
    table = DraftTable()
    for _ in range(2):
        machine = paged(drafter=GridDrafter(table, Widths()), **options)
        assert finished_ids(machine, requests) == expected
    assert machine.stats.accepted_tokens > 0
    assert widths(steps) == {1, 2, 4, 8, 16}


def test_a_short_row_is_padded_behind_its_tokens_where_nothing_that_is_read_lies(paged, steps):
    """Of two pictures one is nearly done, and its row ends where its plan does."""
    requests = [replace(drawing(seed), plan=GridPlan(IMAGE, 1, 3 + 9 * seed)) for seed in range(2)]
    expected = finished_ids(paged(cuda_graphs=False), requests)

    class Eight(DraftWidth):
        def choose(self, drafted: int, others: int) -> int:
            return 8

    batches: list[tuple[int, ...]] = []
    machine = paged(drafter=GridDrafter(width=Eight()))
    run = machine.runner.run
    machine.runner.run = lambda batch: (batches.append(batch.attention.query_lengths), run(batch))[
        1
    ]
    assert finished_ids(machine, requests) == expected
    assert (2, 2, 8, 8) in batches
    assert steps[0]._shape.width == 8 and steps[0]._shape.rows == 4


def test_padding_behind_a_full_table_reads_the_scratch_block(paged, steps):
    """A row whose blocks end with it: what lies behind is no block that others may have left."""
    machine = paged()
    step = StaticStep(
        lambda ids, positions, view: ids[:, None].float(),
        machine.runner.attention,
        StaticShape(2, 4, 1024),
        None,
    )
    rows = AttentionMetadata(torch.tensor([7, 12, 13, 14, 15]), (1, 4), (8, 4), ((0, 1), (3,)))
    flat = torch.tensor([50, 51, 52, 53, 54])
    hidden = step(Batch(flat, flat, rows, (), (), decodes=True))
    assert hidden.flatten().tolist() == flat.tolist()
    scratch = machine.runner.attention.scratch_block
    assert step._ids.tolist() == [50, 0, 0, 0, 51, 52, 53, 54]
    slots = step._numbers[16:24].tolist()
    assert slots == [7, *[scratch * 4] * 3, 12, 13, 14, 15]
    assert step._contexts.tolist() == [8 + 3, 4]
    view: Any = step._view
    assert view._tables[0, :3].tolist() == [0, 1, scratch]


def test_what_padding_would_make_much_larger_is_no_static_step(paged, steps, monkeypatch):
    monkeypatch.setattr(graphs, "CHEAP", 8)
    captions = [caption(seed, max_tokens=45, stop_ids=()) for seed in range(6)]
    machine = paged(drafter=GridDrafter(width=Widths()))
    drawn = finished_ids(machine, [PICTURES[0], *captions])
    assert drawn == finished_ids(paged(cuda_graphs=False), [PICTURES[0], *captions])
    assert widths(steps) == {1, 2}
