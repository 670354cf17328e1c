"""Samples that are tries of one result differ in what they sample first."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.engine.tiny import IMAGE, caption, drawing, engine, finish
from unitok_engine import FreePlan, GridPlan, Request, Sampling
from unitok_engine.sampler import SamplingInput, collect, sample

KNOWN = (40, 41, None, 43, None, 45, 46, 47)
GRID = GridPlan(IMAGE, 2, 4, row_end=5, known=KNOWN)


def firsts(request: Request, place: int = 0) -> list[int]:
    return [output.token_ids[place] for output in finish(engine(), [request])]


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seeds", [(), tuple(range(20, 32))], ids=["one seed", "own seeds"])
def test_the_first_tokens_of_the_tries_of_a_result_all_differ(temperature, seeds):
    request = replace(
        drawing(1, n=12), tries=6, seeds=seeds, sampling=Sampling(temperature, seed=3)
    )
    tokens = firsts(request)
    for result in (0, 1):
        assert len(set(tokens[result::2])) == 6


def test_the_first_try_is_the_sample_without_tries():
    plain = replace(drawing(1, n=2), sampling=Sampling(0.7, seed=3))
    (one, other) = finish(engine(), [plain])
    tried = finish(engine(), [replace(plain, n=8, tries=4)])
    assert [tried[0].token_ids, tried[1].token_ids] == [one.token_ids, other.token_ids]


def test_at_temperature_0_the_tries_begin_with_the_best_tokens():
    request = replace(drawing(1, n=4), sampling=Sampling(0), logprobs=True, tries=4)
    outputs = finish(engine(), [request])
    told = [output.logprobs[0] for output in outputs if output.logprobs]
    assert told == sorted(told, reverse=True) and len(set(told)) == 4


def test_behind_known_cells_the_first_free_one_differs():
    request = replace(drawing(1, n=5), plan=GRID, tries=5)
    outputs = finish(engine(), [request])
    assert {output.token_ids[:2] for output in outputs} == {(40, 41)}
    assert len({output.token_ids[2] for output in outputs}) == 5


def test_no_filter_is_passed_over_for_the_sake_of_differing():
    request = replace(drawing(1, n=6), sampling=Sampling(1.0, top_k=3), tries=6)
    best = set(firsts(replace(drawing(1, n=3), sampling=Sampling(0), tries=3)))
    assert set(firsts(request)) == best


def test_tries_are_the_same_preempted_and_beside_others():
    request = replace(drawing(1, n=6), tries=3, sampling=Sampling(0.9, seed=3))
    expected = [output.token_ids for output in finish(engine(), [request])]
    changes: list[dict[str, Any]] = [
        {"preempt_every_step": True},
        {"max_batch_tokens": 5},
        {"num_blocks": 20},
    ]
    for options in changes:
        outputs = finish(engine(**options), [request, caption(3), drawing(2)])
        assert [output.token_ids for output in outputs[:6]] == expected


def test_masked_ids_are_never_chosen_by_rank():
    logits = torch.arange(IMAGE.size).float()[None]
    mask = torch.zeros(IMAGE.size, dtype=torch.bool)
    mask[[3, 7]] = True
    for rank, column in ((0, 7), (1, 3), (2, 3), (40, 3)):
        asked = SamplingInput((1.0,), Sampling(0), 0, 0, mask=mask, rank=rank)
        (token,) = collect([sample(logits, IMAGE, [asked])])
        assert token.id == IMAGE.start + column


def test_rows_with_and_without_a_rank_are_sampled_together():
    logits = torch.arange(IMAGE.size).float().repeat(3, 1)
    inputs = [SamplingInput((1.0,), Sampling(0), 0, 0, rank=rank) for rank in (2, 0, 5)]
    tokens = collect([sample(logits, IMAGE, inputs)])
    assert [IMAGE.stop - 1 - (token.id or 0) for token in tokens] == [2, 0, 5]


def test_text_may_be_tried_too():
    request = replace(caption(2), n=4, tries=4, plan=FreePlan(IMAGE, frozenset(), 3))
    assert len(set(firsts(request))) == 4


@pytest.mark.parametrize("tries", [0, 4, 7])
def test_samples_are_a_multiple_of_tries(tries: int):
    with pytest.raises(ValueError, match=f"n must be a multiple of tries: 6 is none of {tries}"):
        replace(drawing(1, n=6), tries=tries)
