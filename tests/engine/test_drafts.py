"""Drafts: guesses that run in a step change no token, whoever guesses and however well."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine import reference
from tests.engine.kinds import REQUESTS as ANY_REQUESTS
from tests.engine.test_faults import everything_is_back
from tests.engine.tiny import (
    IMAGE,
    TEXT,
    TinyModel,
    caption,
    drawing,
    finals,
    finish,
    finished_ids,
)
from unitok_engine import (
    Allow,
    Branch,
    Engine,
    EngineConfig,
    Force,
    FreePlan,
    GridPlan,
    Output,
    Request,
    Sampling,
    Stop,
)

MODEL = TinyModel()
GRID = GridPlan(IMAGE, rows=3, columns=4, row_end=5, closing=(6, 7))
REQUESTS = [
    drawing(1, length=20),
    caption(2, max_tokens=25),
    replace(drawing(3, n=2), plan=GRID),
    replace(caption(4, max_tokens=9, stop_ids=()), sampling=Sampling(temperature=0)),
    replace(drawing(5), sampling=Sampling(0.7, top_k=5, top_p=0.9, seed=5)),
    replace(caption(6, max_tokens=12), sampling=Sampling(seed=6, repetition_penalty=1.3)),
    replace(drawing(7, length=11, n=3), logprobs=True, branch_logprobs=True),
]
ALONE = [
    tuple(output for output in finish(Engine(MODEL, EngineConfig(max_context=256)), [request]))
    for request in REQUESTS
]


class Guesser:
    """A drafter of all samples that guesses without a memory, as many tokens as there is room."""

    def guess(self, request: Request, emitted: Sequence[int]) -> list[int]:
        raise NotImplementedError

    def begin(self, request: Request) -> "OfSample":
        return OfSample(self, request)

    def width(self, drafted: int, others: int) -> int:
        return 10_000


@dataclass
class OfSample:
    """What a `Guesser` guesses of one sample."""

    guesser: Guesser
    request: Request

    def propose(self, emitted: Sequence[int], most: int) -> list[int]:
        return self.guesser.guess(self.request, emitted)

    def sampled(
        self, emitted: Sequence[int], guesses: Sequence[int], tokens: Sequence[int]
    ) -> None:
        assert len(tokens) == len(guesses) + 1


@dataclass
class Oracle(Guesser):
    """Knows what comes next, and says so, `most` tokens far and right with some probability."""

    most: int
    right: float
    known: dict[tuple[int, int], tuple[int, ...]]
    random: Random
    said: int = 0

    def guess(self, request: Request, emitted: Sequence[int]) -> list[int]:
        sampled = sampled_after(request, emitted, self.known.values())
        guesses = [
            id if self.random.random() < self.right else self.random.choice((3, 50, 71, 9999))
            for id in sampled[: self.most]
        ]
        self.said += len(guesses)
        return guesses


def sampled_after(request: Request, emitted: Sequence[int], answers) -> list[int]:
    """The tokens that are sampled behind those emitted, in an answer that begins with them."""
    for answer in answers:
        if answer[: len(emitted)] == tuple(emitted):
            free = [isinstance(request.plan.next(answer[:i]), Allow) for i in range(len(answer))]
            return [answer[i] for i in range(len(emitted), len(answer)) if free[i]]
    return []


def drafting(width: int, right: float, **options) -> tuple[Engine, Oracle]:
    answers = {
        (place, output.sample): output.token_ids
        for place, outputs in enumerate(ALONE)
        for output in outputs
    }
    oracle = Oracle(width, right, answers, Random(0))
    config = EngineConfig(max_context=256, block_size=4, **options)
    return Engine(MODEL, config, drafter=oracle), oracle


def check_all(outputs: Sequence[Output]) -> None:
    expected = [output for outputs in ALONE for output in outputs]
    assert [o.token_ids for o in outputs] == [o.token_ids for o in expected]
    for output, request in zip(outputs, [r for r in REQUESTS for _ in range(r.n)], strict=True):
        reference.check(output, request, MODEL)


@pytest.mark.parametrize(("width", "right"), [(1, 0.6), (3, 0.0), (3, 0.7), (12, 1.0)])
@pytest.mark.parametrize(
    "options",
    [
        {"num_blocks": 400},
        {"num_blocks": 24, "max_batch_tokens": 5},
        {"num_blocks": 400, "prefix_caching": False},
        {"num_blocks": 60, "preempt_every_step": True},
        {"num_blocks": 400, "attention": "torch-gather"},
    ],
    ids=["plain", "small pool", "no caching", "preempted at each step", "gathered"],
)
def test_drafts_change_no_token(options: dict, width: int, right: float):
    machine, oracle = drafting(width, right, **options)
    check_all(finish(machine, REQUESTS))
    everything_is_back(machine)
    assert oracle.said > 0


def test_right_drafts_save_steps_and_wrong_ones_cost_none():
    forwards = {}
    for right in (0.0, 1.0):
        machine, _ = drafting(3, right, num_blocks=400)
        finished_ids(machine, REQUESTS[:3])
        forwards[right] = machine.stats.forwards
    plain = Engine(MODEL, EngineConfig(max_context=256, block_size=4, num_blocks=400))
    finished_ids(plain, REQUESTS[:3])
    assert forwards[0.0] == plain.stats.forwards
    assert forwards[1.0] < plain.stats.forwards / 2.5


def test_forced_tokens_between_drafts_are_drafted_too():
    request = Request((Branch((2, 3, 4)),), GRID, Sampling(seed=1))
    (ids,) = finished_ids(Engine(MODEL, EngineConfig(max_context=256)), [request])
    oracle = Oracle(12, 1.0, {(0, 0): ids}, Random(0))
    machine = Engine(MODEL, EngineConfig(max_context=256), drafter=oracle)
    assert finished_ids(machine, [request]) == [ids]
    assert machine.stats.forwards == 2  # the prompt, and all the rest


def test_a_stop_token_that_is_guessed_ends_nothing_early():
    stop = 9

    class Stopper(Guesser):
        def guess(self, request: Request, emitted: Sequence[int]) -> list[int]:
            return [stop, stop]

    request = Request((Branch((2, 3)),), FreePlan(TEXT, frozenset({stop}), 12), Sampling(seed=2))
    expected = finish(Engine(MODEL, EngineConfig(max_context=256)), [request])
    got = finish(Engine(MODEL, EngineConfig(max_context=256), drafter=Stopper()), [request])
    assert [(o.token_ids, o.finish_reason) for o in got] == [
        (o.token_ids, o.finish_reason) for o in expected
    ]


def test_a_plan_that_raises_when_it_is_asked_ahead_fails_alone():
    class Shy:
        max_length, exact = 9, False

        def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
            if 50 in emitted:
                raise LookupError("too far")
            return Allow(IMAGE) if len(emitted) < 9 else Stop("length")

    class Fifty(Guesser):
        def guess(self, request: Request, emitted: Sequence[int]) -> list[int]:
            return [50]

    shy = replace(drawing(1), plan=Shy())
    machine = Engine(MODEL, EngineConfig(max_context=256), drafter=Fifty())
    bad, good = finish(machine, [shy, caption(1)])
    assert bad.error == "too far"
    assert good.token_ids == finished_ids(Engine(MODEL), [caption(1)])[0]


def test_outputs_of_a_step_hold_all_tokens_that_it_emitted():
    machine, _ = drafting(3, 1.0, num_blocks=400)
    for request in REQUESTS:
        machine.add(request)
    outputs = []
    while machine.has_work:
        outputs += machine.step()
    check_all([output for _, output in sorted(finals(outputs).items())])
    assert max(len(output.token_ids) for output in outputs) > 3


@settings(max_examples=40, deadline=None, derandomize=True)
@given(request=ANY_REQUESTS, seed=st.integers(0, 9))
def test_every_kind_of_request_may_be_drafted(request: Request, seed: int):
    class Guess(Guesser):
        def guess(self, request: Request, emitted: Sequence[int]) -> list[int]:
            random = Random(100 * seed + len(emitted))
            return [random.choice([*emitted, random.randrange(IMAGE.stop)]) for _ in range(4)]

    config = EngineConfig(max_context=256, num_blocks=400, block_size=4)
    for output in finish(Engine(MODEL, config, drafter=Guess()), [request]):
        reference.check(output, request, MODEL)


@dataclass(frozen=True)
class Picky:
    """Tokens of a mask alone; it raises when it is asked what may follow on another."""

    max_length: int = 12
    exact: bool = False

    def next(self, emitted: Sequence[int]) -> Allow | Stop:
        if any(id % 2 for id in emitted):
            raise LookupError("never allowed")
        mask = torch.arange(TEXT.size) % 2 == 0
        return Allow(TEXT, mask) if len(emitted) < self.max_length else Stop("length")


def test_guesses_outside_a_mask_are_no_drafts():
    class Odd(Guesser):
        def guess(self, request: Request, emitted: Sequence[int]) -> list[int]:
            return [4, 7, 6]

    request = Request((Branch((2, 3)),), Picky(), Sampling(seed=4))
    (expected,) = finish(Engine(MODEL), [request])
    (got,) = finish(Engine(MODEL, drafter=Odd()), [request])
    assert (got.error, got.token_ids) == (None, expected.token_ids)


def test_drafts_preempt_nobody():
    requests = [caption(seed, max_tokens=20, stop_ids=()) for seed in range(4)]

    class Threes(Guesser):
        said = 0

        def guess(self, request: Request, emitted: Sequence[int]) -> list[int]:
            self.said += 1
            return [3] * 6

    for blocks in range(28, 34):
        preemptions, threes = [], Threes()
        for drafter in (None, threes):
            config = EngineConfig(num_blocks=blocks, block_size=4, max_context=256)
            machine = Engine(MODEL, config, drafter=drafter)
            finish(machine, requests)
            preemptions.append(machine.stats.preemptions)
        assert preemptions[0] == preemptions[1] and threes.said > 40


def test_a_step_drafts_no_more_than_it_prefills():
    rows = []

    class Log:
        def stepped(self, record) -> None:
            rows.append(record.tokens)

    class Much(Guesser):
        def guess(self, request: Request, emitted: Sequence[int]) -> list[int]:
            return [50] * 99

    config = EngineConfig(max_context=256, max_batch_tokens=16)
    machine = Engine(MODEL, config, Log(), Much())
    finish(machine, [drawing(seed, length=60) for seed in range(4)])
    assert 16 + 2 * 4 < max(rows) <= 16 + 16 + 2 * 4  # prefill, drafts, and a token of each branch
