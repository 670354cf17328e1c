"""What goes into the engine and what comes out: requests, their plans, and outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from operator import index
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

FinishReason = Literal["stop", "length", "complete", "abort", "error"]


@dataclass(frozen=True)
class IdRange:
    """The ids `start <= id < stop`."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"an id range needs 0 <= start < stop, not {self.start}..{self.stop}")

    @property
    def size(self) -> int:
        return self.stop - self.start

    def __contains__(self, id: int) -> bool:
        return self.start <= id < self.stop


@dataclass(frozen=True, eq=False)
class Allow:
    """Sample the next id from a range; `mask` is bool [id_range.size], True where allowed."""

    id_range: IdRange
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask is None:
            return
        if self.mask.shape != (self.id_range.size,):
            raise ValueError(f"mask must be [{self.id_range.size}], not {list(self.mask.shape)}")
        if self.mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool, not {self.mask.dtype}")
        if not self.mask.any():
            raise ValueError("mask allows no id at all")


@dataclass(frozen=True)
class Force:
    """The next id is this one; nothing is sampled."""

    id: int


@dataclass(frozen=True)
class Stop:
    """The line ends; its last `drop` ids (a stop id) are not part of the output."""

    reason: FinishReason
    drop: int = 0

    def __post_init__(self) -> None:
        if self.reason not in get_args(FinishReason):
            raise ValueError(f"a line cannot end with the reason {self.reason!r}")


class Plan(Protocol):
    """What a request may emit: a deterministic function of the ids emitted so far.

    The engine calls `next` once per emitted id, with the whole list, which it must not change;
    after a step that broke off it asks again.
    """

    @property
    def max_length(self) -> int:
        """No more ids than this are ever emitted, forced and dropped ones counted."""
        ...

    @property
    def exact(self) -> bool:
        """Exactly `max_length` ids are emitted, so the engine reserves room for all of them."""
        ...

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop: ...


@dataclass(frozen=True, eq=False)
class FreePlan:
    """Ids from a range until a stop id ("stop", dropped) or `max_tokens` ids ("length").

    mask: bool [id_range.size], True where allowed; None allows the whole range.
    """

    id_range: IdRange
    stop_ids: frozenset[int]
    max_tokens: int
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if index(self.max_tokens) < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")
        outside = [id for id in self.stop_ids if id not in self.id_range]
        if outside:
            raise ValueError(f"stop id {outside[0]} lies outside the plan's id range")
        _ = self.allow  # which checks the mask

    @cached_property
    def allow(self) -> Allow:
        return Allow(self.id_range, self.mask)

    @property
    def max_length(self) -> int:
        return self.max_tokens

    @property
    def exact(self) -> bool:
        return False

    def next(self, emitted: Sequence[int]) -> Allow | Stop:
        if emitted and emitted[-1] in self.stop_ids:
            return Stop("stop", drop=1)
        if len(emitted) >= self.max_tokens:
            return Stop("length")
        return self.allow


@dataclass(frozen=True)
class FixedPlan:
    """Exactly `length` ids from a range ("complete")."""

    id_range: IdRange
    length: int

    def __post_init__(self) -> None:
        if index(self.length) < 1:
            raise ValueError(f"length must be at least 1, not {self.length}")

    @property
    def max_length(self) -> int:
        return self.length

    @property
    def exact(self) -> bool:
        return True

    def next(self, emitted: Sequence[int]) -> Allow | Stop:
        return Stop("complete") if len(emitted) >= self.length else self._allow

    @cached_property
    def _allow(self) -> Allow:  # one for all: it is asked for at every step
        return Allow(self.id_range)


@dataclass(frozen=True)
class Embeddings:
    """Vectors that stand in for the token ids at [start, start + length) of a branch.

    They are computed lazily, at most once per request, when a prefill chunk first needs them. Equal
    digests mean equal vectors, so branches that begin alike share the work and the cache.

    Attributes:
        start: The index of the first token id they stand in for.
        length: How many token ids they stand in for.
        digest: Names the content.
        compute: Gives the vectors, [length, d].
        payload: What `compute_many` takes for these vectors.
        compute_many: Gives the vectors of several payloads. Embeddings of one step with the same
            function are computed in one call of it, and one by one if that raises.
        placeholder: The token id that prompts hold in their places. It is embedded and overwritten,
            so any id that the model can embed will do.
    """

    start: int
    length: int
    digest: str
    compute: Callable[[], Tensor]
    payload: Any = None
    compute_many: Callable[[Sequence[Any]], Sequence[Tensor]] | None = None
    placeholder: int = 0

    def __post_init__(self) -> None:
        if self.start < 0 or self.length < 1:
            raise ValueError("embeddings need start >= 0 and length >= 1")
        hash(self.compute_many)  # they are grouped by it: TypeError for what has no hash

    @property
    def stop(self) -> int:
        """The index behind the last token id they stand in for."""
        return self.start + self.length


