"""From the branches' logits to one id per sequence, all in fp32.

An id is chosen by Gumbel-max: the largest logit plus noise, where the noise is a hash of (seed,
sample, index of the generated id, id). So it depends on nothing else in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log

import torch
from torch import Tensor

from unitok_engine.request import IdRange, Sampling
from unitok_engine.transfer import constant, send

# SplitMix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195)
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK_64 = 2**64 - 1

_FEW = 4096  # ids of a range
_AHEAD = 16

_GREEDY = Sampling(temperature=0)
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, eq=False, slots=True)
class Pick:
    """What one sequence wants sampled: its lines' weights, and the coordinates of its noise.

    mask, seen: bool [id_range.size], the ids allowed, and those a repetition penalty is for.
    """

    weights: tuple[float, ...]
    sampling: Sampling
    sample: int
    index: int
    mask: Tensor | None = None
    seen: Tensor | None = None
    logprob: bool = False
    branch_logprob: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The id, or None where the mixed logits were not finite; logprobs are 0 unless asked for."""

    id: int | None
    logprob: float = 0.0
    branch_logprob: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class Drawn:
    """What was chosen for picks of one range, still on the device, which may not be done yet.

    ids: [s] int64, -1 where the mixed logits were not finite. logprobs, branch_logprobs: [s] fp32,
    or None if no pick asks for them.
    """

    picks: Sequence[Pick]
    ids: Tensor
    logprobs: Tensor | None = None
    branch_logprobs: Tensor | None = None


def sample(logits: Tensor, id_range: IdRange, picks: Sequence[Pick]) -> list[Choice]:
    """Choose an id of the range for every pick.

    logits: [sum of lines, id_range.size], pick by pick, line by line.
    """
    return collect([draw(logits, id_range, picks)])


def draw(logits: Tensor, id_range: IdRange, picks: Sequence[Pick]) -> Drawn:
    """`sample` without waiting for the device."""
    mixed = mix(logits, [pick.weights for pick in picks])
    # Zero times what is not finite is not zero.
    finite = (mixed * 0).sum(dim=1) == 0
    scores = filtered(_masked(_penalised(mixed, picks), picks), picks)
    ids = choose(scores, id_range, picks)
    logprobs = branch_logprobs = None
    if any(pick.logprob for pick in picks):
        logprobs = _logprobs(scores, ids - id_range.start)
    if any(pick.branch_logprob for pick in picks):
        own = logits[_first_rows(picks, logits.device)].float()
        branch_logprobs = _logprobs(own, ids - id_range.start)
    return Drawn(picks, torch.where(finite, ids, -1), logprobs, branch_logprobs)


def collect(drawn: Sequence[Drawn]) -> list[Choice]:
    """The choices of all picks, in order: waits for the device, in one transfer."""
    if not drawn:
        return []
    if all(d.logprobs is None and d.branch_logprobs is None for d in drawn):
        return [_choice(id) for id in torch.cat([d.ids for d in drawn]).tolist()]
    # Ids stay exact in fp64.
    table = torch.cat([torch.stack([x.double() for x in _columns(d)]) for d in drawn], dim=1)
    picks = [pick for d in drawn for pick in d.picks]
    return [
        _choice(int(id), logprob * pick.logprob, branch_logprob * pick.branch_logprob)
        for pick, id, logprob, branch_logprob in zip(picks, *table.tolist(), strict=True)
    ]


def _logprobs(scores: Tensor, chosen: Tensor) -> Tensor:
    """[s], of the column chosen in each row of scores [s, size]."""
    return scores.log_softmax(dim=1).gather(1, chosen[:, None])[:, 0]


def _columns(drawn: Drawn) -> tuple[Tensor, Tensor, Tensor]:
    nothing = torch.zeros_like(drawn.ids)
    logprobs, branch_logprobs = drawn.logprobs, drawn.branch_logprobs
    return (
        drawn.ids,
        nothing if logprobs is None else logprobs,
        nothing if branch_logprobs is None else branch_logprobs,
    )


def _choice(id: int, logprob: float = 0.0, branch_logprob: float = 0.0) -> Choice:
    return Choice(id, logprob, branch_logprob) if id >= 0 else Choice(None)


def mix(logits: Tensor, weights: Sequence[tuple[float, ...]]) -> Tensor:
    """The weighted sum of each sequence's lines: [sum of lines, size] -> [sequences, size]."""
    logits = logits.float()
    if all(line == (1.0,) for line in weights):
        return logits
    count = len(weights[0])
    if any(len(line) != count for line in weights):
        return _mix_unequal(logits, weights)
    first, *others = logits.view(-1, count, logits.shape[1]).unbind(1)
    mixed = first * _column([line[0] for line in weights], logits)
    for branch, other in enumerate(others, 1):
        mixed += other * _column([line[branch] for line in weights], logits)
    return mixed


def _mix_unequal(logits: Tensor, weights: Sequence[Sequence[float]]) -> Tensor:
    """`mix` for sequences of different numbers of lines, with the same roundings."""
    starts = [0]
    for line in weights:
        starts.append(starts[-1] + len(line))
    first = _index(starts[:-1], logits.device)
    mixed = logits[first] * _column([line[0] for line in weights], logits)
    # Branch by branch, each sequence at most once: the order of the sum never varies.
    for branch in range(1, max(map(len, weights))):
        owners = [i for i, line in enumerate(weights) if len(line) > branch]
        rows = _index([starts[i] + branch for i in owners], logits.device)
        part = logits[rows] * _column([weights[i][branch] for i in owners], logits)
        mixed.index_add_(0, _index(owners, logits.device), part)
    return mixed


