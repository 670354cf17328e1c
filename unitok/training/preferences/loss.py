"""The loss of DPO (https://arxiv.org/abs/2305.18290), with a share of supervised learning beside.

Of a pair it is -log sigmoid(beta * margin), where the margin is how much more the model prefers the
chosen answer to the other than it did at the start, in nats. Label smoothing takes a share of the
labels to be wrong (https://ericmitchell.ai/cdpo.pdf).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.nn.model import UnifiedModel
from unitok.training.log_probabilities import log_probabilities
from unitok.training.losses import PAIR_PARTS, Loss
from unitok.training.preferences.batches import PreferenceBatch, kind_of
from unitok_engine import IdRange


class DpoLoss(nn.Module):
    """The loss of pairs, of the tokens of chosen answers, and of conversations beside them.

    Its parts are the means of "dpo" in nats, of "accuracy", the share of pairs whose chosen answer
    has gained more than the other, of "margin", the difference of the rewards, of "chosen_reward"
    and "rejected_reward", beta times the log-probabilities that the answers have gained, and the
    cross-entropies "chosen", "text" and "image" of a token; only those that there are.
    """

    def __init__(
        self, model: UnifiedModel, text_range: IdRange, beta: float, label_smoothing: float = 0.0
    ) -> None:
        """Hold the model as `model`.

        Args:
            model: What is trained.
            text_range: The ids that an answer of text is made of.
            beta: How dear it is to move away from the start.
            label_smoothing: The share of pairs that are taken to be the wrong way round.
        """
        super().__init__()
        self.model, self.text_range = model, text_range
        self.beta, self.label_smoothing = beta, label_smoothing

    def forward(self, batch: PreferenceBatch, step: int) -> Loss:
        """The loss of a batch; one that only keeps step with other ranks counts nothing."""
        found = log_probabilities(self.model, batch.sequences, self.text_range)
        plain, answers = found[: len(batch.plain)], found[len(batch.plain) :]
        tokens = _by_kind(batch, plain)
        values: dict[str, Tensor] = {}
        if batch.pairs:
            chosen, rejected = _sides(batch, answers)
            values |= self._pairs(batch, torch.stack([c.sum() for c in chosen]), rejected)
            tokens["chosen"] = -torch.cat(chosen)
        weights = batch.weights
        total = sum(
            (weights[kind] * losses.sum() for kind, losses in tokens.items()),
            weights["pairs"] * values["dpo"].sum() if batch.pairs else torch.zeros(()),
        )
        parts = values | tokens
        is_idle = not any(weights.values())
        counts = {name: 0 if is_idle else len(part) for name, part in parts.items()}
        means = {name: part.mean() for name, part in parts.items()}
        return Loss(torch.as_tensor(total), means, len(batch), counts)

    def _pairs(self, batch: PreferenceBatch, chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
        """The loss and the measures of each pair, of the answers' log-probabilities [pairs]."""
        start = torch.tensor(batch.references, dtype=torch.float32, device=chosen.device)
        better = self.beta * (chosen - start[:, 0])
        worse = self.beta * (rejected - start[:, 1])
        margin = better - worse
        smooth = self.label_smoothing
        losses = -F.logsigmoid(margin) * (1 - smooth) - F.logsigmoid(-margin) * smooth
        right = (margin > 0).float()
        return dict(zip(PAIR_PARTS, (losses, right, margin, better, worse), strict=True))


def _by_kind(batch: PreferenceBatch, plain: Sequence[Tensor]) -> dict[str, Tensor]:
    """The cross-entropies of the tokens of conversations, by kind."""
    kinds: dict[str, list[Tensor]] = {}
    for sequence, values in zip(batch.plain, plain, strict=True):
        kinds.setdefault(kind_of(sequence), []).append(-values)
    return {kind: torch.cat(values) for kind, values in kinds.items()}


def _sides(batch: PreferenceBatch, answers: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The log-probabilities of each chosen answer's tokens, and of each other answer [pairs]."""
    left = iter(answers)
    chosen: list[Tensor] = []
    rejected: list[Tensor] = []
    for pair in batch.pairs:
        chosen.append(torch.cat([next(left) for _ in pair.chosen]))
        rejected.append(torch.cat([next(left) for _ in pair.rejected]).sum())
    return chosen, torch.stack(rejected)
