import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.kinds import RowsPlan
from tests.engine.tiny import (
    IMAGE,
    TEXT,
    TinyModel,
    caption,
    drawing,
    engine,
    finals,
    finish,
    finished_ids,
    recomputed_logits,
    vectors,
)
from unitok_engine import (
    Allow,
    Branch,
    Embeddings,
    Engine,
    EngineConfig,
    FixedPlan,
    Force,
    FreePlan,
    IdRange,
    Output,
    Request,
    Sampling,
    Stop,
)
from unitok_engine.batch import Batch, DecodesAhead, build_batch
from unitok_engine.noise import gumbel, noise_key

GREEDY = Sampling(temperature=0)


def mixed_requests() -> list[Request]:
    """Captions and drawings of several lengths."""
    captions = [caption(seed, max_tokens=5 + 3 * seed) for seed in range(4)]
    return captions + [drawing(seed, length=6 + 4 * seed) for seed in range(4)]


def spied(model: TinyModel) -> tuple[TinyModel, list[Tensor]]:
    """The model, and the logits it will have given, call by call."""
    seen: list[Tensor] = []
    logits = model.logits

    def spy(hidden: Tensor, id_range: IdRange) -> Tensor:
        seen.append(logits(hidden, id_range))
        return seen[-1]

    model.logits = spy
    return model, seen


@pytest.mark.parametrize("request_", [caption(3, stop_ids=()), drawing(2)], ids=["text", "image"])
def test_paged_decoding_gives_what_a_full_recompute_gives(request_: Request):
    model, seen = spied(TinyModel())
    (output,) = finish(engine(model), [request_])
    id_range = TEXT if output.token_ids[0] in TEXT else IMAGE
    assert len(seen) == len(output.token_ids) >= 12
    for step, logits in enumerate(seen):
        for row, branch in zip(logits, request_.branches, strict=True):
            expected = recomputed_logits(TinyModel(), branch, output.token_ids[:step], id_range)
            torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)


def test_guidance_is_the_weighted_sum_of_the_branches():
    request = replace(drawing(1), sampling=GREEDY)
    (ids,) = finished_ids(engine(), [request])
    for step, id in enumerate(ids):
        mixed = sum(
            branch.weight * recomputed_logits(TinyModel(), branch, ids[:step], IMAGE)
            for branch in request.branches
        )
        assert isinstance(mixed, Tensor) and id == IMAGE.start + int(mixed.argmax())


def test_a_batch_gives_what_each_gives_alone():
    requests = mixed_requests()
    alone = [finished_ids(engine(), [request])[0] for request in requests]
    assert finished_ids(engine(), requests) == alone
    assert len(set(alone)) == len(alone)


REPEATED = [*mixed_requests(), caption(1), drawing(2, n=3), *mixed_requests()]


@functools.cache
def repeated_alone() -> list[tuple[int, ...]]:
    plain = engine(prefix_caching=False)
    return [ids for request in REPEATED for ids in finished_ids(plain, [request])]


@pytest.mark.parametrize("caching", [True, False], ids=["caching", "no caching"])
@pytest.mark.parametrize("preempt", [True, False], ids=["preempted", "at ease"])
@pytest.mark.parametrize("budget", [1, 4, 2048])
def test_a_batch_gives_what_each_gives_alone_however_it_is_run(
    budget: int, preempt: bool, caching: bool
):
    machine = engine(
        max_batch_tokens=budget,
        preempt_every_step=preempt,
        prefix_caching=caching,
        num_blocks=90,
        max_running=12,
    )
    assert finished_ids(machine, REPEATED) == repeated_alone()
    assert (machine.stats.cached_tokens > 0) >= caching
    assert machine.stats.free_blocks == 90


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 16])
def test_prefill_in_chunks_gives_what_whole_prefill_gives(budget: int):
    requests = mixed_requests()
    chunked = engine(max_batch_tokens=budget)
    assert finished_ids(chunked, requests) == finished_ids(engine(), requests)
    assert chunked.runner.forwards > max(len(ids) for ids in finished_ids(engine(), requests))


