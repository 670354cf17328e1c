"""Ids and log-probabilities against a plain reference that knows no cache and no batch."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine import reference
from tests.engine.kinds import MASK, REQUESTS
from tests.engine.tiny import TEXT, TinyModel, engine, finish
from unitok_engine import Branch, FreePlan, Request, Sampling

MODEL = TinyModel()
LINES = {
    (1.0,): (12,),
    (3.0, -2.0): (12, 3),
    (2.2, -1.7, 0.5): (9, 13, 2),
}


def every_sampling() -> list[Sampling]:
    """Each combination of temperature, filters and penalty; a seed for each."""
    parts = product((0.0, 0.7), (0, 6), (1.0, 0.8), (0.0, 0.04), (1.0, 1.7))
    return [
        Sampling(temperature, top_k, top_p, seed, min_p, penalty)
        for seed, (temperature, top_k, top_p, min_p, penalty) in enumerate(parts)
    ]


def every_request() -> list[Request]:
    """Each sampling under each guidance, with and without a mask, all with log-probabilities."""
    requests = []
    for weights, mask, sampling in product(LINES, (None, MASK), every_sampling()):
        branches = tuple(
            Branch(tuple((5 * i + length) % 38 + 2 for i in range(length)), weight)
            for weight, length in zip(weights, LINES[weights], strict=True)
        )
        plan = FreePlan(TEXT, frozenset(), 6, mask)
        requests.append(Request(branches, plan, sampling, 1, True, True))
    return requests


@pytest.mark.parametrize("crowd", [False, True], ids=["few at once", "all at once"])
def test_ids_and_logprobs_are_those_of_a_plain_reference_however_it_is_sampled(crowd: bool):
    requests = every_request()
    machine = engine(MODEL, max_running=256 if crowd else 3, num_blocks=2000)
    outputs = finish(machine, requests)
    assert len(outputs) == len(requests) == 192
    for output, request in zip(outputs, requests, strict=True):
        assert len(output.token_ids) == 6
        reference.check(output, request, MODEL)


@pytest.mark.parametrize("temperature", [1e-46, 1e-40, 1e-20])
def test_a_temperature_too_small_for_fp32_takes_the_best_id(temperature: float):
    request = every_request()[0]
    greedy, tiny = (replace(request, sampling=Sampling(t, seed=4)) for t in (0.0, temperature))
    outputs = finish(engine(MODEL), [greedy, tiny, greedy])
    assert outputs[0].token_ids == outputs[1].token_ids
    assert outputs[1].logprobs == (0.0,) * 6


def test_a_seed_may_be_any_integer_type():
    request = every_request()[16]
    seeds: tuple[Any, Any] = (7, np.int64(7))
    plain, typed = (replace(request, sampling=Sampling(seed=seed)) for seed in seeds)
    one, other = finish(engine(MODEL), [plain, typed])
    assert one.token_ids == other.token_ids


@pytest.mark.timeout(300)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=8),
    num_blocks=st.sampled_from([48, 70, 400]),
    block_size=st.sampled_from([1, 4, 5]),
    budget=st.sampled_from([1, 2, 7, 30, 2048]),
    max_running=st.sampled_from([3, 8, 256]),
    caching=st.booleans(),
    preempt=st.booleans(),
)
def test_any_mix_of_requests_gives_what_the_plain_reference_gives(
    requests, num_blocks, block_size, budget, max_running, caching, preempt
):
    machine = engine(
        MODEL,
        num_blocks=num_blocks * (4 if block_size == 1 else 1),
        block_size=block_size,
        max_batch_tokens=budget,
        max_running=max_running,
        prefix_caching=caching,
        preempt_every_step=preempt,
    )
    outputs = finish(machine, requests)
    wanted = [(i, sample) for i, request in enumerate(requests) for sample in range(request.n)]
    assert [(output.request_id, output.sample) for output in outputs] == wanted
    for output in outputs:
        assert output.error is None
        reference.check(output, requests[output.request_id], MODEL)
    assert machine.stats.free_blocks == machine.config.num_blocks


def test_the_reference_sees_an_id_or_a_logprob_that_is_wrong():
    request = every_request()[16]  # nothing is filtered, so nothing is sure
    assert request.sampling == Sampling(0.7, seed=16)
    (output,) = finish(engine(MODEL), [request])
    reference.check(output, request, MODEL)
    assert output.logprobs is not None
    wrong = [
        replace(
            output,
            token_ids=(*output.token_ids[:3], output.token_ids[3] ^ 1, *output.token_ids[4:]),
        ),
        replace(output, sample=1),
        replace(output, logprobs=(output.logprobs[0] + 0.01, *output.logprobs[1:])),
        replace(output, branch_logprobs=output.logprobs),
        replace(output, logprobs=None),
    ]
    for one in wrong:
        with pytest.raises(AssertionError):
            reference.check(one, request, MODEL)
    flat = torch.zeros(4)
    kept = reference.distribution(flat, TEXT, set(), None, Sampling(top_k=2)).isfinite()
    assert int(kept.sum()) == 2
