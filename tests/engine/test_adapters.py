"""Requests with adapters: each row has its own, they share no K/V, and weights change between."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.engine.test_graphs import paged_attention
from tests.engine.tiny import (
    TEXT,
    WIDTH,
    TinyModel,
    caption,
    drawing,
    finals,
    finish,
    finished_ids,
)
from unitok_engine import (
    AdaptableModel,
    AdapterRows,
    Branch,
    CacheView,
    Engine,
    EngineConfig,
    FixedPlan,
    FreePlan,
    IdRange,
    Request,
)
from unitok_engine.adapters import adapter_rows
from unitok_engine.attention import xformers
from unitok_engine.attention.xformers import PagedAttention
from unitok_engine.batch import DecodesAhead
from unitok_engine.embedding_store import EmbeddingStore
from unitok_engine.graphs import StaticStep
from unitok_engine.sequence import Sequence

NAMES = ("a", "b")
PROMPT = tuple(range(2, 15))  # three full blocks of 4, and one id


class AdaptedModel(TinyModel):
    """Each adapter adds a vector of its own before the layers, and another before the head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.added = {name: torch.randn(2, WIDTH, generator=generator) for name in NAMES}
        self.forwards: list[dict[str, int]] = []  # how many rows of each adapter
        self.kinds: set[type] = set()

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self.added)

    def forward(
        self,
        hidden: Tensor,
        positions: Tensor,
        cache: CacheView,
        adapters: AdapterRows | None = None,
    ) -> Tensor:
        self.forwards.append(self._count(adapters, len(hidden)))
        return super().forward(self._add(0, hidden, adapters), positions, cache)

    def logits(
        self, hidden: Tensor, id_range: IdRange, adapters: AdapterRows | None = None
    ) -> Tensor:
        return super().logits(self._add(1, hidden, adapters), id_range)

    def _add(self, place: int, hidden: Tensor, adapters: AdapterRows | None) -> Tensor:
        hidden = hidden.clone()
        for name, rows in adapters.rows.items() if adapters else ():
            hidden[rows] += self.added[name][place]
        return hidden

    def _count(self, adapters: AdapterRows | None, length: int) -> dict[str, int]:
        rows = adapters.rows if adapters else {}
        self.kinds |= {type(mine) for mine in rows.values()}
        return {name: len(torch.arange(length)[mine]) for name, mine in rows.items()}


def machine(model: TinyModel | None = None, **options) -> Engine:
    config = EngineConfig(block_size=4, max_context=256, **{"num_blocks": 200, **options})
    return Engine(model or AdaptedModel(), config)


def text(adapter: str | None = None, ids: tuple[int, ...] = PROMPT) -> Request:
    return Request((Branch(ids),), FreePlan(TEXT, frozenset(), 6), adapter=adapter)


def mixed() -> list[Request]:
    """Captions, guided drawings and several samples, without an adapter and with either."""
    kinds = [caption(1), drawing(2, length=9), replace(caption(3, max_tokens=7), n=2), drawing(4)]
    return [replace(kind, adapter=adapter) for kind in kinds for adapter in (None, *NAMES)]


def test_a_model_with_adapters_is_told_from_one_without():
    assert isinstance(AdaptedModel(), AdaptableModel)
    assert not isinstance(TinyModel(), AdaptableModel)


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ((None, None), None),
        (("a", "a", None), {"a": slice(0, 2)}),
        ((None, "b", "a", "b"), {"b": [1, 3], "a": slice(2, 3)}),
    ],
)
def test_rows_that_follow_on_each_other_are_a_slice(names, rows):
    found = adapter_rows(names)
    told = found and {n: r if isinstance(r, slice) else r.tolist() for n, r in found.rows.items()}
    assert told == rows


@pytest.fixture(scope="module")
def alone() -> list[tuple[int, ...]]:
    """What each of the requests gives in an engine of its own."""
    return [ids for request in mixed() for ids in finished_ids(machine(), [request])]