@pytest.mark.parametrize("budget", [3, 2048])
def test_preemption_at_every_step_changes_nothing(budget: int):
    requests = [*mixed_requests(), drawing(9, n=2)]
    preempted = engine(preempt_every_step=True, max_batch_tokens=budget)
    assert finished_ids(preempted, requests) == finished_ids(engine(), requests)
    assert preempted.stats.free_blocks == 400


def test_a_pool_that_runs_out_preempts_and_changes_nothing():
    requests = [caption(seed, max_tokens=40, stop_ids=()) for seed in range(6)]
    small = engine(num_blocks=16)  # one caption alone takes 13
    assert finished_ids(small, requests) == finished_ids(engine(), requests)
    assert small.stats.free_blocks == 16
    # Each was begun, then made room for an older one: more forwards than ids of the longest.
    assert small.runner.forwards > 40


@pytest.mark.parametrize("num_blocks", [8, 9, 11, 13])
def test_branches_that_need_a_block_in_the_same_step_all_get_one(num_blocks: int):
    plan = FreePlan(TEXT, frozenset(), 12)
    requests = [
        Request((Branch((2, 3, 4, seed), 2.0), Branch((5, 6, 7, seed), -1.0)), plan)
        for seed in range(8, 12)
    ]
    small = engine(num_blocks=num_blocks)  # one request alone takes 8
    assert finished_ids(small, requests) == finished_ids(engine(), requests)
    assert small.stats.preemptions > 0 and small.stats.free_blocks == num_blocks


@pytest.mark.parametrize("older", [4, 5, 6, 7])
@pytest.mark.parametrize("newer", [4, 5, 6, 7])
def test_a_pool_that_runs_out_holds_up_the_newest_alone(older: int, newer: int):
    machine, plan = engine(num_blocks=5, prefix_caching=False), FreePlan(TEXT, frozenset(), 12)
    first, second = (
        machine.add(Request((Branch((id,) * length),), plan))
        for id, length in ((2, older), (3, newer))
    )
    steps = [[output.request_id for output in machine.step()] for _ in range(12)]
    assert all(first in ids for ids in steps)
    assert 0 < sum(second in ids for ids in steps) < 12
    assert machine.stats.preemptions > 0
    while machine.has_work:
        machine.step()
    assert machine.stats.free_blocks == 5


@pytest.mark.parametrize(("prompt", "length"), [(5, 12), (16, 1), (1, 16)])
def test_a_drawing_that_just_fits_the_pool_runs(prompt: int, length: int):
    machine = engine(num_blocks=4)  # of 4 tokens each; the last one that is drawn needs no room
    machine.add(Request((Branch((2,) * prompt),), FixedPlan(IMAGE, length)))
    outputs = [output for _ in range(length) for output in machine.step()]
    assert [output.finish_reason for output in outputs] == [*[None] * (length - 1), "complete"]
    with pytest.raises(ValueError, match="needs up to 5 K/V blocks and the pool has 4"):
        machine.add(Request((Branch((2,) * prompt),), FixedPlan(IMAGE, length + 1)))


@pytest.mark.parametrize(("num_blocks", "budget"), [(20, 2), (24, 4)])
def test_a_preempted_request_emits_before_it_is_preempted_again(num_blocks: int, budget: int):
    machine = engine(num_blocks=num_blocks, max_batch_tokens=budget)
    lengths: dict[object, list[int]] = {}
    preempt = machine._scheduler._preempt

    def watched(sequence):
        lengths.setdefault(sequence, []).append(len(sequence.emitted))
        preempt(sequence)

    machine._scheduler._preempt = watched
    finish(machine, [caption(seed, max_tokens=40, stop_ids=()) for seed in range(6)])
    assert max(map(len, lengths.values())) > 1
    for emitted in lengths.values():
        assert all(a < b for a, b in pairwise(emitted))


