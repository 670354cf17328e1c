"""From the branches' logits to one token per sequence, all in fp32.

A token is sampled by Gumbel-max: the largest logit plus noise, where the noise is a hash of (seed,
sample, index of the generated token, token id). So it depends on nothing else in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from unitok_engine.ids import IdRange
from unitok_engine.noise import noise_at
from unitok_engine.request import Sampling
from unitok_engine.transfer import constant, send

_GREEDY = Sampling(temperature=0)
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, eq=False, slots=True)
class SamplingInput:
    """What is to be sampled for one sequence.

    Attributes:
        weights: Of its branches.
        sampling: How.
        sample: The sample number of `Request.noise_of`; with the seed and `index`, it decides the
            noise.
        index: How many tokens the sequence emitted before.
        mask: Bool [id_range.size], the ids that are allowed; None allows all.
        seen: Bool [id_range.size], the ids that the repetition penalty is for; None is no penalty.
        logprob: Whether `SampledToken.logprob` is wanted.
        branch_logprob: Whether `SampledToken.branch_logprob` is wanted.
        given: The id that is taken without sampling; None samples.
        rank: How many better ids are passed over, as far as there are so many that are allowed.
    """

    weights: tuple[float, ...]
    sampling: Sampling
    sample: int
    index: int
    mask: Tensor | None = None
    seen: Tensor | None = None
    logprob: bool = False
    branch_logprob: bool = False
    given: int | None = None
    rank: int = 0


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A token that was sampled.

    Attributes:
        id: The token id; None where the mixed logits were not finite.
        logprob: See `Output.logprobs`; 0 unless asked for.
        branch_logprob: See `Output.branch_logprobs`; 0 unless asked for.
    """

    id: int | None
    logprob: float = 0.0
    branch_logprob: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class PendingSample:
    """Tokens that were sampled for inputs of one range, still on the device, which may be busy.

    Attributes:
        inputs: What was asked for.
        ids: [s] int64, -1 where the mixed logits were not finite.
        logprobs: [s] fp32; None if no input asks for them.
        branch_logprobs: [s] fp32; None if no input asks for them.
    """

    inputs: Sequence[SamplingInput]
    ids: Tensor
    logprobs: Tensor | None = None
    branch_logprobs: Tensor | None = None


def sample(logits: Tensor, id_range: IdRange, inputs: Sequence[SamplingInput]) -> PendingSample:
    """Sample a token of the range for every input, without waiting for the device.

    Args:
        logits: [sum of branches, id_range.size], input by input, branch by branch.
        id_range: What is sampled from.
        inputs: What is to be sampled.
    """
    mixed = mix(logits, [input.weights for input in inputs])
    # Zero times what is not finite is not zero.
    finite = (mixed * 0).sum(dim=1) == 0
    scores = _penalised(mixed, inputs)
    # New memory takes longer than the masks: what is not the caller's is written to.
    scores = _masked(scores, inputs, scores.data_ptr() != logits.data_ptr())
    scores = filtered(scores, inputs)
    ids = _ids(scores, id_range, inputs)
    logprobs = branch_logprobs = None
    if any(input.logprob for input in inputs):
        logprobs = _logprobs(scores, ids - id_range.start)
    if any(input.branch_logprob for input in inputs):
        own = logits[_first_rows(inputs, logits.device)].float()
        branch_logprobs = _logprobs(own, ids - id_range.start)
    return PendingSample(inputs, torch.where(finite, ids, -1), logprobs, branch_logprobs)


def collect(pending: Sequence[PendingSample]) -> list[SampledToken]:
    """The sampled tokens of all inputs, in order: waits for the device, in one transfer."""
    if not pending:
        return []
    if all(p.logprobs is None and p.branch_logprobs is None for p in pending):
        return [_token(id) for id in torch.cat([p.ids for p in pending]).tolist()]
    # Ids stay exact in fp64.
    table = torch.cat([torch.stack([x.double() for x in _columns(p)]) for p in pending], dim=1)
    inputs = [input for p in pending for input in p.inputs]
    return [
        _token(
            int(id),
            logprob if input.logprob else 0.0,
            branch_logprob if input.branch_logprob else 0.0,
        )
        for input, id, logprob, branch_logprob in zip(inputs, *table.tolist(), strict=True)
    ]


