"""Measuring: pairs alternate, floors and bars are what they say."""

import torch

from unitok.evaluation import bench
from unitok.evaluation.bench_report import Result, Throughput, table, throughput_table
from unitok.nn.config import DecoderConfig

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
    seconds = bench.paired(contenders, rounds=3, warm_up=1)
    assert "".join(calls) == "baabbaab"[: len(calls)] and len(calls) == 8
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_a_median_ratio_is_of_pairs():
    seconds = {"a": [1.0, 10.0, 3.0], "b": [1.0, 5.0, 1.0]}
    assert bench.median_ratio(seconds, "a", "b") == 2.0


def test_a_bar_is_met_on_its_own_side():
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
    lengths = bench.geometric_lengths(1000)
    assert min(lengths) >= 8 and max(lengths) <= 128
    assert sorted(lengths)[500] < sum(lengths) / 1000
    assert lengths == bench.geometric_lengths(1000)


@torch.inference_mode()
def test_decode_steps_begin_with_every_line_at_its_context():
    model = bench.random_model(TINY, 16, torch.float32)
    requests = [bench.guided(model, 40, 10, seed) for seed in range(3)]
    steps = bench.DecodeSteps(model, requests, 60)
    forwards = steps.engine.stats.forwards
    outputs = steps()
    assert sorted(output.request_id for output in outputs) == [0, 1, 2]
    assert all(len(output.token_ids) == 1 for output in outputs)
    assert steps.engine.stats.forwards == forwards + 1


def test_the_floor_counts_layers_the_head_in_use_and_live_keys_and_values():
    model = bench.random_model(TINY, 16, torch.float32)
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32
    layers = 2 * (attention + 3 * 32 * 48 + 2 * 32) + 32
    kv = 2 * 2 * 1 * 16 * 4
    text = bench.decode_floor(model, rows=3, context=5, image=False)
    assert text == 4 * (layers + 50 * 32) + 3 * 5 * kv
    assert bench.decode_floor(model, 3, 6, image=False) - text == 3 * kv


def test_all_arrivals_end_and_take_time():
    engine = bench.Engine(bench.Costless(), bench.EngineConfig(num_blocks=8, block_size=8))
    driver = bench.Driver(engine)
    plan = bench.FixedPlan(bench.IdRange(0, 4), 3)
    requests = [bench.Request((bench.Branch((1, 2)),), plan) for _ in range(4)]
    latencies = list(bench.arrivals(driver, requests, [0.0, 0.0, 0.01, 0.02]))
    assert len(latencies) == 4 and min(latencies) > 0
