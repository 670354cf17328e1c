"""One sample of a request in flight: its branches, what it emitted, and how it ended."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from operator import index

import torch
from torch import Tensor

from unitok_engine.block_pool import ROOT, block_key
from unitok_engine.embeddings import FeatureStore
from unitok_engine.request import (
    Allow,
    Branch,
    FinishReason,
    IdRange,
    Output,
    Request,
    Stop,
)
from unitok_engine.sampler import Choice, Pick
from unitok_engine.transfer import send


@dataclass(eq=False)
class BranchState:
    """A branch of a sequence in flight.

    Attributes:
        prompt: The branch of the request.
        blocks: The blocks of its K/V, in order.
        cached: How many of its tokens have their K/V in the blocks.
        keys: Of its full blocks, as far as they were asked for.
        prompt_length: Tokens of the prompt.
    """

    prompt: Branch
    blocks: list[int] = field(default_factory=list)
    cached: int = 0
    keys: list[bytes] = field(default_factory=list)
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.prompt.token_ids)


class Sequence:
    """The scheduler admits, grows and preempts it; the engine emits ids into it."""

    def __init__(
        self,
        request_id: int,
        sample: int,
        arrival: int,
        request: Request,
        features: FeatureStore,
        id_ranges: Iterable[IdRange],
        share: Hashable = None,
    ) -> None:
        self.request_id = request_id
        self.sample = sample
        self.arrival = arrival
        # What no caller can give: a share of the request's own.
        self.share = (Sequence, request_id) if share is None else share
        self.request = request
        self.features = features
        self.id_ranges = id_ranges  # of the model's heads: all that may be emitted
        self.branches = [BranchState(branch) for branch in request.branches]
        self.emitted: list[int] = []
        self.logprobs: list[float] = []
        self.branch_logprobs: list[float] = []
        self.weights = tuple(branch.weight for branch in request.branches)
        # A plan is its caller's code: it is asked here, so that it fails where it was handed in.
        self.max_length, self.exact = index(request.plan.max_length), request.plan.exact
        self.allow: Allow | None = None
        self.finish_reason: FinishReason | None = None
        self.error: str | None = None
        self.running = False
        self.preempted = False
        self._emitted_at_admission = 0
        self.reported = 0  # ids that outputs have told
        self._dropped = 0
        self._mask: tuple[Tensor, Tensor] | None = None  # a plan's, and the same on the device
        self._seen: tuple[IdRange, Tensor] | None = None
        self._seen_emitted = 0

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def decoding(self) -> bool:
        """It has sampled an id since it was admitted; before that, it prefills."""
        return len(self.emitted) > self._emitted_at_admission

    @property
    def preemptible(self) -> bool:
        """A preempted sequence must emit an id before its next preemption, so that all end."""
        return self.decoding or not self.preempted

    def follows(self, other: "Sequence") -> bool:
        """Whether it arrived after another."""
        return self.arrival > other.arrival

    def length(self, branch: BranchState) -> int:
        return branch.prompt_length + len(self.emitted)

    def max_cached(self, branch: BranchState) -> int:
        """Ids of the branch that are ever cached: the last one emitted is never fed."""
        return branch.prompt_length + max(self.max_length, 1) - 1

    def pending(self, branch: BranchState) -> int:
        return branch.prompt_length + len(self.emitted) - branch.cached

    def ids(self, branch: BranchState, start: int, stop: int) -> list[int]:
        """The branch's ids at [start, stop), prompt first, then what was emitted."""
        prompt = branch.prompt_length
        if start >= prompt:
            return self.emitted[start - prompt : stop - prompt]
        return [*branch.prompt.token_ids[start:stop], *self.emitted[: max(stop - prompt, 0)]]

    def key(self, branch: BranchState, index: int, block_size: int) -> bytes:
        """The key of the branch's full block `index`: of all ids, features and positions up to it."""
        while len(branch.keys) <= index:
            start = len(branch.keys) * block_size
            stop = start + block_size
            marks = [
                f"{features.start} {features.digest}"
                for features in branch.prompt.embeddings
                if features.start < stop and start < features.stop
            ]
            if start == 0 and branch.prompt.first_position:
                marks.append(f"position {branch.prompt.first_position}")
            parent = branch.keys[-1] if branch.keys else ROOT
            branch.keys.append(block_key(parent, self.ids(branch, start, stop), marks))
        return branch.keys[index]

    def begin(self) -> None:
        """Note an admission: from here on it prefills."""
        self.running = True
        self._emitted_at_admission = len(self.emitted)

    def forget(self) -> None:
        """Note a preemption: nothing is cached any more; what was emitted stays."""
        for branch in self.branches:
            branch.cached = 0
        self.preempted = True
        self._emitted_at_admission = len(self.emitted)

    def restart(self) -> None:
        """Begin anew after a step that broke off anywhere, from the ids that were emitted whole."""
        columns = (self.emitted, self.logprobs, self.branch_logprobs)
        whole = min(map(len, columns))
        for column in columns:
            del column[whole:]
        for branch in self.branches:
            branch.blocks, branch.cached, branch.keys = [], 0, []
        self.running = self.preempted = False
        self._emitted_at_admission = whole
        self._seen = None
        if not self.finished:
            self.error, self._dropped = None, 0

    def emit(self, choice: Choice) -> None:
        assert choice.id is not None
        self.emitted.append(choice.id)
        self.logprobs.append(choice.logprob)
        self.branch_logprobs.append(choice.branch_logprob)

    def pick(self, device: torch.device) -> Pick:
        """What is to be sampled next."""
        assert self.allow is not None
        sampling = self.request.sampling
        penalised = sampling.repetition_penalty != 1
        mask = self.allow.mask
        return Pick(
            weights=self.weights,
            sampling=sampling,
            sample=self.sample,
            index=len(self.emitted),
            mask=None if mask is None else self._sent(mask, device),
            seen=self._seen_ids(self.allow.id_range, device) if penalised else None,
            logprob=self.request.logprobs,
            branch_logprob=self.request.branch_logprobs,
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
        """Follow the plan past forced ids to what is sampled next, or to the end.

        Raises ValueError if the plan goes on past its own max_length, or wants ids that the model
        does not have, or has in no single head.
        """
        plan = self.request.plan
        while not isinstance(step := plan.next(self.emitted), Stop):
            if len(self.emitted) >= self.max_length:
                raise ValueError(f"the plan goes on past its max_length of {self.max_length}")
            if isinstance(step, Allow):
                if step is not self.allow:
                    self._check_ids(step.id_range.start, step.id_range.stop)
                self.allow = step
                return
            self._check_ids(step.id, step.id + 1)
            self.emit(Choice(step.id))
        self._dropped = step.drop
        self.finish_reason = step.reason

    def _check_ids(self, start: int, stop: int) -> None:
        if not any(r.start <= start and stop <= r.stop for r in self.id_ranges):
            raise ValueError(
                f"the plan wants ids {start}..{stop - 1}, which no head of the model has"
            )

    def fail(self, error: BaseException | str) -> None:
        self.error = one_line(error)
        self.finish_reason = "error"

    def report(self) -> Output:
        """What was emitted; new is what lies behind `reported`."""
        kept = len(self.emitted) - self._dropped
        ids = tuple(self.emitted[:kept])
        return Output(
            request_id=self.request_id,
            sample=self.sample,
            ids=ids,
            new_ids=ids[self.reported :],
            prompt_tokens=len(self.branches[0].prompt.token_ids),
            finish_reason=self.finish_reason,
            error=self.error,
            logprobs=tuple(self.logprobs[:kept]) if self.request.logprobs else None,
            branch_logprobs=(
                tuple(self.branch_logprobs[:kept]) if self.request.branch_logprobs else None
            ),
        )


def one_line(error: BaseException | str) -> str:
    """What an error says, or what it is."""
    return " ".join(str(error).split()) or type(error).__name__
