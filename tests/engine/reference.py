"""What a request must give, from whole lines and plain torch: no cache, no batch, no vectors.

Ids are checked as they were emitted: each must be the best, within rounding, given those before.
"""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from tests.engine.tiny import TinyModel, WholeLine
from unitok_engine import Branch, Force, IdRange, Output, Request, Sampling, Stop

TOLERANCE = 2e-3  # of a score: fp32 sums in another order, times the guidance, over the temperature


@dataclass(frozen=True)
class Expected:
    """scores [size]: what the id with the largest one is; logprobs of ids as in `Output`."""

    id_range: IdRange
    scores: Tensor
    logprobs: Tensor
    branch_logprobs: Tensor


def check(output: Output, request: Request, model: TinyModel) -> None:
    """Assert that a finished output is what its request must give."""
    ids, plan = output.token_ids, request.plan
    for index, (id, expected) in enumerate(
        zip(ids, _expected(output, request, model), strict=True)
    ):
        where = f"id {index} of {ids} of {request}"
        step = plan.next(ids[:index])
        if expected is None:
            assert isinstance(step, Force) and id == step.id, where
            told = (0.0, 0.0)
        else:
            assert id in expected.id_range, where
            place = id - expected.id_range.start
            assert expected.scores[place] >= expected.scores.max() - TOLERANCE, where
            told = (float(expected.logprobs[place]), float(expected.branch_logprobs[place]))
        for wanted, got, right in zip(
            (request.logprobs, request.branch_logprobs),
            (output.logprobs, output.branch_logprobs),
            told,
            strict=True,
        ):
            assert (got is not None) == wanted
            assert got is None or (len(got) == len(ids) and abs(got[index] - right) < TOLERANCE), (
                where,
                got,
                right,
            )
    if output.finish_reason in ("complete", "length"):
        assert plan.next(ids) == Stop(output.finish_reason)


def _expected(output: Output, request: Request, model: TinyModel) -> list[Expected | None]:
    """For each id of an output what it is chosen from, or None if it was forced."""
    hidden = [_whole_line(branch, output.token_ids, model) for branch in request.branches]
    result = []
    for index in range(len(output.token_ids)):
        step = request.plan.next(output.token_ids[:index])
        if isinstance(step, Force):
            result.append(None)
            continue
        assert not isinstance(step, Stop), "an id behind the plan's end"
        rows = [
            model.logits(x[len(branch.token_ids) - 1 + index], step.id_range).double()
            for x, branch in zip(hidden, request.branches, strict=True)
        ]
        mixed = torch.zeros(step.id_range.size, dtype=torch.float64)
        for row, branch in zip(rows, request.branches, strict=True):
            mixed += branch.weight * row
        seen = {*request.branches[0].token_ids, *output.token_ids[:index]}
        kept = distribution(mixed, step.id_range, seen, step.mask, request.sampling)
        noise = torch.zeros(step.id_range.size, dtype=torch.float64)
        seed, sample = request.sampling.seed, output.sample
        if request.seeds:
            seed, sample = request.seeds[sample], 0
        if request.sampling.temperature > 0:
            for place in range(step.id_range.size):
                id = step.id_range.start + place
                uniform = hashed_uniform(seed, sample, index, id)
                noise[place] = -log(-log(uniform))
        own = rows[0].log_softmax(0)
        result.append(Expected(step.id_range, kept + noise, kept.log_softmax(0), own))
    return result


def _whole_line(branch: Branch, emitted: tuple[int, ...], model: TinyModel) -> Tensor:
    """[length, d], from one pass over all ids."""
    ids = torch.tensor([*branch.token_ids, *emitted])
    hidden = model.embed(ids)
    for features in branch.embeddings:
        hidden[features.start : features.stop] = features.compute()
    return model.forward(hidden, torch.arange(len(ids)) + branch.first_position, WholeLine())


def distribution(
    mixed: Tensor, id_range: IdRange, seen: set[int], mask: Tensor | None, sampling: Sampling
) -> Tensor:
    """Unnormalised log-probabilities [size] of what is drawn from; -inf for what cannot be."""
    scores = mixed.clone()
    for id in seen:
        if id in id_range:
            place = id - id_range.start
            penalty = sampling.repetition_penalty
            scores[place] = (
                scores[place] / penalty if scores[place] > 0 else scores[place] * penalty
            )
    if mask is not None:
        scores[~mask] = -torch.inf
    if sampling.temperature == 0:
        return scores
    scores /= sampling.temperature
    order = scores.argsort(descending=True)
    best = [int(i) for i in order[: sampling.top_k or None] if scores[i] > -torch.inf]
    probabilities = scores[best].softmax(0)
    kept, total = [], 0.0
    for place, probability in zip(best, probabilities.tolist(), strict=True):
        if total < sampling.top_p:
            kept.append(place)
        total += probability
    kept = [i for i in kept if scores[i].exp() >= sampling.min_p * scores[best[0]].exp()]
    result = torch.full_like(scores, -torch.inf)
    result[kept] = scores[kept]
    return result


def hashed_uniform(seed: int, sample: int, index: int, id: int) -> float:
    """SplitMix64's finaliser in plain integers, chained over the parts."""

    def finalise(x: int) -> int:
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    golden = 0x9E3779B97F4A7C15
    key = 0
    for part in (seed, sample, index):
        key = finalise((key + golden + part) % 2**64)
    bits = finalise((key + id * golden) % 2**64)
    return ((bits >> 41) + 0.5) / 2**23