def test_no_id_is_reported_twice_or_lost_when_requests_are_preempted():
    machine = engine(num_blocks=16)
    ids = [machine.add(caption(seed, max_tokens=40, stop_ids=())) for seed in range(4)]
    outputs = []
    while machine.has_work:
        outputs += machine.step()
    ended = finals(outputs)  # which sees that tokens follow on each other
    assert {key: len(output.token_ids) for key, output in ended.items()} == {
        (id, 0): 40 for id in ids
    }


def test_captions_and_drawings_share_every_forward():
    requests = [caption(seed, stop_ids=()) for seed in range(8)]
    requests += [drawing(seed, length=16) for seed in range(8)]
    machine = engine()
    rows: list[tuple[int, ...]] = []
    running: list[int] = []
    run = machine.runner.run

    def watched(batch):
        rows.append(batch.attention.query_lengths)
        scheduled = machine._scheduler.running
        running.append(sum(len(sequence.branches) for sequence in scheduled))
        return run(batch)

    machine.runner.run = watched
    finish(machine, requests)
    assert machine.runner.forwards <= 16  # the one prefill chunk gives the first id
    assert [len(lengths) for lengths in rows] == running
    assert running[0] == 8 + 2 * 8
    assert all(set(lengths) == {1} for lengths in rows[1:])


def test_all_last_prefill_chunks_of_a_request_land_in_one_step():
    machine = engine(max_batch_tokens=4)
    machine.add(drawing(3))  # prompts of 10 and 2 ids
    steps = [machine.step() for _ in range(4)]
    assert [len(outputs) for outputs in steps] == [0, 0, 1, 1]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_abort_frees_all_blocks_and_ends_the_request_alone(steps: int):
    machine = engine(max_batch_tokens=8)
    keep, drop = machine.add(drawing(1)), machine.add(drawing(2, n=2))
    for _ in range(steps):
        machine.step()
    machine.abort(drop)
    finals = [o for o in drain(machine) if o.finished]
    reasons = sorted((o.request_id, o.finish_reason) for o in finals)
    assert reasons == [(keep, "complete"), (drop, "abort"), (drop, "abort")]
    assert machine.stats.free_blocks == 400
    machine.abort(drop)
    assert machine.step() == []


def drain(machine) -> list[Output]:
    outputs = []
    while machine.has_work:
        outputs += machine.step()
    return outputs


def test_forced_ids_take_no_step_of_their_own():
    request = replace(drawing(4), plan=RowsPlan(5))
    model, seen = spied(TinyModel())
    machine = engine(model)
    (ids,) = finished_ids(machine, [request])
    assert ids[2::3] == (39,) * 5 and len(ids) == 15
    assert machine.runner.forwards == 10
    for sampled, logits in enumerate(seen):
        emitted = ids[: sampled // 2 * 3 + sampled % 2]
        expected = recomputed_logits(TinyModel(), request.branches[0], emitted, IMAGE)
        torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=1e-4)


def test_forced_ids_survive_preemption_and_chunks():
    requests = [replace(drawing(seed), plan=RowsPlan(3 + seed)) for seed in range(3)]
    hard = engine(preempt_every_step=True, max_batch_tokens=3)
    assert finished_ids(hard, requests) == finished_ids(engine(), requests)


@dataclass(frozen=True)
class ScriptPlan:
    """Forced ids only."""

    script: tuple[int, ...]
    max_length: int = 4
    exact: bool = False

    def next(self, emitted: Sequence[int]) -> Force | Stop:
        done = len(emitted) == len(self.script)
        return Stop("complete") if done else Force(self.script[len(emitted)])


def test_a_plan_of_forced_ids_alone_needs_no_forward():
    machine = engine()
    (output,) = finish(machine, [Request((Branch((2,)),), ScriptPlan((7, 8, 9)))])
    assert (output.token_ids, output.start, machine.runner.forwards) == ((7, 8, 9), 0, 0)


