"""What goes into the engine and what comes out: requests and outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import isfinite
from operator import index
from typing import Any

from torch import Tensor

from unitok_engine.plans import Allow, FinishReason, Force, Plan


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


def _check_seed(seed: int) -> None:
    if not -(2**63) <= index(seed) < 2**64:
        raise ValueError("seed must fit in 64 bits")


@dataclass(frozen=True)
class Sampling:
    """How the next token is sampled from the mixed logits.

    Each step works on what the one before kept, in the order of repetition penalty, temperature,
    top-k, top-p, min-p.

    Attributes:
        temperature: Divides the logits. 0 takes the best token, and nothing below plays a part.
        top_k: Only the k best tokens are kept; 0 is off.
        top_p: Only the fewest best tokens whose probability reaches it are kept
            (https://arxiv.org/abs/1904.09751); 1 is off.
        seed: Any integer of 64 bits. Seed, sample and index of the token alone decide the noise.
        min_p: Only tokens at least so probable are kept, as a share of the best one's probability
            (https://arxiv.org/abs/2407.01082); 0 is off.
        repetition_penalty: Positive logits of tokens that are in the first branch or were emitted
            are divided by it, negative ones multiplied (https://arxiv.org/abs/1909.05858); 1 is
            off.
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
        _check_seed(self.seed)


@dataclass(frozen=True)
class Request:
    """Branches to continue together under one plan, `n` times.

    Each token is sampled once, from the branches' logits mixed by weight, and goes to all of them.
    Classifier-free guidance at scale s is (conditional, s) and (unconditional, 1 - s).

    Attributes:
        branches: The prompts and their weights, which sum to one.
        plan: What may be emitted.
        sampling: How tokens are sampled.
        n: How many samples are wanted; they differ in their noise alone.
        logprobs: Whether outputs carry `Output.logprobs`.
        branch_logprobs: Whether outputs carry `Output.branch_logprobs`.
        seeds: A seed of each sample's own, instead of that of `sampling`. A sample with a seed of
            its own emits what a request for one sample with this seed emits. () is none. The tries
            of a result have the same seed.
        priority: Waiting requests of a lower number are admitted earlier.
        adapter: The name of an adapter of the model that all of the request is computed with; None
            is none. Requests with different ones share no K/V.
        given: Tokens that are emitted in the place of sampled ones, so that their log-probabilities
            are told. Many of them run in one step. The request ends behind the last one with
            "complete", and a stop token among them is not dropped. () is none.
        tries: How many samples go together, as tries of one result. The tries of a result are the
            samples i, i + n / tries, i + 2 n / tries and so on. What they sample first is drawn
            without replacement (https://arxiv.org/abs/1903.06059), so that all differ there.
        plans: A plan of each sample's own, instead of `plan`; () is none.
        continued: Whether later prompts may go on behind what is emitted, so that its K/V is kept
            for them. That of a picture is of no use to anybody, and would displace what is.
    """

    branches: tuple[Branch, ...]
    plan: Plan
    sampling: Sampling = Sampling()
    n: int = 1
    logprobs: bool = False
    branch_logprobs: bool = False
    seeds: tuple[int, ...] = ()
    priority: int = 0
    adapter: str | None = None
    given: tuple[int, ...] = ()
    tries: int = 1
    plans: tuple[Plan, ...] = ()
    continued: bool = True

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError("a request needs at least one branch")
        total = sum(branch.weight for branch in self.branches)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the branches' weights must sum to 1, not {total:g}")
        if index(self.n) < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")
        if self.seeds and len(self.seeds) != self.n:
            raise ValueError(f"{len(self.seeds)} seeds are not one for each of {self.n} samples")
        if self.plans and len(self.plans) != self.n:
            raise ValueError(f"{len(self.plans)} plans are not one for each of {self.n} samples")
        for seed in self.seeds:
            _check_seed(seed)
        if self.given and self.n != 1:
            raise ValueError(f"samples of given tokens are all the same: n must be 1, not {self.n}")
        if index(self.tries) < 1 or self.n % self.tries:
            raise ValueError(f"n must be a multiple of tries: {self.n} is none of {self.tries}")
        index(self.priority)  # TypeError here, for what is no whole number

    @property
    def any_logprobs(self) -> bool:
        """Whether outputs carry log-probabilities of any kind."""
        return self.logprobs or self.branch_logprobs

    @property
    def max_length(self) -> int:
        """No more tokens than this are ever emitted."""
        return len(self.given) or max(index(plan.max_length) for plan in self.plans or (self.plan,))

    def plan_of(self, sample: int) -> Plan:
        """The plan of a sample."""
        return self.plans[sample] if self.plans else self.plan

    def check_given(self) -> None:
        """See whether the plan can emit the given tokens.

        Raises:
            ValueError: It cannot.
        """
        emitted: list[int] = []
        for id in self.given:
            step = self.plan_of(0).next(emitted)
            here = f"token {len(emitted)} of the given ones"
            if isinstance(step, Allow):
                if not step.allows(id):
                    raise ValueError(f"{here} is {id}, which the plan does not allow there")
            elif not isinstance(step, Force):
                total = len(self.given)
                raise ValueError(f"the plan ends after {len(emitted)} of the {total} given tokens")
            elif step.id != id:
                raise ValueError(f"{here} is {id}, where the plan forces {step.id}")
            emitted.append(id)

    def try_of(self, sample: int) -> tuple[int, int]:
        """The first try of the result that a sample is a try of, and the number of its own."""
        number, first = divmod(sample, self.n // self.tries)
        return first, number

    def noise_of(self, sample: int) -> tuple[int, int]:
        """The seed and the sample number that decide a sample's noise."""
        if not self.seeds:
            return self.sampling.seed, sample
        return self.seeds[sample], self.try_of(sample)[1]


@dataclass(frozen=True, slots=True)
class Output:
    """What one sample of a request emitted since its last output.

    Attributes:
        request_id: The request, as `Engine.add` named it.
        sample: Which of its `n` samples this is.
        token_ids: The new tokens, without a dropped stop token.
        start: How many tokens earlier outputs had: the index of the first of these.
        prompt_tokens: How many tokens the first branch's prompt has.
        finish_reason: How the sample ended, in its last output; None before.
        error: Says in one line what went wrong, if `finish_reason` is "error".
        logprobs: Of each new token under the distribution it was sampled from, after mixing,
            penalty, mask, temperature and filters; at temperature 0, under that of temperature 1
            without filters. None unless the request asks for them, and 0 for forced tokens.
        branch_logprobs: Of each new token under the first branch's own logits of the plan's id
            range, nothing else done to them, as a policy gradient wants. None and 0 as above.
        weight_version: Of the model's weights that the tokens come from, see
            `Engine.weights_changed`.
        cached_tokens: How many tokens of the first branch's prompt were found computed when the
            sample began.
    """

    request_id: int
    sample: int
    token_ids: tuple[int, ...]
    start: int
    prompt_tokens: int
    finish_reason: FinishReason | None = None
    error: str | None = None
    logprobs: tuple[float, ...] | None = None
    branch_logprobs: tuple[float, ...] | None = None
    weight_version: int = 0
    cached_tokens: int = 0

    @property
    def finished(self) -> bool:
        """Whether this is the sample's last output."""
        return self.finish_reason is not None

    @property
    def stop(self) -> int:
        """How many tokens the sample emitted so far."""
        return self.start + len(self.token_ids)


def join_outputs(outputs: Sequence[Output]) -> Output:
    """Several outputs of one sample that follow on each other, as one.

    The time it takes grows with the tokens in them, so many outputs are best joined at once.
    """
    first, last = outputs[0], outputs[-1]
    return replace(
        last,
        token_ids=tuple(chain.from_iterable(output.token_ids for output in outputs)),
        start=first.start,
        logprobs=_joined([output.logprobs for output in outputs]),
        branch_logprobs=_joined([output.branch_logprobs for output in outputs]),
    )


def _joined(columns: Sequence[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    if any(column is None for column in columns):
        return None
    return tuple(chain.from_iterable(column for column in columns if column is not None))
