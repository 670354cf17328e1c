"""What temperature and filters make of logits, as the engine's sampler does, with gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import log

import torch
from torch import Tensor

from unitok.training.cross_entropy import Shape
from unitok_engine import Sampling
from unitok_engine.sampler import cutoff


@dataclass(frozen=True)
class SamplingShape:
    """How mixed logits become those that are sampled from; `unitok_engine.Sampling` explains it.

    Attributes:
        temperature: Divides the logits. 0 is as 1 without filters.
        top_k: Only the k best tokens are kept; 0 is off.
        top_p: Only the fewest best tokens whose probability reaches it are kept; 1 is off.
        min_p: Only tokens at least so probable are kept; 0 is off.
        text_mask: Bool [size], the text ids that are allowed; None allows all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    text_mask: Tensor | None = None

    @classmethod
    def of(cls, sampling: Sampling, text_mask: Tensor | None = None) -> SamplingShape:
        """The shape of what a request samples from.

        Raises:
            ValueError: The request penalises repetitions, of which nothing is known here.
        """
        if sampling.repetition_penalty != 1:
            raise ValueError("log-probabilities under a repetition penalty are not computed here")
        s = sampling
        return cls(s.temperature, s.top_k, s.top_p, s.min_p, text_mask)

    def of_kind(self, kind: str) -> Shape:
        """What it does with the logits of "text" or "image" tokens."""
        return partial(self._apply, self.text_mask if kind == "text" else None)

    def _apply(self, mask: Tensor | None, logits: Tensor, wanted: Tensor) -> Tensor:
        """Logits [m, size] -> those that are sampled from; `wanted` [m] are kept."""
        if mask is not None:
            logits = logits.masked_fill(~mask.to(logits.device), -torch.inf)
        if self.temperature == 0:
            return logits
        # As the sampler does it, so that the same tokens lie on either side of a limit.
        logits = (logits - logits.detach().amax(1, keepdim=True)) / self.temperature
        if not self.top_k and self.top_p == 1 and not self.min_p:
            return logits
        kept = logits >= self._limit(logits.detach())
        return logits.masked_fill(~kept.scatter(1, wanted[:, None], True), -torch.inf)

    @torch.no_grad()
    def _limit(self, logits: Tensor) -> Tensor:
        """[m, 1], the lowest logit that the filters keep; the best one is 0."""
        rows = len(logits)
        limit = logits.new_full((rows, 1), -torch.inf)
        if self.top_k or self.top_p < 1:
            limit = cutoff(logits, [self.top_k] * rows, [self.top_p] * rows)
        return limit.clamp(min=log(self.min_p)) if self.min_p else limit
