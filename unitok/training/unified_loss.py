"""What a unified model is trained to make small: cross-entropy over text and over image tokens."""

from functools import partial

import torch
from torch import Tensor, nn

from unitok.nn.model import UnifiedModel
from unitok.training.cross_entropy import cross_entropy
from unitok.training.hidden_states import hidden_states
from unitok.training.losses import Loss
from unitok.training.packing import PackedBatch
from unitok.training.targets import targets_by_kind
from unitok_engine import IdRange


class UnifiedLoss(nn.Module):
    """Cross-entropy of the next token, with the weight that a batch gives to a token of each kind.

    Pictures to paint become image tokens by the model's own image tokenizer, which is not trained.
    Pictures to read become embeddings by its vision encoder, through which gradients flow.
    """

    def __init__(self, model: UnifiedModel, text_range: IdRange, z_loss: float = 0.0) -> None:
        """Hold the model as `model`.

        Args:
            model: What is trained.
            text_range: The ids that an answer of text is made of: those of the family's text plan.
            z_loss: The weight of the squared logarithm of the softmax's denominator, which keeps
                logits from drifting (PaLM, https://arxiv.org/abs/2204.02311). 0 is off.
        """
        super().__init__()
        self.model, self.text_range, self.z_loss = model, text_range, z_loss

    def forward(self, batch: PackedBatch, step: int) -> Loss:
        """The loss of a batch.

        Its parts are the mean cross-entropy of "image" and of "text" tokens in nats, as far as
        there are such, and the mean square that the z-loss weighs as "z_loss", if it is on.

        Raises:
            ValueError: The batch has no target at all, or one that the model cannot emit.
        """
        rows = batch.targets.nonzero()[:, 0]
        if not len(rows):
            raise ValueError("a batch has no target tokens: nothing can be learned from it")
        model, total = self.model, torch.zeros((), device=self.model.device)
        kinds = list(targets_by_kind(batch, rows, model.vocabulary, self.text_range))
        ids, hidden = hidden_states(model, batch)
        parts: dict[str, Tensor] = {}
        squares: list[Tensor] = []
        for each in kinds:
            at, id_range = rows[each.chosen].to(ids.device), each.id_range
            make_logits = partial(model.logits, id_range=id_range)
            wanted = ids[at] - id_range.start
            losses, normalisers = cross_entropy(
                make_logits,
                hidden[at - 1],
                wanted,
                id_range.size,
                is_frozen=not self.z_loss and self.is_frozen(each.kind),
            )
            parts[each.kind] = losses.mean()
            total = total + batch.weights[each.kind] * losses.sum()
            if self.z_loss:
                squares.append(normalisers.square())
                total = total + batch.weights[each.kind] * self.z_loss * squares[-1].sum()
        if squares:
            parts["z_loss"] = torch.cat(squares).mean()
        return Loss(total, parts, len(batch))

    def is_frozen(self, kind: str) -> bool:
        """Whether no weight of the head of "text" or of "image" tokens is trained."""
        own = self.model.image_head if kind == "image" else None
        head: nn.Module = self.model.text_head if own is None else own
        return not any(p.requires_grad for p in head.parameters())