@dataclass(frozen=True)
class Branch:
    """A prompt to continue, whose logits count by `weight` among those of a request's branches.

    Attributes:
        token_ids: The prompt.
        weight: Of its logits. The weights of a request's branches sum to one.
        embeddings: What stands in for some of the token ids.
        first_position: The position of the first token id; the one at index i has position
            `first_position + i`.
    """

    token_ids: tuple[int, ...]
    weight: float = 1.0
    embeddings: tuple[Embeddings, ...] = ()
    first_position: int = 0

    def __post_init__(self) -> None:
        if not self.token_ids:
            raise ValueError("a branch needs at least one token id")
        if self.first_position < 0:
            raise ValueError("first_position must not be negative")
        if not isfinite(self.weight):
            raise ValueError("a branch's weight must be finite")
        end = 0
        for embeddings in sorted(self.embeddings, key=lambda embeddings: embeddings.start):
            if embeddings.start < end or embeddings.stop > len(self.token_ids):
                raise ValueError("embeddings overlap or lie outside the branch's token ids")
            end = embeddings.stop


@dataclass(frozen=True)
class Sampling:
    """How the next id is drawn from the mixed logits; each step works on what the one before kept.

    repetition_penalty: positive logits of ids that are in the first branch or were emitted are
    divided by it, negative ones multiplied (https://arxiv.org/abs/1909.05858); 1 is off.
    temperature: 0 takes the best id, and nothing below plays a part.
    top_k: only the k best ids; 0 is off. top_p: only the fewest best ids whose probability reaches
    it; 1 is off. min_p: only ids at least so probable, as a share of the best one's probability
    (https://arxiv.org/abs/2407.01082); 0 is off.
    seed: any 64-bit one; sample, index of the id and seed alone decide the draw.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        if index(self.top_k) < 0:
            raise ValueError(f"top_k must be 0 (off) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, not {self.min_p}")
        if not (isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            penalty = self.repetition_penalty
            raise ValueError(f"repetition_penalty must be above 0, not {penalty}")
        if not -(2**63) <= index(self.seed) < 2**64:
            raise ValueError("seed must fit in 64 bits")


@dataclass(frozen=True)
class Request:
    """Branches to continue together under one plan, `n` times.

    Each id is sampled once, from the branches' logits mixed by weight, and goes to all of them:
    classifier-free guidance at scale s is (conditional, s) and (unconditional, 1 - s).
    logprobs, branch_logprobs: whether outputs tell them, see `Output`.
    """

    branches: tuple[Branch, ...]
    plan: Plan
    sampling: Sampling = Sampling()
    n: int = 1
    logprobs: bool = False
    branch_logprobs: bool = False

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError("a request needs at least one branch")
        total = sum(branch.weight for branch in self.branches)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the branches' weights must sum to 1, not {total:g}")
        if index(self.n) < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")


@dataclass(frozen=True)
class Output:
    """What one sample of a request has emitted so far.

    ids: all of them, without a dropped stop id; new_ids: those since the last output.
    prompt_tokens: ids in the first branch's prompt. error: one line, if finish_reason is "error".
    logprobs: of each id under the distribution it was drawn from, after mixing, penalty, mask,
    temperature and filters; at temperature 0, under that of temperature 1 without filters.
    branch_logprobs: under the first branch's own logits of the plan's id range, nothing else done
    to them: what a policy gradient wants. Both are 0 for forced ids, and None unless asked for.
    """

    request_id: int
    sample: int
    ids: tuple[int, ...]
    new_ids: tuple[int, ...]
    prompt_tokens: int
    finish_reason: FinishReason | None = None
    error: str | None = None
    logprobs: tuple[float, ...] | None = None
    branch_logprobs: tuple[float, ...] | None = None

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None