def test_a_plan_that_outruns_its_own_bound_ends_its_request_alone():
    long = Request((Branch((2,)),), ScriptPlan(tuple(range(9))))
    bad, good = finish(engine(), [long, caption(1)])
    assert bad.finish_reason == "error" and "max_length" in (bad.error or "")
    assert good.finish_reason in ("stop", "length")


def test_a_stop_id_ends_the_line_and_is_not_part_of_it():
    free = replace(caption(5, max_tokens=30, stop_ids=()), sampling=GREEDY)
    (whole,) = finish(engine(), [free])
    stop = whole.token_ids[7]
    plan = FreePlan(TEXT, frozenset({stop}), 30)
    (stopped,) = finish(engine(), [replace(free, plan=plan)])
    assert stopped.token_ids == whole.token_ids[: whole.token_ids.index(stop)]
    assert (stopped.finish_reason, whole.finish_reason) == ("stop", "length")


def test_samples_differ_and_come_again_with_the_same_seed():
    machine = engine()
    first = finished_ids(machine, [drawing(6, n=4)])
    assert len(set(first)) == 4
    assert finished_ids(engine(), [drawing(6, n=4)]) == first
    assert finished_ids(engine(), [drawing(6, n=1)]) == first[:1]
    other = replace(drawing(6), sampling=Sampling(seed=7))
    assert finished_ids(engine(), [other]) != first[:1]


def test_each_id_of_each_sample_has_noise_of_its_own():
    model = TinyModel()
    model.head = torch.zeros_like(model.head)  # every id is as likely as any other
    outputs = finish(engine(model), [drawing(3, length=9, n=2)])
    for output in outputs:
        keys = torch.tensor([noise_key(3, output.sample, index) for index in range(9)])
        assert output.token_ids == tuple((gumbel(keys, IMAGE).argmax(1) + IMAGE.start).tolist())
    assert len(set(outputs[0].token_ids)) > 3


def test_logprobs_are_those_of_the_mixed_logits():
    request = replace(drawing(2, length=5), logprobs=True)
    (output,) = finish(engine(), [request])
    assert output.logprobs is not None and len(output.logprobs) == 5
    for step, (id, logprob) in enumerate(zip(output.token_ids, output.logprobs, strict=True)):
        mixed = torch.zeros(IMAGE.size)
        for branch in request.branches:
            logits = recomputed_logits(TinyModel(), branch, output.token_ids[:step], IMAGE)
            mixed += branch.weight * logits
        assert logprob == pytest.approx(float(mixed.log_softmax(0)[id - IMAGE.start]), abs=1e-3)
    assert finish(engine(), [drawing(2)])[0].logprobs is None


def test_branch_logprobs_are_those_of_the_first_branch_alone():
    sampling = Sampling(temperature=0.5, top_k=4, seed=2)
    request = replace(drawing(2, length=5), branch_logprobs=True, sampling=sampling)
    (output,) = finish(engine(), [request])
    assert output.branch_logprobs is not None and len(output.branch_logprobs) == 5
    for step, (id, logprob) in enumerate(
        zip(output.token_ids, output.branch_logprobs, strict=True)
    ):
        logits = recomputed_logits(TinyModel(), request.branches[0], output.token_ids[:step], IMAGE)
        assert logprob == pytest.approx(float(logits.log_softmax(0)[id - IMAGE.start]), abs=1e-4)
    assert finish(engine(), [drawing(2)])[0].branch_logprobs is None


