"""See what the engine chooses and emits, beside what results tell."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, isfinite
from unittest.mock import patch

import torch
from torch import Tensor

from tests.unitok.golden.recording import DOUBTFUL, Sample, shortened
from unitok_engine import IdRange, sampler
from unitok_engine.noise import noise_at
from unitok_engine.sampler import SampledToken, SamplingInput
from unitok_engine.sequence import Sequence as EngineSequence

SHAKES = 4


@dataclass
class Trace:
    """What the engine chose and emitted. One request runs at a time, so (sample, index) is a key.

    slacks: by sample. emitted: by request and sample, as an aborted request may emit once more.
    """

    margins: dict[tuple[int, int], float] = field(default_factory=dict)
    slacks: dict[int, float] = field(default_factory=dict)
    emitted: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def note(self, picks: Sequence[SamplingInput], margins: Sequence[float]) -> None:
        for pick, margin in zip(picks, margins, strict=True):
            self.slacks[pick.sample] = slack_of(pick)
            if isfinite(margin):
                self.margins[pick.sample, pick.index] = margin

    def take(self) -> list[Sample]:
        """Hand over the samples of the newest request, and forget all."""
        newest = max(request for request, _ in self.emitted)
        emitted = {s: ids for (request, s), ids in self.emitted.items() if request == newest}
        taken = [self._sample(sample, emitted[sample]) for sample in sorted(emitted)]
        for notes in (self.margins, self.slacks, self.emitted):
            notes.clear()
        return taken

    def _sample(self, sample: int, ids: Sequence[int]) -> Sample:
        margins = (self.margins.get((sample, index)) for index in range(len(ids)))
        return Sample(tuple(ids), shortened(margins), self.slacks.get(sample, 1.0))


@contextmanager
def traced() -> Iterator[Trace]:
    """Note what every engine of this process chooses and emits."""
    trace, filtered, choose, emit = Trace(), sampler.filtered, sampler.choose, EngineSequence.emit
    shaken: list[Tensor] = []

    def noting_filtered(scores: Tensor, picks: Sequence[SamplingInput]) -> Tensor:
        shaken[:] = [filtered(one, picks) for one in shake(scores, picks)]
        return filtered(scores, picks)

    def noting_choose(scores: Tensor, id_range: IdRange, picks: Sequence[SamplingInput]) -> Tensor:
        ids = choose(scores, id_range, picks)
        margins = margins_of(scores, id_range, picks)
        for one in shaken:
            others = choose(one, id_range, picks)
            changed = ids.ne(others) | moved(scores, one, ids - id_range.start, picks)
            margins[changed] = 0.0
        trace.note(picks, margins.tolist())
        return ids

    def noting_emit(sequence: EngineSequence, choice: SampledToken) -> None:
        emit(sequence, choice)
        key = sequence.request_id, sequence.sample
        trace.emitted.setdefault(key, []).append(sequence.emitted[-1])

    with (
        patch.object(sampler, "filtered", noting_filtered),
        patch.object(sampler, "choose", noting_choose),
        patch.object(EngineSequence, "emit", noting_emit),
    ):
        yield trace


def margins_of(scores: Tensor, id_range: IdRange, picks: Sequence[SamplingInput]) -> Tensor:
    """Best less second best of what `sampler.choose` takes the best of; infinite if alone."""
    hot = torch.tensor([[float(pick.sampling.temperature > 0)] for pick in picks])
    places = [(p.sampling.seed, p.sample, p.index) for p in picks]
    perturbed = scores + noise_at(places, id_range, scores.device) * hot
    if perturbed.shape[1] == 1:
        return torch.full((len(picks),), inf)
    best, second = perturbed.topk(2, dim=1).values.unbind(1)
    return best - second


def shake(scores: Tensor, picks: Sequence[SamplingInput]) -> list[Tensor]:
    """Scores that are a little off, if filters work on them: they may leave other ids then."""
    if not any(s.top_k or s.top_p < 1 or s.min_p for s in (pick.sampling for pick in picks)):
        return []
    off = torch.tensor([[DOUBTFUL / 2 * total_weight(pick)] for pick in picks])
    generator = torch.Generator().manual_seed(picks[0].index)
    shakes = torch.rand((SHAKES, *scores.shape), generator=generator) * 2 - 1
    return list(scores + off * shakes)


def moved(scores: Tensor, shaken: Tensor, chosen: Tensor, picks: Sequence[SamplingInput]) -> Tensor:
    """Where the log-probability that is told would be another, as filters left other ids."""
    limits = torch.tensor([DOUBTFUL * slack_of(p) if p.logprob else inf for p in picks])
    old, new = (s.log_softmax(dim=1).gather(1, chosen[:, None])[:, 0] for s in (scores, shaken))
    return (new - old).abs() > limits


def total_weight(pick: SamplingInput) -> float:
    return sum(map(abs, pick.weights))


def slack_of(pick: SamplingInput) -> float:
    """How many times as far as a logit a score may be off."""
    return max(1.0, round(total_weight(pick) / (pick.sampling.temperature or 1.0), 3))
