"""One sample of a request in flight: its branches, what it emitted, and how it ended."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from operator import index

import torch
from torch import Tensor

from unitok_engine.block_pool import ROOT, block_key
from unitok_engine.drafter import SampleDrafter
from unitok_engine.embedding_store import EmbeddingStore
from unitok_engine.ids import IdRange
from unitok_engine.plans import Allow, FinishReason, Force, Stop
from unitok_engine.request import Branch, Output, Request
from unitok_engine.sampler import SampledToken, SamplingInput
from unitok_engine.transfer import send


@dataclass(eq=False)
class BranchState:
    """A branch of a sequence in flight.

    Attributes:
        prompt: The branch of the request.
        blocks: The blocks of its K/V, in order.
        cached: How many of its tokens have their K/V in the blocks.
        keys: Of its full blocks, as far as they were asked for.
        prompt_length: Tokens in the prompt.
    """

    prompt: Branch
    blocks: list[int] = field(default_factory=list[int])
    cached: int = 0
    keys: list[bytes] = field(default_factory=list[bytes])
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.prompt.token_ids)


@dataclass(frozen=True, slots=True)
class Target:
    """A token of a sequence that is to be sampled in a step.

    Attributes:
        offset: How many drafts lie before it; 0 for the next token.
        allow: What may be sampled.
    """

    offset: int
    allow: Allow


class Sequence:
    """The scheduler admits, grows and preempts it; the engine emits tokens into it.

    Drafts are guesses at the tokens that come next. They run behind the pending tokens in the next
    step, which samples a token after each of them; those that turn out right need no step of their
    own (https://arxiv.org/abs/2211.17192).

    Args:
        request_id: The request.
        sample: Which of its samples this is.
        arrival: Its place in the order of arrivals.
        request: What is asked.
        embeddings: Those of the request that are computed.
        id_ranges: Of the model's heads: all that may be emitted.
        share: With whom it shares the engine's work; None is a share of the request's own.
    """

    def __init__(
        self,
        request_id: int,
        sample: int,
        arrival: int,
        request: Request,
        embeddings: EmbeddingStore,
        id_ranges: Iterable[IdRange],
        share: Hashable = None,
    ) -> None:
        self.request_id = request_id
        self.sample = sample
        self.arrival = arrival
        self.priority = index(request.priority)
        # What no caller can give: a share of the request's own.
        self.share = (Sequence, request_id) if share is None else share
        self.request, self.plan = request, request.plan_of(sample)
        self.adapter = request.adapter
        seed, self.noise_sample = request.noise_of(sample)
        self.sampling = replace(request.sampling, seed=seed)
        self._first_sampled: int | None = None  # the index of the first token that is sampled
        self.embeddings = embeddings
        self.id_ranges = id_ranges  # of the model's heads: all that may be emitted
        self.branches = [BranchState(branch) for branch in request.branches]
        self.emitted: list[int] = []
        self.logprobs: list[float] = []
        self.branch_logprobs: list[float] = []
        self.weights = tuple(branch.weight for branch in request.branches)
        # A plan is its caller's code: it is asked here, so that it fails where it was handed in.
        self.max_length = len(request.given) or index(self.plan.max_length)
        self.exact = bool(request.given or self.plan.exact)
        self.targets: list[Target] = []  # what the next step samples
        self.drafts: list[int] = []
        self.drafter: SampleDrafter | None = None  # who guesses; None if nobody does
        self.finish_reason: FinishReason | None = None
        self.error: str | None = None
        self.begun = False  # it was admitted at least once
        self._cached_tokens = 0  # of the first branch, at its first admission
        self.running = False
        self.preempted = False
        self._emitted_at_admission = 0
        self.reported = 0  # tokens that outputs had
        self._dropped = 0
        self._mask: tuple[Tensor, Tensor] | None = None  # a plan's, and the same on the device
        self._seen: tuple[IdRange, Tensor] | None = None
        self._seen_emitted = 0

    @property
    def alone(self) -> Request:
        """A request for this sample alone, as far as its plan goes."""
        if not self.request.plans:
            return self.request
        return replace(self.request, plan=self.plan, plans=(), n=1, tries=1, seeds=())

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.finish_reason is not None

    @property
    def decoding(self) -> bool:
        """Whether it emitted a token since it was admitted; before that, it prefills."""
        return len(self.emitted) > self._emitted_at_admission

    @property
    def preemptible(self) -> bool:
        """Whether it may be preempted.

        One that was must emit a token before its next preemption, so that all end.
        """
        return self.decoding or not self.preempted

    def follows(self, other: "Sequence") -> bool:
        """Whether it arrived after another."""
        return self.arrival > other.arrival

    def length(self, branch: BranchState) -> int:
        """Tokens of a branch: its prompt, and what was emitted."""
        return branch.prompt_length + len(self.emitted)

    def max_cached(self, branch: BranchState) -> int:
        """Tokens of a branch that are ever cached: the last one emitted is never fed."""
        return branch.prompt_length + max(self.max_length, 1) - 1

    def pending(self, branch: BranchState) -> int:
        """Tokens of a branch that are not cached yet, drafts apart."""
        return branch.prompt_length + len(self.emitted) - branch.cached

    def ids(self, branch: BranchState, start: int, stop: int) -> list[int]:
        """A branch's tokens at [start, stop): the prompt, what was emitted, and drafts."""
        found: list[int] = []
        for part in (branch.prompt.token_ids, self.emitted, self.drafts):
            found += part[max(start, 0) : max(stop, 0)]
            start, stop = start - len(part), stop - len(part)
        return found

    def key(self, branch: BranchState, index: int, block_size: int) -> bytes:
        """The key of a branch's full block: of its adapter, and of all that lies up to its end.

        That is the tokens, the embeddings and the positions.
        """
        while len(branch.keys) <= index:
            start = len(branch.keys) * block_size
            stop = start + block_size
            marks = [
                f"{e.start} {e.digest}"
                for e in branch.prompt.embeddings
                if e.start < stop and start < e.stop
            ]
            if start == 0 and branch.prompt.first_position:
                marks.append(f"position {branch.prompt.first_position}")
            if start == 0 and self.adapter is not None:
                marks.append(f"adapter {self.adapter}")
            parent = branch.keys[-1] if branch.keys else ROOT
            branch.keys.append(block_key(parent, self.ids(branch, start, stop), marks))
        return branch.keys[index]

    def begin(self) -> None:
        """Note an admission: from here on it prefills."""
        if not self.begun:
            first = self.branches[0]
            self._cached_tokens = min(first.cached, first.prompt_length)
        self.begun = self.running = True
        self._emitted_at_admission = len(self.emitted)

    def forget(self) -> None:
        """Note a preemption: nothing is cached any more; what was emitted stays."""
        for branch in self.branches:
            branch.cached = 0
        self.drop_drafts()
        self.preempted = True
        self._emitted_at_admission = len(self.emitted)

    def restart(self) -> None:
        """Begin anew after a step that broke off anywhere, from the tokens emitted as a whole."""
        columns = (self.emitted, self.logprobs, self.branch_logprobs)
        whole = min(map(len, columns))
        for column in columns:
            del column[whole:]
        for branch in self.branches:
            branch.blocks, branch.cached, branch.keys = [], 0, []
        self.drop_drafts()
        self.running = self.preempted = False
        self._emitted_at_admission = whole
        self._seen = None
        if not self.finished:
            self.error, self._dropped = None, 0

    def emit(self, token: SampledToken) -> None:
        """Note a token."""
        assert token.id is not None
        self.emitted.append(token.id)
        self.logprobs.append(token.logprob)
        self.branch_logprobs.append(token.branch_logprob)

    def draft(self, guesses: Iterable[int], most: int) -> None:
        """Take guesses at the next tokens, for the next step alone.

        They are kept as far as the plan allows them. What the plan forces or gives between them
        joins them, all of it or none: the tokens of a long row are computed in another way than
        those of a short one, so guesses must not take a part of them into theirs. A repetition
        penalty depends on what was emitted, so it leaves no room for guesses.

        Args:
            guesses: The tokens that may be sampled next, in order.
            most: How many drafts are kept at most, forced and given tokens included.
        """
        if not self._draft_given(most):
            self.drop_drafts()
            return
        if self.request.sampling.repetition_penalty != 1 or not self.targets:
            return
        end, ahead = self._end_of_drafts(most), [*self.emitted, *self.drafts]
        for guess in guesses:
            drafts, targets = len(self.drafts), len(self.targets)
            ahead.append(guess)
            if not self._may_follow(guess) or not self._follow(ahead, end):
                return
            if not self._join_given(ahead, end):
                del self.drafts[drafts:], self.targets[targets:]
                return

    def draft_given(self, most: int) -> bool:
        """Take the next given tokens as drafts, which all turn out right.

        Args:
            most: How many at most.

        Returns:
            Whether these are all of them, up to the next token that is sampled.
        """
        try:
            return self._draft_given(most)
        except Exception:  # a plan is its caller's code; what it raises counts when it is reached
            return True

    def _draft_given(self, most: int) -> bool:
        self.drop_drafts()
        if self.request.sampling.repetition_penalty != 1 or not self.targets:
            return True
        return self._join_given(list(self.emitted), self._end_of_drafts(most))

    def _end_of_drafts(self, most: int) -> int:
        """Where drafts end: the last token that is ever emitted is never fed, so it is no draft."""
        return min(len(self.emitted) + most, self.max_length - 1)

    def _join_given(self, ahead: list[int], end: int) -> bool:
        """Draft the given tokens that come next. It is False if some lie behind the end."""
        while (given := self._given_at(self.targets[-1])) is not None:
            ahead.append(given)
            if not self._follow(ahead, end):
                return len(ahead) <= end or end == self.max_length - 1
        return True

    def _may_follow(self, guess: int) -> bool:
        """Whether a guess may be sampled next."""
        target = self.targets[-1]
        return self._given_at(target) is None and target.allow.allows(guess)

    @property
    def next_is_given(self) -> bool:
        """Whether the next token is given, by the request or by its plan."""
        return bool(self.targets) and self.is_given(self.targets[0])

    def is_given(self, target: Target) -> bool:
        """Whether the token of a target is given instead of sampled."""
        return self._given_at(target) is not None

    def _given_at(self, target: Target) -> int | None:
        """The token that is given at a target; None if it is sampled."""
        if self.request.given:
            return self.request.given[len(self.emitted) + target.offset]
        return target.allow.given

    def _follow(self, ahead: list[int], end: int) -> bool:
        """Draft what lies behind the tokens emitted, and a target behind that.

        It is False if nothing can be sampled there, or not before the end.
        """
        while len(ahead) <= end:
            step = self._next(ahead)
            if isinstance(step, Stop):
                return False
            if isinstance(step, Allow):
                self._check_ids(step.id_range.start, step.id_range.stop)
                self.drafts += ahead[len(self.emitted) + len(self.drafts) :]
                self.targets.append(Target(len(self.drafts), step))
                return True
            self._check_ids(step.id, step.id + 1)
            ahead.append(step.id)
        return False

    @property
    def guesses(self) -> list[int]:
        """The drafts that are to be sampled; the others are forced or given."""
        if not self.drafts:
            return []
        return [self.drafts[t.offset] for t in self.targets[:-1] if not self.is_given(t)]

    def drop_drafts(self) -> None:
        """Let go of all guesses."""
        self.drafts, self.targets = [], self.targets[:1]

    def right_drafts(self, before: int, known: int = 0) -> int:
        """How many drafts turned out right.

        Args:
            before: How many tokens were emitted before the step that ran the drafts.
            known: How many are known to be right; they are not compared again.
        """
        most = min(len(self.drafts), len(self.emitted) - before)
        while known < most and self.drafts[known] == self.emitted[before + known]:
            known += 1
        return known

    def sampling_input(self, target: Target, device: torch.device) -> SamplingInput:
        """What is to be sampled at a target."""
        penalised = self.sampling.repetition_penalty != 1
        mask, at = target.allow.mask, len(self.emitted) + target.offset
        sampling, noise_sample, rank = self.sampling, self.noise_sample, 0
        if self.request.tries > 1 and at == self._first_sampled:
            first, rank = self.request.try_of(self.sample)
            seed, noise_sample = self.request.noise_of(first)
            sampling = replace(sampling, seed=seed)
        return SamplingInput(
            weights=self.weights,
            sampling=sampling,
            sample=noise_sample,
            index=at,
            rank=rank,
            mask=None if mask is None else self._sent(mask, device),
            seen=self._seen_ids(target.allow.id_range, device) if penalised else None,
            logprob=self.request.logprobs,
            branch_logprob=self.request.branch_logprobs,
            given=self._given_at(target),
        )

    def _sent(self, mask: Tensor, device: torch.device) -> Tensor:
        """A plan mostly allows the same again: its mask is sent once."""
        if self._mask is None or self._mask[0] is not mask:
            self._mask = (mask, send(mask, device))
        return self._mask[1]

    def _seen_ids(self, id_range: IdRange, device: torch.device) -> Tensor:
        """bool [id_range.size]: the ids in the first branch's prompt or emitted."""
        if self._seen is None or self._seen[0] != id_range:
            self._seen = (id_range, torch.zeros(id_range.size, dtype=torch.bool, device=device))
            new = [*self.request.branches[0].token_ids, *self.emitted]
        else:
            new = self.emitted[self._seen_emitted :]
        inside = [id - id_range.start for id in new if id in id_range]
        self._seen[1].index_fill_(0, send(torch.tensor(inside, dtype=torch.int64), device), True)
        self._seen_emitted = len(self.emitted)
        return self._seen[1]

    def advance(self) -> None:
        """Follow the plan past forced tokens to what is sampled next, or to the end.

        Raises:
            ValueError: The plan goes on past its own max_length, or wants ids that the model does
                not have, or has in no single head.
        """
        while not isinstance(step := self._next(self.emitted), Stop):
            if len(self.emitted) >= self.max_length:
                raise ValueError(f"the plan goes on past its max_length of {self.max_length}")
            if isinstance(step, Allow):
                self._aim(step)
                return
            self._check_ids(step.id, step.id + 1)
            self.emit(SampledToken(step.id))
        self._dropped = step.drop
        self.finish_reason = step.reason

    def _next(self, emitted: list[int]) -> Allow | Force | Stop:
        """What the plan wants, or the end behind the last token that is given."""
        if self.request.given and len(emitted) >= len(self.request.given):
            return Stop("complete")
        return self.plan.next(emitted)

    def _aim(self, allow: Allow) -> None:
        if self._first_sampled is None:
            self._first_sampled = len(self.emitted)
        if not self.targets or self.targets[0].allow is not allow:
            self._check_ids(allow.id_range.start, allow.id_range.stop)
            self.targets[:1] = [Target(0, allow)]

    def _check_ids(self, start: int, stop: int) -> None:
        if not any(r.start <= start and stop <= r.stop for r in self.id_ranges):
            raise ValueError(
                f"the plan wants ids {start}..{stop - 1}, which no head of the model has"
            )

    def fail(self, error: BaseException | str) -> None:
        """End it with an error."""
        self.error = one_line(error)
        self.finish_reason = "error"

    def report(self, weight_version: int) -> Output:
        """What was emitted since `reported`, with weights of this version."""
        new = slice(self.reported, len(self.emitted) - self._dropped)
        request = self.request
        return Output(
            request_id=self.request_id,
            sample=self.sample,
            token_ids=tuple(self.emitted[new]),
            start=self.reported,
            prompt_tokens=self.branches[0].prompt_length,
            finish_reason=self.finish_reason,
            error=self.error,
            logprobs=tuple(self.logprobs[new]) if request.logprobs else None,
            branch_logprobs=tuple(self.branch_logprobs[new]) if request.branch_logprobs else None,
            weight_version=weight_version,
            cached_tokens=self._cached_tokens,
        )


def one_line(error: BaseException | str) -> str:
    """What an error says, or what it is."""
    return " ".join(str(error).split()) or type(error).__name__