@pytest.mark.parametrize("hard", [False, True], ids=["at once", "preempted"])
def test_a_repetition_penalty_counts_prompt_and_emitted_ids(hard: bool):
    strict = Sampling(temperature=0, repetition_penalty=1e6)
    request = replace(caption(4, max_tokens=20, stop_ids=()), sampling=strict)
    (ids,) = finished_ids(engine(preempt_every_step=hard), [request])
    model, seen = TinyModel(), set(request.branches[0].token_ids)
    for step, id in enumerate(ids):
        logits = recomputed_logits(model, request.branches[0], ids[:step], TEXT)
        for other in seen:
            logits[other] = logits[other] / 1e6 if logits[other] > 0 else logits[other] * 1e6
        assert id == int(logits.argmax())
        seen.add(id)


def test_features_are_computed_once_for_all_branches_samples_and_preemptions():
    calls = []

    def compute() -> Tensor:
        calls.append(1)
        return vectors(0, 3)

    branch = Branch((2, 3, 4, 5), 0.5, (Embeddings(1, 3, "a picture", compute),))
    request = Request((branch, branch), FreePlan(TEXT, frozenset(), 6), n=3)
    finish(engine(preempt_every_step=True, max_batch_tokens=3), [request])
    assert len(calls) == 1


class Encoder:
    """Counts what it encodes; a negative seed cannot be."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def many(self, seeds: Sequence[int]) -> list[Tensor]:
        self.calls.append(list(seeds))
        if min(seeds) < 0:
            raise OSError("the picture is broken")
        return [vectors(seed, 3) for seed in seeds]

    def request(self, seed: int) -> Request:
        features = Embeddings(1, 3, str(seed), lambda: self.many([seed])[0], seed, self.many)
        return Request((Branch((2, 3, 4, 5), 1, (features,)),), FreePlan(TEXT, frozenset(), 6))


def test_features_of_one_step_are_computed_in_one_call_and_equal_ones_once():
    encoder = Encoder()
    requests = [encoder.request(seed) for seed in (5, 6, 5, 7)]
    machine = engine(prefix_caching=False)
    outputs = finished_ids(machine, requests)
    assert encoder.calls == [[5, 6, 7]]
    assert outputs == [finished_ids(engine(), [request])[0] for request in requests]
    assert len(set(outputs)) == 3


def test_one_broken_picture_among_those_of_a_step_fails_alone():
    encoder = Encoder()
    machine = engine(prefix_caching=False)
    outputs = finish(machine, [encoder.request(seed) for seed in (5, -1, 6, -1)])
    assert [o.error for o in outputs] == [None, "the picture is broken"] * 2
    assert encoder.calls == [[5, -1, 6], [5], [-1], [6], [-1]]  # each broken one told alone
    assert machine.stats.free_blocks == 400


def test_features_that_fail_only_together_fail_no_request_and_are_warned_of(
    monkeypatch: pytest.MonkeyPatch,
):
    encoder, many = Encoder(), Encoder.many

    def short_of_memory(self: Encoder, seeds: Sequence[int]) -> list[Tensor]:
        if len(seeds) > 1:
            raise MemoryError("no room for two")
        return many(self, seeds)

    monkeypatch.setattr(Encoder, "many", short_of_memory)
    requests = [encoder.request(seed) for seed in (5, 6)]
    with pytest.warns(UserWarning, match="2 embeddings had to be computed one by one: no room"):
        together = finished_ids(engine(prefix_caching=False), requests)
    assert encoder.calls == [[5], [6]]
    assert together == [finished_ids(engine(), [request])[0] for request in requests]


def test_too_few_vectors_are_no_vectors_of_another_picture():
    features = [
        Embeddings(0, 2, str(i), lambda: vectors(0, 2), i, lambda payloads: payloads[1:])
        for i in range(2)
    ]
    first = features[0].compute_many
    branches = [Branch((2, 3), 1, (replace(f, compute_many=first),)) for f in features]
    with pytest.warns(UserWarning, match="one by one"):
        outputs = finish(engine(), [Request((b,), FixedPlan(TEXT, 3)) for b in branches])
    assert [o.finish_reason for o in outputs] == ["complete"] * 2


def test_features_that_fail_end_their_request_alone():
    def cannot() -> Tensor:
        raise OSError("the picture\nis gone")

    broken = Request((Branch((2, 3), 1, (Embeddings(0, 2, "x", cannot),)),), FixedPlan(TEXT, 3))
    wrong = Embeddings(0, 2, "y", lambda: vectors(0, 5))
    misshapen = Request((Branch((2, 3), 1, (wrong,)),), FixedPlan(TEXT, 3))
    machine = engine()
    good = finished_ids(engine(), [drawing(1)])
    outputs = finish(machine, [broken, drawing(1), misshapen])
    assert [o.error for o in outputs] == ["the picture is gone", None, outputs[2].error]
    assert "[2, d]" in (outputs[2].error or "")
    assert outputs[1].token_ids == good[0]
    assert machine.stats.free_blocks == 400


def test_a_row_of_nan_ends_its_request_and_spoils_no_other():
    poison = Embeddings(0, 12, "nan", lambda: torch.full((12, 32), torch.nan))
    sick = Request((Branch((2,) * 12, 1, (poison,)),), FixedPlan(TEXT, 20))
    healthy = [caption(seed, max_tokens=30, stop_ids=()) for seed in range(4)]
    expected = finished_ids(engine(), healthy)
    machine = engine(num_blocks=24)  # few blocks, so that the sick one's are used again
    outputs = finish(machine, [sick, *healthy, sick, *healthy])
    assert [o.finish_reason for o in outputs].count("error") == 2
    assert [o.token_ids for o in outputs if o.finish_reason != "error"] == expected * 2


@pytest.mark.parametrize(
    ("config", "request_", "words"),
    [
        (EngineConfig(num_blocks=2, block_size=4), drawing(0), "K/V blocks"),
        (EngineConfig(max_context=20), drawing(3), "max_context"),
        (EngineConfig(max_running=1), drawing(0), "max_running"),
    ],
)
def test_a_request_that_can_never_run_is_refused_when_added(config, request_, words):
    with pytest.raises(ValueError, match=words):
        Engine(TinyModel(), config).add(request_)


def test_a_request_that_just_fits_the_pool_runs():
    # Lines of 7 + 16 - 1 and 2 + 16 - 1 ids: 6 and 5 blocks of 4.
    machine = engine(num_blocks=11)
    assert finished_ids(machine, [drawing(0)] * 2) == finished_ids(engine(), [drawing(0)] * 2)
    with pytest.raises(ValueError, match="up to 11 K/V blocks"):
        engine(num_blocks=10).add(drawing(0))


def test_no_more_lines_run_than_allowed():
    machine = engine(max_running=4)
    for seed in range(5):
        machine.add(drawing(seed, length=3))
    most = 0
    while machine.has_work:
        machine.step()
        most = max(most, machine.stats.running)
    assert most == 2


def test_add_and_abort_may_come_from_other_threads():
    machine = engine()
    ids: list[int] = []

    def client(seed: int) -> None:
        for i in range(10):
            request_id = machine.add(caption(10 * seed + i, max_tokens=4))
            ids.append(request_id)
            if i % 2:
                machine.abort(request_id)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    finals = []
    while any(thread.is_alive() for thread in threads) or machine.has_work:
        finals += [output.request_id for output in machine.step() if output.finished]
    assert sorted(finals) == sorted(ids) == list(range(40))
    assert machine.stats.free_blocks == 400


class RaisingPlan(ScriptPlan):
    """A plan whose code is broken from its `first` id on."""

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        if len(emitted) >= len(self.script):
            raise KeyError("no such\nstate")
        return Allow(TEXT)


class UnknowablePlan:
    exact = True

    @property
    def max_length(self) -> int:
        raise ZeroDivisionError("how long?")

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        return Stop("complete")


def test_whatever_is_wrong_with_a_request_ends_it_alone():
    good = [drawing(1), caption(2)]
    bad = [
        Request((Branch((2,)),), RaisingPlan(())),
        Request((Branch((2, 3)),), RaisingPlan((0, 0))),
        Request((Branch((2,)),), UnknowablePlan()),
        Request((Branch((2,)),), FixedPlan(TEXT, 300), n=2),
        Request((Branch((2,) * 300),), FreePlan(TEXT, frozenset(), 5)),
    ]
    machine = engine()
    outputs = finish(machine, [good[0], *bad, good[1]])
    said = [output.error for output in outputs[1:-1]]
    assert said[:3] == ["'no such\\nstate'", "'no such\\nstate'", "how long?"]
    assert all("max_context" in (error or "") for error in said[3:]) and len(said) == 6
    assert [outputs[0].token_ids, outputs[-1].token_ids] == finished_ids(engine(), good)
    assert machine.stats.free_blocks == 400 and not machine.has_work


def test_a_long_request_is_not_starved_by_short_ones_that_keep_coming():
    machine = engine(num_blocks=16)
    for seed in range(3):
        machine.add(caption(seed, max_tokens=8, stop_ids=()))
    long = machine.add(Request((Branch((3,) * 40),), FixedPlan(IMAGE, 20)))  # 15 of 16 blocks
    for seed in range(40):
        machine.add(caption(seed, max_tokens=4, stop_ids=()))
        for output in machine.step():
            if output.request_id == long and output.finished:
                assert output.finish_reason == "complete"
                return
    pytest.fail("the long request never ended")


def test_a_step_laid_out_ahead_is_for_the_same_tokens_in_the_same_blocks():
    machine = engine(block_size=64, num_blocks=8)
    for request in (drawing(1), caption(2)):
        machine.add(request)
    machine._looks_ahead = True
    machine.step()
    machine.step()
    ahead, chunks = machine._ahead, machine._scheduler.schedule().chunks
    assert ahead is not None and ahead.are(chunks)
    last = chunks[-1]
    assert not ahead.are(chunks[:-1])
    assert not ahead.are([*chunks[:-1], last._replace(start=last.start - 1)])
    assert not ahead.are([*chunks[:-1], last._replace(stop=last.stop + 1)])
    last.branch.blocks = list(last.branch.blocks)  # as after a preemption
    assert not ahead.are(chunks)


@pytest.mark.parametrize(
    ("options", "foreseen"),
    [
        ({}, True),
        ({"prefix_caching": False, "max_batch_tokens": 5}, True),
        ({"max_batch_tokens": 1}, True),
        ({"num_blocks": 24}, True),
        ({"preempt_every_step": True}, False),
    ],
    ids=["plain", "small chunks", "single tokens", "small pool", "preempted at each step"],
)
def test_steps_laid_out_ahead_are_those_that_come(
    options: dict[str, Any], foreseen: bool, monkeypatch: pytest.MonkeyPatch
):
    requests = [drawing(1), caption(2), drawing(3, length=9, n=2), caption(4, 40, stop_ids=())]
    plain = finished_ids(engine(**options), requests)
    machine, used = engine(**options), []
    machine._looks_ahead = True
    batch = DecodesAhead.batch

    def compared(ahead: DecodesAhead) -> Batch:
        one, other = batch(ahead), build_batch(ahead.chunks, machine.config.block_size)
        rows, others = one.attention, other.attention
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.positions, other.positions)
        assert torch.equal(rows.slot_mapping, others.slot_mapping)
        for name in ("query_lengths", "context_lengths", "block_tables"):
            assert getattr(rows, name) == getattr(others, name)
        assert one.embeddings == other.embeddings
        for group, same in zip(one.groups, other.groups, strict=True):
            assert (group.id_range, group.targets) == (same.id_range, same.targets)
            assert torch.equal(group.rows, same.rows)
        used.append(one)
        return one

    monkeypatch.setattr(DecodesAhead, "batch", compared)
    assert finished_ids(machine, requests) == plain
    assert bool(used) == foreseen
