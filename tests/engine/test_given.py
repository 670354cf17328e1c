"""Tokens that are given instead of sampled: their log-probabilities are those of decoding."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from tests.engine.kinds import MASK
from tests.engine.kinds import REQUESTS as ANY_REQUESTS
from tests.engine.test_faults import everything_is_back
from tests.engine.tiny import IMAGE, TEXT, caption, drawing, engine, finish
from unitok_engine import Branch, FreePlan, GridPlan, Output, Request, Sampling, scheduler

GRID = GridPlan(IMAGE, rows=3, columns=4, row_end=5, closing=(6, 7))
DECODED = [
    replace(request, logprobs=True, branch_logprobs=True)
    for request in (
        drawing(1, length=20),
        caption(2, max_tokens=25),
        replace(drawing(3), plan=GRID),
        replace(drawing(5), sampling=Sampling(0.7, top_k=5, top_p=0.9, min_p=0.01, seed=5)),
        replace(caption(6, max_tokens=12), sampling=Sampling(seed=6, repetition_penalty=1.3)),
        replace(caption(7, stop_ids=()), plan=FreePlan(TEXT, frozenset(), 9, MASK)),
    )
]
EXPECTED = finish(engine(), DECODED)


def rescored(request: Request, output: Output) -> Request:
    return replace(request, given=output.token_ids, seeds=(), n=1)


def check_equal(got: Output, expected: Output) -> None:
    assert (got.token_ids, got.finish_reason) == (expected.token_ids, "complete")
    for ours, theirs in (
        (got.logprobs, expected.logprobs),
        (got.branch_logprobs, expected.branch_logprobs),
    ):
        assert ours is not None
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_batch_tokens": 5},
        {"num_blocks": 24, "max_batch_tokens": 9},
        {"prefix_caching": False},
        {"preempt_every_step": True},
    ],
    ids=["plain", "small steps", "small pool", "no caching", "preempted at each step"],
)
def test_scores_are_those_of_decoding_beside_what_is_sampled(options: dict):
    again = [rescored(*pair) for pair in zip(DECODED, EXPECTED, strict=True)]
    machine = engine(**options)
    outputs = finish(
        machine, [request for pair in zip(again, DECODED, strict=True) for request in pair]
    )
    for scored, sampled, expected in zip(outputs[::2], outputs[1::2], EXPECTED, strict=True):
        check_equal(scored, expected)
        assert sampled.token_ids == expected.token_ids
    everything_is_back(machine)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 5])
def test_all_tokens_are_scored_in_one_forward(place: int):
    machine = engine()
    check_equal(finish(machine, [rescored(DECODED[place], EXPECTED[place])])[0], EXPECTED[place])
    assert machine.stats.forwards == 1


def test_a_step_makes_no_more_logits_of_given_tokens_than_it_may(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduler, "_GIVEN_LOGITS", 5 * 2 * IMAGE.size)
    machine = engine()
    check_equal(finish(machine, [rescored(DECODED[0], EXPECTED[0])])[0], EXPECTED[0])
    # Five drafts and the token behind them, with two branches each, are at most six of twenty.
    assert machine.stats.forwards == 4


def test_a_stop_token_is_scored_and_the_tokens_may_end_earlier():
    request = replace(caption(2), plan=FreePlan(TEXT, frozenset({9}), 12), logprobs=True)
    ended, open_end = finish(
        engine(), [replace(request, given=(3, 4, 9)), replace(request, given=(3, 4))]
    )
    assert ended.token_ids == (3, 4, 9)
    assert open_end.token_ids == (3, 4)
    assert ended.logprobs is not None
    assert ended.logprobs[:2] == pytest.approx(open_end.logprobs, abs=1e-4)


def test_a_token_that_a_filter_leaves_out_has_no_probability():
    request = replace(drawing(1, length=2), sampling=Sampling(1.0, top_k=1), logprobs=True)
    (best,) = finish(engine(), [request])
    other = IMAGE.start + (best.token_ids[0] - IMAGE.start + 1) % IMAGE.size
    (output,) = finish(engine(), [replace(request, given=(other, IMAGE.start))])
    assert output.logprobs is not None
    assert output.logprobs[0] == -torch.inf
    (silent,) = finish(engine(), [replace(request, given=(other, IMAGE.start), logprobs=False)])
    assert silent.token_ids == (other, IMAGE.start)
    assert silent.logprobs is None


@pytest.mark.parametrize(
    ("plan", "ids", "message"),
    [
        (GRID, (40, 41, 42, 43, 44), "token 4 of the given ones is 44, where the plan forces 5"),
        (GRID, (40, 3), "token 1 of the given ones is 3, which the plan does not allow there"),
        (
            FreePlan(TEXT, frozenset(), 9, MASK),
            (1,),
            "token 0 of the given ones is 1, which the plan does not allow there",
        ),
        (FreePlan(TEXT, frozenset({9}), 9), (9, 3), "the plan ends after 1 of the 2 given tokens"),
        (FreePlan(TEXT, frozenset(), 2), (1, 2, 3), "the plan ends after 2 of the 3 given tokens"),
    ],
)
def test_tokens_that_the_plan_cannot_emit_are_refused(plan, ids: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        engine().add(Request((Branch((2, 3)),), plan, given=ids))


def test_several_samples_of_given_tokens_are_refused():
    with pytest.raises(ValueError, match="n must be 1, not 2"):
        Request((Branch((2, 3)),), GRID, n=2, given=(40,))


def test_room_is_needed_for_the_given_tokens_alone():
    plan = FreePlan(TEXT, frozenset(), 10_000)
    (output,) = finish(engine(), [Request((Branch((2, 3)),), plan, logprobs=True, given=(4, 5))])
    assert output.finish_reason == "complete"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(request=ANY_REQUESTS)
def test_every_kind_of_request_may_be_scored(request: Request):
    request = replace(request, n=1, seeds=(), logprobs=True, branch_logprobs=True)
    (expected,) = finish(engine(), [request])
    if expected.token_ids:
        check_equal(finish(engine(), [rescored(request, expected)])[0], expected)
