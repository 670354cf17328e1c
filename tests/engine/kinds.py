"""Requests of every kind to the tiny model, and plans that no family has but any caller may."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st

from tests.engine.tiny import IMAGE, TEXT, vectors
from unitok_engine import (
    Allow,
    Branch,
    Embeddings,
    FixedPlan,
    Force,
    FreePlan,
    Plan,
    Request,
    Sampling,
    Stop,
)

MASK = torch.arange(TEXT.size) % 3 != 1


@dataclass(frozen=True)
class RowsPlan:
    """Rows of two image ids, each closed by a forced end of row."""

    rows: int
    end: int = 39

    @property
    def max_length(self) -> int:
        return 3 * self.rows

    exact = True

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        if len(emitted) == self.max_length:
            return Stop("complete")
        return Force(self.end) if len(emitted) % 3 == 2 else Allow(IMAGE)


@dataclass(frozen=True)
class MixedPlan:
    """Text, then two forced ids, then a picture, in one line; its length depends on the text."""

    max_text: int
    picture: int

    @property
    def max_length(self) -> int:
        return self.max_text + 2 + self.picture

    exact = False

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        start = next((i + 1 for i, id in enumerate(emitted) if id % 4 == 0), self.max_text)
        start = min(start, self.max_text)
        if len(emitted) < start:
            return Allow(TEXT)
        if len(emitted) < start + 2:
            return Force(37 + len(emitted) - start)
        return Stop("complete") if len(emitted) == start + 2 + self.picture else Allow(IMAGE)


def picture(name: str, start: int, length: int) -> Embeddings:
    seed = sum(name.encode()) + length
    return Embeddings(start, length, f"{name} {length}", lambda: vectors(seed, length))


def _branch(length: int, last: int, pictures: Sequence[str], first_position: int) -> Branch:
    """Lines that begin alike more often than not."""
    features = tuple(picture(name, 1 + 6 * i, 5) for i, name in enumerate(pictures))
    ids = (*((7 * i) % 38 + 2 for i in range(length - 1)), last)
    return Branch(ids, 1.0, features, first_position)


BRANCHES = st.one_of(
    st.builds(_branch, st.integers(1, 22), st.integers(2, 3), st.just(()), st.sampled_from([0, 2])),
    st.builds(
        _branch,
        st.integers(12, 16),
        st.integers(2, 3),
        st.sampled_from([("cat",), ("dog",), ("cat", "dog"), ("cat", "cat")]),
        st.just(0),
    ),
)
PLANS: st.SearchStrategy[Plan] = st.one_of(
    st.builds(FixedPlan, st.just(IMAGE), st.integers(1, 9)),
    st.builds(
        FreePlan,
        st.just(TEXT),
        st.sampled_from([frozenset(), frozenset({2, 6, 12, 20})]),
        st.integers(1, 12),
        st.sampled_from([None, MASK]),
    ),
    st.builds(RowsPlan, st.integers(1, 3)),
    st.builds(MixedPlan, st.integers(1, 4), st.integers(1, 4)),
)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.6, 1.0]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([1.0, 0.7]),
    seed=st.integers(0, 99),
    min_p=st.sampled_from([0.0, 0.03]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
)


def _request(
    branches: Sequence[Branch],
    plan: Plan,
    sampling: Sampling,
    n: int,
    logprobs: bool,
    branch_logprobs: bool,
    seeds: Sequence[int],
    priority: int,
) -> Request:
    weights = {1: (1.0,), 2: (2.5, -1.5), 3: (2.0, -1.5, 0.5)}[len(branches)]
    weighted = tuple(replace(b, weight=w) for b, w in zip(branches, weights, strict=True))
    own = tuple(seeds[:n])  # of each sample, or none
    return Request(weighted, plan, sampling, n, logprobs, branch_logprobs, own, priority)


REQUESTS = st.builds(
    _request,
    st.lists(BRANCHES, min_size=1, max_size=3),
    PLANS,
    SAMPLINGS,
    st.sampled_from([1, 1, 1, 2, 3]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(), (), (4, 4, 9), (7, 8, 7)]),
    st.sampled_from([0, 0, -1, 3]),
)