def filtered(scores: Tensor, picks: Sequence[Pick]) -> Tensor:
    """Scores [s, size] after temperature and filters: -inf for what they leave out.

    Rows of temperature 0 stay as at temperature 1, unfiltered.
    """
    samplings = [pick.sampling for pick in picks]
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


def choose(scores: Tensor, id_range: IdRange, picks: Sequence[Pick]) -> Tensor:
    """Ids [s] from filtered scores [s, size]: argmax, plus noise where the temperature is not 0."""
    if all(pick.sampling.temperature == 0 for pick in picks):
        return scores.argmax(dim=1) + id_range.start
    noise = _noise(picks, id_range, scores.device)
    if any(pick.sampling.temperature == 0 for pick in picks):
        noise = noise * _column([float(pick.sampling.temperature > 0) for pick in picks], scores)
    return (noise + scores).argmax(dim=1) + id_range.start


def _noise(picks: Sequence[Pick], id_range: IdRange, device: torch.device) -> Tensor:
    """Gumbel noise [s, size], a row for each pick."""
    if len(picks) == 1 and device.type == "cpu" and id_range.size <= _FEW:
        pick = picks[0]
        block, row = divmod(pick.index, _AHEAD)
        return _noise_ahead(int(pick.sampling.seed), pick.sample, block, id_range)[row][None]
    keys = [noise_key(pick.sampling.seed, pick.sample, pick.index) for pick in picks]
    return gumbel(send(torch.tensor(keys), device), id_range)


@lru_cache(maxsize=64)
def _noise_ahead(seed: int, sample: int, block: int, id_range: IdRange) -> Tensor:
    """[_AHEAD, size], of one sequence's next ids: few numbers cost a CPU as much as many."""
    indices = range(block * _AHEAD, (block + 1) * _AHEAD)
    return gumbel(torch.tensor([noise_key(seed, sample, i) for i in indices]), id_range)


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


def noise_key(seed: int, sample: int, index: int) -> int:
    """A signed 64-bit key of one row's noise."""
    return _signed(_absorb(_sample_key(int(seed), sample), index))


@lru_cache(maxsize=4096)
def _sample_key(seed: int, sample: int) -> int:
    return _absorb(_absorb(0, seed), sample)


def _absorb(key: int, word: int) -> int:
    return _mix_int((key + _GOLDEN + (word & _MASK_64)) & _MASK_64)


def gumbel(keys: Tensor, id_range: IdRange) -> Tensor:
    """Gumbel noise [s, size] fp32 from keys [s] int64, one hash per (key, id)."""
    uniform = hashed_uniform(keys, id_range)
    return uniform.log_().neg_().log_().neg_()


@lru_cache(maxsize=16)
def _steps(id_range: IdRange, device: torch.device) -> Tensor:
    """[size] int64, what each id adds to a key."""
    return torch.arange(id_range.start, id_range.stop, device=device) * _signed(_GOLDEN)


def hashed_uniform(keys: Tensor, id_range: IdRange) -> Tensor:
    """Uniform noise [s, size] fp32 in (0, 1), the same bits on every device."""
    x = keys[:, None] + _steps(id_range, keys.device)
    x = x.bitwise_xor_(_shift(x, 30)).mul_(_signed(_MIX_1))
    x = x.bitwise_xor_(_shift(x, 27)).mul_(_signed(_MIX_2))
    # Its last step changes none of the 23 bits that are kept.
    # 23 bits and a half are exact in fp32, so neither 0 nor 1 is ever reached.
    return _shift(x, 41).float().add_(0.5).mul_(2.0**-23)


def _penalised(scores: Tensor, picks: Sequence[Pick]) -> Tensor:
    if all(pick.seen is None for pick in picks):
        return scores
    nothing = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
    seen = torch.stack([nothing if pick.seen is None else pick.seen for pick in picks])
    penalty = _column([pick.sampling.repetition_penalty for pick in picks], scores)
    return torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)


def _first_rows(picks: Sequence[Pick], device: torch.device) -> Tensor:
    """[s] int64, the row of each pick's first line."""
    counts = _index([len(pick.weights) for pick in picks], device)
    return counts.cumsum(0) - counts


def _masked(scores: Tensor, picks: Sequence[Pick]) -> Tensor:
    if all(pick.mask is None for pick in picks):
        return scores
    everything = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
    allowed = [everything if p.mask is None else p.mask.to(scores.device) for p in picks]
    return scores.masked_fill(~torch.stack(allowed), -torch.inf)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return constant(tuple(values), torch.float32, like.device)[:, None]


def _index(values: Sequence[int], device: torch.device) -> Tensor:
    return constant(tuple(values), torch.int64, device)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift right: torch's own copies the sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 30)) * _MIX_1) & _MASK_64
    x = ((x ^ (x >> 27)) * _MIX_2) & _MASK_64
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x
