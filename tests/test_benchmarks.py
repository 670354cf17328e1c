"""Measuring: pairs alternate, floors and targets are what they say, a failure leaves the rest."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.adapters import NAMES, random_adapter
from benchmarks.adapters import steps as adapted_steps
from benchmarks.attention import BLOCK, PagedAttention, last_tokens, tables_in_order
from benchmarks.device import DeviceBench
from benchmarks.engines import DecodeSteps, arrivals
from benchmarks.measure import decode_floor, median_ratio, medians, paired
from benchmarks.models import NullModel, random_model
from benchmarks.report import Result, Throughput, table, throughput_table
from benchmarks.requests import geometric_lengths, guided
from unitok.driver import Driver
from unitok.nn.config import DecoderConfig
from unitok_engine import Branch, Engine, EngineConfig, FixedPlan, IdRange, KVShape, Request

TINY = DecoderConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    max_positions=128,
)


def test_contenders_take_turns_in_alternating_order():
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = paired(contenders, rounds=3, warm_up=1)
    assert "".join(calls) == "baabbaab"[: len(calls)] and len(calls) == 8
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_a_median_ratio_is_of_pairs():
    seconds = {"a": [1.0, 10.0, 3.0], "b": [1.0, 5.0, 1.0]}
    assert median_ratio(seconds, "a", "b") == 2.0
    assert medians(seconds) == {"a": 3.0, "b": 1.0}


def test_a_target_is_met_on_its_own_side():
    assert [Result("x", value, "x", 2.0).met for value in (1.9, 2.0, 2.1)] == ["no", "yes", "yes"]
    met = [Result("x", value, "x", 2.0, False).met for value in (1.9, 2.0, 2.1)]
    assert met == ["yes", "yes", "no"]
    assert Result("x", 1.0, "s").met == ""


def test_tables_have_a_row_for_each_result():
    rows = table([Result("steps", 2.0, "x", 1.5, True, "why")]).splitlines()
    assert rows[-1] == "| steps | 2 x | ≥ 1.5 | yes | why |"
    rows = throughput_table([Throughput(4, 2.0, 8.0)]).splitlines()
    assert rows[-1] == "| 4 | 0.500 | 2.000 | 2.00 | 0.50 |"


def test_output_lengths_are_many_short_and_few_long():
    lengths = geometric_lengths(1000)
    assert min(lengths) >= 8 and max(lengths) <= 128
    assert sorted(lengths)[500] < sum(lengths) / 1000
    assert lengths == geometric_lengths(1000)


@torch.inference_mode()
def test_decode_steps_begin_with_every_branch_at_its_context():
    model = random_model(TINY, 16, torch.float32)
    requests = [guided(model, 40, 10, seed) for seed in range(3)]
    steps = DecodeSteps(model, requests, 60)
    forwards = steps.engine.stats.forwards
    outputs = steps()
    assert sorted(output.request_id for output in outputs) == [0, 1, 2]
    assert all(len(output.token_ids) == 1 for output in outputs)
    assert steps.engine.stats.forwards == forwards + 1


@torch.inference_mode()
def test_steps_of_a_batch_with_adapters_are_one_forward_each():
    model = random_model(TINY, 16, torch.float32)
    for seed, name in enumerate(NAMES):
        model.put_adapter(random_adapter(model, name, seed))
    steps = adapted_steps(model, 20, 5, NAMES)
    assert [steps.engine.uses(name) for name in NAMES] == [4] * 4
    forwards = steps.engine.stats.forwards
    assert len(steps()) == 16
    assert steps.engine.stats.forwards == forwards + 1


def test_the_floor_counts_layers_the_head_in_use_and_live_keys_and_values():
    model = random_model(TINY, 16, torch.float32)
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32
    layers = 2 * (attention + 3 * 32 * 48 + 2 * 32) + 32
    kv = 2 * 2 * 1 * 16 * 4
    text = decode_floor(model, rows=3, context=5, image=False)
    assert text == 4 * (layers + 50 * 32) + 3 * 5 * kv
    assert decode_floor(model, 3, 6, image=False) - text == 3 * kv


def test_all_arrivals_end_and_take_time():
    driver = Driver(Engine(NullModel(), EngineConfig(num_blocks=8, block_size=8)))
    plan = FixedPlan(IdRange(0, 4), 3)
    requests = [Request((Branch((1, 2)),), plan) for _ in range(4)]
    latencies = list(arrivals(driver, requests, [0.0, 0.0, 0.01, 0.02]))
    assert len(latencies) == 4 and min(latencies) > 0


def test_a_batch_made_by_hand_holds_the_last_tokens_of_each_sequence():
    assert tables_in_order(2, BLOCK + 1) == [(0, 1), (2, 3)]
    batch = last_tokens([(3, 1), (0,)], [BLOCK + 1, 5], queries=2)
    assert batch.slot_mapping.tolist() == [4 * BLOCK - 1, BLOCK, 3, 4]
    assert batch.query_lengths == (2, 2) and batch.context_lengths == (BLOCK + 1, 5)


@torch.inference_mode()
def test_paged_attention_is_that_of_contiguous_keys_and_values():
    generator = torch.Generator().manual_seed(0)
    tables, contexts = ((1, 2), (0,)), (BLOCK + 6, 9)
    cache = PagedAttention(
        KVShape(1, 2, 16), tables, contexts, 1, torch.float32, torch.device("cpu"), "torch-gather"
    )
    keys, values = torch.randn(2, 3 * BLOCK, 2, 16, generator=generator)
    cache.fill(0, keys, values)
    q, k, v = torch.randn(3, 2, 2, 16, generator=generator)
    out = cache.attend(0, q, k, v)
    for row, (table_, context) in enumerate(zip(tables, contexts, strict=True)):
        slots = [table_[i // BLOCK] * BLOCK + i % BLOCK for i in range(context - 1)]
        seen_k = torch.cat([keys[slots], k[row : row + 1]])
        seen_v = torch.cat([values[slots], v[row : row + 1]])
        scores = torch.einsum("hd,nhd->hn", q[row], seen_k) / 4
        expected = torch.einsum("hn,nhd->hd", scores.softmax(-1), seen_v)
        torch.testing.assert_close(out[row].reshape(2, 16), expected, atol=1e-5, rtol=1e-5)


def test_a_part_that_fails_is_named_and_the_others_go_on(capsys: pytest.CaptureFixture[str]):
    here = DeviceBench(torch.device("cpu"), rehearse=True)

    def breaks() -> Iterator[Result]:
        yield Result("before", 1.0, "s")
        raise RuntimeError("out of memory")

    found = [*here.attempt("first", breaks()), *here.attempt("second", iter([Result("b", 2, "s")]))]
    assert [result.name for result in found] == ["before", "b"]
    assert here.failures == ["first"]
    error = capsys.readouterr().err
    assert "first failed (RuntimeError); going on" in error and "out of memory" in error
