"""The whole engine under random use, against a plain reference of what each request must give."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch import Tensor

from tests.engine import reference
from tests.engine.kinds import REQUESTS
from tests.engine.tiny import IMAGE, TEXT, TinyModel, engine, finals
from unitok_engine import (
    Allow,
    Branch,
    CacheView,
    Embeddings,
    FixedPlan,
    Force,
    Output,
    Request,
)

MODEL = TinyModel()


class Flaky(TinyModel):
    """Raises out of its forward, after it wrote K/V, when told to."""

    broken = False

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        hidden = super().forward(hidden, positions, cache)
        if self.broken:
            self.broken = False
            raise MemoryError("out of memory")
        return hidden


@dataclass(frozen=True)
class Failing:
    """Text, until after some ids something goes wrong."""

    good: int
    wrong: Any
    max_length: int = 9
    exact: bool = False

    def next(self, emitted: Sequence[int]) -> Any:
        if len(emitted) < self.good:
            return Allow(TEXT)
        if isinstance(self.wrong, Exception):
            raise self.wrong
        return self.wrong


def gone() -> Tensor:
    raise OSError("the picture is gone")


def poisoned(name: str) -> Embeddings:
    return Embeddings(3, 2, name, lambda: torch.full((2, MODEL.table.shape[1]), torch.nan))


def with_features(request: Request, features: Embeddings) -> Request:
    branch = Branch(tuple(range(2, 14)), embeddings=(features,))
    return replace(request, branches=(branch,))


FAILING_PLANS = st.builds(
    Failing, st.integers(0, 4), st.sampled_from([KeyError("state"), Force(99), Force(-1), None])
)
NEVER_ENDING = st.builds(Failing, st.just(99), st.none())
BAD_REQUESTS = st.one_of(
    st.builds(
        lambda r, plan: replace(r, plan=plan), REQUESTS, st.one_of(FAILING_PLANS, NEVER_ENDING)
    ),
    st.builds(lambda r: with_features(r, Embeddings(2, 3, "gone", gone)), REQUESTS),
    st.builds(lambda r, i: with_features(r, poisoned(f"nan {i}")), REQUESTS, st.integers(0, 2)),
)
REFUSED = [
    Request((Branch((2, 72)),), FixedPlan(IMAGE, 3)),
    Request((Branch((2,) * 200),), FixedPlan(IMAGE, 90)),
    Request((Branch((2,) * 100),), FixedPlan(IMAGE, 130)),
]


class EngineMachine(RuleBasedStateMachine):
    """Adds, steps, aborts and fails at random."""

    @initialize(
        num_blocks=st.integers(40, 56),
        budget=st.sampled_from([1, 3, 8, 100]),
        max_running=st.sampled_from([3, 6, 100]),
        caching=st.booleans(),
        preempt=st.booleans(),
    )
    def start(self, num_blocks, budget, max_running, caching, preempt) -> None:
        self.model = Flaky()
        self.engine = engine(
            self.model,
            num_blocks=num_blocks,
            max_batch_tokens=budget,
            max_running=max_running,
            prefix_caching=caching,
            preempt_every_step=preempt,
        )
        self.requests: dict[int, Request] = {}
        self.bad: set[int] = set()
        self.aborted: set[int] = set()
        self.outputs: list[Output] = []
        self.raised = 0  # steps

    @rule(request=REQUESTS, share=st.sampled_from([None, None, "a", "b"]))
    def add(self, request: Request, share: str | None) -> None:
        self.requests[self.engine.add(request, share)] = request

    @rule(request=BAD_REQUESTS)
    def add_bad(self, request: Request) -> None:
        request_id = self.engine.add(request)
        self.requests[request_id] = request
        self.bad.add(request_id)

    @rule(request=st.sampled_from(REFUSED))
    def add_refused(self, request: Request) -> None:
        with pytest.raises(ValueError):
            self.engine.add(request)

    @rule()
    def step(self) -> None:
        self.outputs += self.engine.step()

    @rule()
    def step_that_raises(self) -> None:
        self.model.broken = True
        try:
            self.outputs += self.engine.step()
            assert self.model.broken  # there was nothing to run
        except MemoryError:
            self.raised += 1
            assert self.engine.stats.running == 0
        self.model.broken = False

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from([*self.requests, 10**6]))
        self.engine.abort(request_id)
        self.aborted.add(request_id)

    @invariant()
    def references_are_those_of_the_lines_that_run(self) -> None:
        running = self.engine._scheduler.running
        held = Counter(b for s in running for branch in s.branches for b in branch.blocks)
        pool = self.engine._pool
        assert [pool.references(b) for b in range(pool.num_blocks)] == [
            held[b] for b in range(pool.num_blocks)
        ]
        assert pool.free_count == pool.num_blocks - len(held)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for _ in range(3000):
            if not self.engine.has_work:
                break
            self.outputs += self.engine.step()
        machine, scheduler = self.engine, self.engine._scheduler
        assert not machine.has_work
        assert machine.stats.free_blocks == machine.config.num_blocks
        for left in (scheduler._samples, scheduler._prefixes._computing, scheduler._copy_on_write):
            assert not left
        assert not machine._untold and not machine._unplanned
        self.check_outputs()

    def check_outputs(self) -> None:
        ended = finals(self.outputs)  # which sees that tokens follow on each other
        for request_id, request in self.requests.items():
            assert not self.engine.is_alive(request_id)
            for sample in range(request.n):
                output = ended.pop((request_id, sample))
                if output.finish_reason == "abort":
                    assert request_id in self.aborted
                elif request_id in self.bad:
                    assert output.finish_reason == "error" and output.error
                elif output.error is not None and "out of memory in a step" in output.error:
                    assert self.raised >= 2  # and it ran alone, as small as may be
                else:
                    assert output.error is None
                    reference.check(output, request, MODEL)
        assert not ended


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, derandomize=True
)
