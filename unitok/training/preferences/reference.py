"""Log-probabilities of answers by the weights that a run begins with, which DPO compares with.

With adapters these are the model's own weights, as adapters add nothing at first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unitok.nn.model import UnifiedModel
from unitok.training.held_out import in_evaluation
from unitok.training.kept_weights import KeptWeights
from unitok.training.log_probabilities import log_probabilities
from unitok.training.preferences.pairs import AnswerPair
from unitok_engine import IdRange

Scores = tuple[float, float]


class Reference:
    """The weights as they are now, and what they make of answers. All else of the run may move on.

    A pair is computed once and alone, so that what it gives depends on nothing else: a run that
    goes on from a checkpoint gets the same numbers, whatever it has computed before.
    """

    def __init__(self, model: UnifiedModel, text_range: IdRange, precision: torch.dtype) -> None:
        """Keep a copy of the weights that are trainable; those of adapters are few.

        Args:
            model: The model before the first update.
            text_range: The ids that an answer of text is made of.
            precision: The type in which the loss is computed under autocast.
        """
        self.model, self.text_range, self.precision = model, text_range, precision
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._start = KeptWeights(trained)
        self._known: dict[str, Scores] = {}

    def __call__(self, pairs: Sequence[AnswerPair]) -> list[Scores]:
        """The log-probabilities of the chosen and of the rejected answer of each pair, in nats."""
        new = [pair for pair in pairs if pair.name not in self._known]
        if new:
            with self._start.in_place(), in_evaluation(self.model):
                self._known |= {pair.name: self._compute(pair) for pair in new}
        return [self._known[pair.name] for pair in pairs]

    @torch.no_grad()
    def _compute(self, pair: AnswerPair) -> Scores:
        device, mixed = self.model.device.type, self.precision is not torch.float32
        with torch.autocast(device, self.precision, enabled=mixed):
            found = log_probabilities(self.model, pair.sequences, self.text_range)
        sums = [float(each.sum()) for each in found]
        count = len(pair.chosen)
        return sum(sums[:count]), sum(sums[count:])