def _logprobs(scores: Tensor, chosen: Tensor) -> Tensor:
    """[s], of the column chosen in each row of scores [s, size]."""
    return scores.log_softmax(dim=1).gather(1, chosen[:, None])[:, 0]


def _columns(pending: PendingSample) -> tuple[Tensor, Tensor, Tensor]:
    nothing = torch.zeros_like(pending.ids)
    logprobs, branch_logprobs = pending.logprobs, pending.branch_logprobs
    return (
        pending.ids,
        nothing if logprobs is None else logprobs,
        nothing if branch_logprobs is None else branch_logprobs,
    )


def _token(id: int, logprob: float = 0.0, branch_logprob: float = 0.0) -> SampledToken:
    return SampledToken(id, logprob, branch_logprob) if id >= 0 else SampledToken(None)


def mix(logits: Tensor, weights: Sequence[tuple[float, ...]]) -> Tensor:
    """The weighted sums of branches: [sum of branches, size] -> [sequences, size]."""
    logits = logits.float()
    if all(row == (1.0,) for row in weights):
        return logits
    count = len(weights[0])
    if any(len(row) != count for row in weights):
        return _mix_unequal(logits, weights)
    first, *others = logits.view(-1, count, logits.shape[1]).unbind(1)
    mixed = first * _column([row[0] for row in weights], logits)
    for branch, other in enumerate(others, 1):
        mixed += other * _column([row[branch] for row in weights], logits)
    return mixed


def _mix_unequal(logits: Tensor, weights: Sequence[Sequence[float]]) -> Tensor:
    """`mix` for sequences of different numbers of branches, with the same roundings."""
    starts = [0]
    for row in weights:
        starts.append(starts[-1] + len(row))
    first = _index(starts[:-1], logits.device)
    mixed = logits[first] * _column([row[0] for row in weights], logits)
    # Branch by branch, each sequence at most once: the order of the sum never varies.
    for branch in range(1, max(map(len, weights))):
        owners = [i for i, row in enumerate(weights) if len(row) > branch]
        rows = _index([starts[i] + branch for i in owners], logits.device)
        part = logits[rows] * _column([weights[i][branch] for i in owners], logits)
        mixed.index_add_(0, _index(owners, logits.device), part)
    return mixed


def filtered(scores: Tensor, inputs: Sequence[SamplingInput]) -> Tensor:
    """Scores [s, size] after temperature and filters: -inf for what they leave out.

    Rows of temperature 0 stay as at temperature 1, unfiltered.
    """
    samplings = [input.sampling for input in inputs]
    if all(s.temperature == 0 for s in samplings):
        return scores
    # From the row's best, so that no small temperature can overflow; none becomes 0 in fp32.
    temperatures = _column(
        [max(s.temperature, _TINY) if s.temperature else 1 for s in samplings], scores
    )
    scores = (scores - scores.amax(dim=1, keepdim=True)) / temperatures
    active = [s if s.temperature > 0 else _GREEDY for s in samplings]
    if any(s.top_k or s.top_p < 1 for s in active):
        limit = cutoff(scores, [s.top_k for s in active], [s.top_p for s in active])
        scores = scores.masked_fill(scores < limit, -torch.inf)
    if any(s.min_p > 0 for s in active):  # the best score is 0
        limit = _column([log(s.min_p) if s.min_p > 0 else -torch.inf for s in active], scores)
        scores = scores.masked_fill(scores < limit, -torch.inf)
    return scores


def _ids(scores: Tensor, id_range: IdRange, inputs: Sequence[SamplingInput]) -> Tensor:
    """Ids [s], those that are given and those that are chosen."""
    free = [row for row, input in enumerate(inputs) if input.given is None]
    if len(free) == len(inputs):
        return choose(scores, id_range, inputs)
    ids = send(torch.tensor([i.given or 0 for i in inputs]), scores.device)
    if free:
        rows = send(torch.tensor(free), scores.device)
        ids[rows] = choose(scores[rows], id_range, [inputs[row] for row in free])
    return ids


