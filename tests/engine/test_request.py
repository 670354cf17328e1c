from pathlib import Path

import pytest
import torch

from unitok_engine import (
    Allow,
    Branch,
    Embeddings,
    EngineConfig,
    FixedPlan,
    FreePlan,
    IdRange,
    KVShape,
    Request,
    Sampling,
    Stop,
)
from unitok_engine.config import free_memory

RANGE = IdRange(10, 20)


def features(start: int, length: int) -> Embeddings:
    return Embeddings(start, length, "x", lambda: torch.zeros(length, 4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IdRange(5, 5), "start < stop"),
        (lambda: IdRange(-1, 5), "start < stop"),
        (lambda: Sampling(temperature=-1), "temperature"),
        (lambda: Sampling(temperature=float("nan")), "temperature"),
        (lambda: Sampling(top_k=-1), "top_k"),
        (lambda: Sampling(top_p=0), "top_p"),
        (lambda: Sampling(top_p=1.1), "top_p"),
        (lambda: Sampling(top_p=float("nan")), "top_p"),
        (lambda: Sampling(min_p=-0.1), "min_p"),
        (lambda: Sampling(min_p=1.1), "min_p"),
        (lambda: Sampling(repetition_penalty=0), "repetition_penalty"),
        (lambda: Sampling(repetition_penalty=float("inf")), "repetition_penalty"),
        (lambda: Sampling(seed=2**64), "64 bits"),
        (lambda: Sampling(seed=-(2**63) - 1), "64 bits"),
        (lambda: Branch(()), "at least one token id"),
        (lambda: Branch((1,), first_position=-1), "first_position"),
        (lambda: features(-1, 1), "start >= 0 and length >= 1"),
        (lambda: features(0, 0), "start >= 0 and length >= 1"),
        (lambda: features(0, -1), "start >= 0 and length >= 1"),
        (lambda: Branch((1, 2), embeddings=(features(1, 2),)), "outside"),
        (lambda: Branch((1, 2, 3), embeddings=(features(1, 2), features(0, 2))), "overlap"),
        (lambda: Request((), FixedPlan(RANGE, 1)), "at least one branch"),
        (lambda: Request((Branch((1,), 0.5),), FixedPlan(RANGE, 1)), "sum to 1"),
        (lambda: Request((Branch((1,)),), FixedPlan(RANGE, 1), n=0), "n must"),
        (lambda: FixedPlan(RANGE, 0), "length"),
        (lambda: FreePlan(RANGE, frozenset(), 0), "max_tokens"),
        (lambda: FreePlan(RANGE, frozenset({9}), 5), "stop id 9"),
        (lambda: Allow(RANGE, torch.ones(9, dtype=torch.bool)), r"\[10\]"),
        (lambda: Allow(RANGE, torch.zeros(10, dtype=torch.bool)), "no id"),
        (lambda: EngineConfig(memory=1, num_blocks=1), "not both"),
        (lambda: EngineConfig(max_running=0), "max_running"),
        (lambda: EngineConfig(max_batch_tokens=0), "max_batch_tokens"),
        (lambda: EngineConfig(max_context=0), "max_context"),
        (lambda: EngineConfig(num_blocks=0), "num_blocks"),
        (lambda: EngineConfig(block_size=0), "block_size"),
        (lambda: EngineConfig(memory=0), "memory"),
        (lambda: EngineConfig(memory=0.0), "share"),
        (lambda: EngineConfig(memory=1.5), "share"),
    ],
)
def test_a_wrong_value_is_refused_with_a_word_about_it(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("seed", [-(2**63), 0, 2**64 - 1])
def test_a_seed_is_any_integer_of_64_bits_signed_or_not(seed: int):
    assert Sampling(seed=seed).seed == seed


def test_the_least_values_are_taken():
    assert features(0, 1).stop == 1
    assert (IdRange(0, 1).size, 0 in IdRange(0, 1), 1 in IdRange(0, 1)) == (1, True, False)
    branch = Branch((1, 2), embeddings=(features(0, 1), features(1, 1)))
    assert Request((branch,), FixedPlan(RANGE, 1), n=1).plan.max_length == 1


def test_a_free_plan_may_be_masked():
    mask = torch.arange(10) != 4
    allowed = FreePlan(RANGE, frozenset({12}), 3, mask).next([11])
    assert isinstance(allowed, Allow) and allowed.mask is mask
    with pytest.raises(ValueError, match="mask must be"):
        FreePlan(RANGE, frozenset(), 3, mask[1:])


def test_a_free_plan_ends_at_a_stop_id_or_at_its_bound():
    plan = FreePlan(RANGE, frozenset({12}), 3)
    assert isinstance(plan.next([]), Allow)
    assert plan.next([11, 12]) == Stop("stop", drop=1)
    assert plan.next([11, 13, 14]) == Stop("length")
    assert plan.next([11, 13, 12]) == Stop("stop", drop=1)


def test_a_fixed_plan_ends_at_its_length_alone():
    plan = FixedPlan(RANGE, 2)
    assert isinstance(plan.next([11]), Allow)
    assert plan.next([11, 12]) == Stop("complete")
    assert (plan.exact, plan.max_length) == (True, 2)


def test_memory_buys_whole_blocks_and_no_more_than_useful():
    shape = KVShape(layers=2, kv_heads=4, head_dim=8)  # 512 bytes an id in fp32
    cpu = torch.device("cpu")
    config = EngineConfig(memory=10_000, block_size=4).resolve(shape, torch.float32, cpu)
    assert (config.num_blocks, config.block_bytes, config.memory) == (4, 2048, 8192)
    bounded = EngineConfig(max_running=2, max_context=10, block_size=4)
    assert bounded.resolve(shape, torch.float32, cpu).num_blocks == 6
    with pytest.raises(ValueError, match="at least one block of 2048 bytes"):
        EngineConfig(memory=100, block_size=4).resolve(shape, torch.float32, cpu)


def test_memory_may_be_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unitok_engine.config.free_memory", lambda device: 40_960)
    shape, cpu = KVShape(layers=2, kv_heads=4, head_dim=8), torch.device("cpu")
    config = EngineConfig(memory=0.25, block_size=4).resolve(shape, torch.float32, cpu)
    assert (config.num_blocks, config.memory) == (5, 10_240)


def test_without_a_size_memory_is_512_mib_on_a_cpu_and_half_of_what_is_free_on_cuda(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("unitok_engine.config.free_memory", lambda device: 81_920)
    shape, devices = KVShape(layers=2, kv_heads=4, head_dim=8), map(torch.device, ("cpu", "cuda"))
    config = EngineConfig(block_size=4, max_running=10**6)
    cpu, cuda = (config.resolve(shape, torch.float32, device) for device in devices)
    assert (cpu.memory, cuda.memory) == (2**29, 40_960)


def test_what_is_free_is_read_from_the_system_or_has_to_be_given(monkeypatch: pytest.MonkeyPatch):
    lines = "MemTotal:  900 kB\nMemAvailable:  300 kB\nSwapTotal:  7 kB\n"
    monkeypatch.setattr(Path, "read_text", lambda path: lines)
    assert free_memory(torch.device("cpu")) == 300 * 1024
    monkeypatch.setattr(Path, "read_text", lambda path: "MemTotal:  900 kB\n")
    with pytest.raises(ValueError, match="give memory in bytes"):
        free_memory(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (123, 456))
    assert free_memory(torch.device("cuda")) == 123


def test_the_defaults_are_the_documented_ones():
    assert EngineConfig() == EngineConfig(
        memory=None,
        num_blocks=None,
        block_size=None,
        max_batch_tokens=2048,
        max_running=256,
        max_context=2048,
        prefix_caching=True,
        attention=None,
        cuda_graphs=True,
        preempt_every_step=False,
    )
    assert Sampling() == Sampling(1.0, 0, 1.0, 0, 0.0, 1.0)
    branch = Branch((1,))
    assert branch == Branch((1,), 1.0, (), 0)
    plan = FixedPlan(RANGE, 1)
    assert Request((branch,), plan) == Request((branch,), plan, Sampling(), 1, False, False)
    assert features(0, 1).placeholder == 0


def test_the_least_sizes_are_taken():
    config = EngineConfig(num_blocks=1, block_size=1, max_batch_tokens=1, max_running=1)
    resolved = config.resolve(KVShape(1, 1, 1), torch.float32, torch.device("cpu"))
    assert (resolved.num_blocks, resolved.block_size, resolved.memory) == (1, 1, 8)
    assert [resolved.blocks_for(length) for length in (0, 1, 2)] == [0, 1, 2]
    assert EngineConfig(memory=1.0).memory == EngineConfig(memory=1, max_context=1).memory == 1


def test_a_block_has_as_many_ids_as_the_device_and_precision_read_best():
    shape, cpu = KVShape(layers=1, kv_heads=1, head_dim=8), torch.device("cpu")
    sizes = [EngineConfig().resolve(shape, t, cpu).block_size for t in (torch.float32, torch.half)]
    assert sizes == [32, 64]
    paged = EngineConfig(attention="xformers").resolve(shape, torch.float32, cpu)
    assert paged.block_size == 64