@pytest.mark.parametrize(
    "options",
    [{}, {"max_batch_tokens": 7}, {"num_blocks": 24}, {"preempt_every_step": True}],
    ids=["all at once", "chunks", "little memory", "preemption"],
)
def test_ids_are_the_same_alone_and_among_requests_with_other_adapters(options, alone):
    requests = mixed()
    assert finished_ids(machine(**options), requests) == alone
    by_adapter = [alone[0], alone[1], alone[2]]  # of one caption
    assert len(set(by_adapter)) == 3, "the adapters change nothing"


def test_a_step_is_one_forward_for_all_adapters():
    model = AdaptedModel()
    engine = machine(model)
    requests = [text(adapter) for adapter in ("b", None, "a", "b")]
    finish(engine, requests)
    assert engine.stats.forwards == len(model.forwards) == 6 + 1  # the second "b" waits one step
    assert model.forwards[0] == {"a": 13, "b": 13}
    assert model.forwards[2] == {"a": 1, "b": 2}
    assert model.kinds == {slice}, "rows of one adapter follow on each other"


def test_requests_with_different_adapters_share_nothing_and_with_the_same_share():
    engine = machine()
    for adapter, cached in [("a", 0), ("b", 0), (None, 0), ("a", 12), ("b", 12), (None, 12)]:
        before = engine.stats.cached_tokens
        assert finished_ids(engine, [text(adapter)]) == finished_ids(machine(), [text(adapter)])
        assert engine.stats.cached_tokens - before == cached, adapter


def test_an_adapter_is_part_of_every_block_key():
    keys = []
    for adapter in (None, "a", "b", "position 1"):
        sequence = Sequence(0, 0, 0, text(adapter), EmbeddingStore(), ())
        keys += [sequence.key(sequence.branches[0], index, 4) for index in range(3)]
    moved = replace(text(), branches=(Branch(PROMPT, first_position=1),))
    sequence = Sequence(0, 0, 0, moved, EmbeddingStore(), ())
    keys.append(sequence.key(sequence.branches[0], 0, 4))
    assert len(set(keys)) == len(keys)


def test_one_that_waits_for_a_prefix_waits_for_no_other_adapter():
    model = AdaptedModel()
    engine = machine(model)
    for adapter in ("a", "a", "b"):
        engine.add(text(adapter))
    engine.step()
    assert model.forwards == [{"a": 13, "b": 13}]


def test_an_unknown_adapter_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^there is no adapter 'c'; loaded: 'a', 'b'$"):
        machine().add(text("c"))
    with pytest.raises(ValueError, match=r"^there is no adapter 'a'; none is loaded$"):
        machine(TinyModel()).add(text("a"))


def test_without_an_adapter_in_the_batch_a_model_is_called_as_one_without_them():
    requests = [r for r in mixed() if r.adapter is None]
    assert finished_ids(machine(), requests) == finished_ids(machine(TinyModel()), requests)


def test_steps_laid_out_ahead_know_their_adapters(monkeypatch: pytest.MonkeyPatch):
    requests = [replace(drawing(seed), adapter=(None, "a", "b")[seed % 3]) for seed in range(5)]
    expected = finished_ids(machine(), requests)
    model = AdaptedModel()
    engine = machine(model)
    engine._looks_ahead = True
    foreseen, batch = [], DecodesAhead.batch
    monkeypatch.setattr(DecodesAhead, "batch", lambda self: (foreseen.append(1), batch(self))[1])
    assert finished_ids(engine, requests) == expected
    assert len(foreseen) > 5
    assert torch.Tensor in model.kinds, "rows in the order of arrival"


def test_a_step_with_an_adapter_is_not_recorded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PagedAttention, "__call__", paged_attention)
    monkeypatch.setattr(xformers, "MAX_QUERIES", 10**9)
    recorded: list[int] = []
    run = StaticStep.__call__
    monkeypatch.setattr(
        StaticStep, "__call__", lambda self, batch: (recorded.append(1), run(self, batch))[1]
    )
    engine = machine(attention="xformers")
    expected = finished_ids(machine(), [text("a"), text()])
    assert finished_ids(engine, [text("a")]) == expected[:1]
    assert not recorded
    assert finished_ids(engine, [text()]) == expected[1:]
    assert len(recorded) == 5