def choose(scores: Tensor, id_range: IdRange, inputs: Sequence[SamplingInput]) -> Tensor:
    """Ids [s] from filtered scores [s, size]: argmax, plus noise where the temperature is not 0."""
    if all(input.sampling.temperature == 0 for input in inputs):
        return _ranked(scores, inputs) + id_range.start
    places = [(i.sampling.seed, i.sample, i.index) for i in inputs]
    noise = noise_at(places, id_range, scores.device)
    if any(input.sampling.temperature == 0 for input in inputs):
        noise = noise * _column([float(input.sampling.temperature > 0) for input in inputs], scores)
    return _ranked(noise + scores, inputs) + id_range.start


def _ranked(scores: Tensor, inputs: Sequence[SamplingInput]) -> Tensor:
    """Columns [s]: the best of each row of scores [s, size], or the next ones where asked for."""
    columns = scores.argmax(dim=1)
    rows = [row for row, input in enumerate(inputs) if input.rank]
    if not rows:
        return columns
    ranks = send(torch.tensor([inputs[row].rank for row in rows]), scores.device)
    at = send(torch.tensor(rows), scores.device)
    best = scores[at].topk(min(int(max(i.rank for i in inputs)) + 1, scores.shape[1]), dim=1)
    allowed = (best.values > -torch.inf).sum(dim=1)
    chosen = torch.minimum(ranks, allowed - 1).clamp(min=0)
    return columns.index_copy(0, at, best.indices.gather(1, chosen[:, None])[:, 0])


def cutoff(scores: Tensor, top_k: Sequence[int], top_p: Sequence[float]) -> Tensor:
    """[s, 1], the lowest score kept by top-k, then top-p; ties with it are kept too.

    scores: [s, size]. Top-p (https://arxiv.org/abs/1904.09751) keeps the fewest best ids whose
    probability reaches top_p, among those that top-k kept.
    """
    size = scores.shape[1]
    limits = [min(k or size, size) for k in top_k]
    best = scores.topk(max(limits), dim=1).values
    rank = torch.arange(best.shape[1], device=scores.device)
    outside = rank >= _index(limits, scores.device)[:, None]
    probabilities = best.masked_fill(outside, -torch.inf).softmax(dim=1)
    before = probabilities.cumsum(dim=1) - probabilities
    # 2 lies above any sum, rounding included: top-p is off.
    bound = _column([p if p < 1 else 2.0 for p in top_p], scores)
    kept = ((before < bound) & ~outside).sum(dim=1, keepdim=True).clamp(min=1)
    return best.gather(1, kept - 1)


def _penalised(scores: Tensor, inputs: Sequence[SamplingInput]) -> Tensor:
    if all(input.seen is None for input in inputs):
        return scores
    nothing = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
    seen = torch.stack([nothing if input.seen is None else input.seen for input in inputs])
    penalty = _column([input.sampling.repetition_penalty for input in inputs], scores)
    return torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)


def _first_rows(inputs: Sequence[SamplingInput], device: torch.device) -> Tensor:
    """[s] int64, the row of each input's first branch."""
    counts = _index([len(input.weights) for input in inputs], device)
    return counts.cumsum(0) - counts


def _masked(scores: Tensor, inputs: Sequence[SamplingInput], in_place: bool) -> Tensor:
    if all(input.mask is None for input in inputs):
        return scores
    rows = [row for row, input in enumerate(inputs) if input.mask is not None]
    masks = [input.mask.to(scores.device) for input in inputs if input.mask is not None]
    excluded = torch.stack(masks).logical_not_()
    scores = scores if in_place else scores.clone()
    if len(rows) == len(inputs):
        return scores.masked_fill_(excluded, -torch.inf)
    at = send(torch.tensor(rows), scores.device)
    return scores.index_copy_(0, at, scores[at].masked_fill_(excluded, -torch.inf))


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return constant(tuple(values), torch.float32, like.device)[:, None]


def _index(values: Sequence[int], device: torch.device) -> Tensor:
    return constant(tuple(values), torch.int64, device)