# --- what is in use, and weights that change -----------------------------------------------------


def test_the_requests_that_use_an_adapter_are_counted():
    engine = machine()
    first, second = engine.add(text("a")), engine.add(text("a"))
    engine.add(text("b"))
    assert (engine.uses("a"), engine.uses("b"), engine.uses("c")) == (2, 1, 0)
    engine.step()
    engine.abort(first)
    assert engine.uses("a") == 1
    engine.abort(second)
    assert engine.uses("a") == 0
    engine.add(text("a"))
    assert engine.uses("a") == 1
    while engine.has_work:
        engine.step()
    assert engine.uses("a") == engine.uses("b") == 0


def test_while_requests_are_held_those_that_have_begun_go_on_to_their_end():
    engine = machine(max_running=2)
    pair = engine.add(replace(drawing(1, length=3), n=2))  # one sample runs at a time
    late = engine.add(text())
    outputs = engine.step()
    engine.hold()
    later = engine.add(text("a"))
    while not engine.idle:
        engine.hold()  # again, as a driver does
        outputs += engine.step()
    assert {(output.request_id, output.sample) for output in outputs if output.finished} == {
        (pair, 0),
        (pair, 1),
    }
    assert engine.step() == [] and engine.has_work
    assert engine.stats.waiting == 2
    engine.resume()
    while engine.has_work:
        outputs += engine.step()
    assert finals(outputs)[late, 0].token_ids == finished_ids(machine(), [text()])[0]
    assert finals(outputs)[later, 0].token_ids == finished_ids(machine(), [text("a")])[0]


def test_held_requests_can_be_aborted():
    engine = machine()
    engine.hold()
    held = engine.add(text())
    assert engine.step() == [] and engine.idle
    engine.abort(held)
    (output,) = engine.step()
    assert (output.request_id, output.finish_reason) == (held, "abort")
    assert not engine.has_work


def test_after_weights_changed_nothing_old_is_found_and_outputs_tell_the_version():
    model = AdaptedModel()
    engine = machine(model)
    (old,) = finish(engine, [text()])
    assert (old.weight_version, engine.stats.cached_blocks) == (0, 4)
    model.table += 1
    engine.weights_changed()
    assert (engine.weight_version, engine.stats.cached_blocks) == (1, 0)
    fresh = AdaptedModel()
    fresh.table += 1
    (new,) = finish(engine, [text()])
    assert new.token_ids == finished_ids(machine(fresh), [text()])[0] != old.token_ids
    assert new.weight_version == 1
    engine.weights_changed(7)
    assert engine.weight_version == 7


def test_weights_may_not_change_while_requests_are_computed():
    engine = machine()
    engine.add(text())
    engine.step()
    with pytest.raises(RuntimeError, match="while requests are computed"):
        engine.weights_changed()
    assert engine.weight_version == 0


def test_prefixes_that_are_forgotten_while_requests_run_are_computed_again():
    engine = machine()
    engine.add(text())
    engine.add(replace(text(), plan=FixedPlan(TEXT, 12)))
    engine.step()
    engine.step()
    engine.forget_prefixes()
    assert engine.stats.cached_blocks == 0
    while engine.has_work:
        engine.step()
    assert finished_ids(engine, [text()]) == finished_ids(machine(), [text()])
    assert engine.stats.free_blocks == engine.stats.num_blocks


def test_a_step_that_breaks_off_leaves_held_requests_held():
    model = AdaptedModel()
    engine = machine(model)
    running = engine.add(text("a"))
    outputs = engine.step()
    engine.hold()
    held = engine.add(text("b"))
    forward = model.forward
    model.forward = lambda *_: 1 / 0  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        engine.step()
    model.forward = forward  # type: ignore[method-assign]
    while not engine.idle:
        outputs += engine.step()
    assert {output.request_id for output in outputs} == {running}
    engine.resume()
    while engine.has_work:
        outputs += engine.step()
    assert finals(outputs)[held, 0].token_ids == finished_ids(machine(), [text("b")])[0]
