"""What a unified model is trained to make small: cross-entropy over text and over image tokens."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unitok.nn.model import IdRange, UnifiedModel
from unitok.training.losses import Loss
from unitok.training.packing import PackedRows, fill


@dataclass(frozen=True)
class UnifiedBatch:
    """Rows of token ids with the pixels of their pictures.

    Attributes:
        rows: The ids, the targets, and where the pictures stand.
        input_pixels: Pictures to read, [R, 3, S, S] in [-1, 1].
        target_pixels: Pictures to draw, [D, 3, S, S] in [0, 1].
        weight: The weight of the batch in its update.
    """

    rows: PackedRows[Any]
    input_pixels: Tensor
    target_pixels: Tensor
    weight: float = 1.0


class UnifiedLoss:
    """Cross-entropy of the next token, with a mean over image tokens and one over text tokens.

    Pictures to draw become image tokens by the model's own image tokenizer, which is not trained;
    pictures to read become embeddings by its vision encoder, which is.
    """

    def __init__(self, model: UnifiedModel, text_weight: float = 1.0) -> None:
        """text_weight: The weight of the mean loss of a text token, beside 1 of an image token."""
        self.model, self.text_weight = model, text_weight

    def __call__(self, batch: UnifiedBatch, step: int) -> Loss:
        """The loss of a batch.

        Raises:
            ValueError: The batch has no target at all.
        """
        parts = self.parts(batch)
        if not parts:
            raise ValueError("a batch has no target tokens: nothing can be learned from it")
        weights = {"image": 1.0, "text": self.text_weight}
        total = torch.stack([loss * weights[name] for name, loss in parts.items()]).sum()
        return Loss(total * batch.weight, parts, batch.rows.ids.numel())

    def parts(self, batch: UnifiedBatch) -> dict[str, Tensor]:
        """The mean cross-entropy, in nats, of "image" and of "text" tokens, if there are such."""
        model, rows = self.model, batch.rows
        ids, target = rows.ids.to(model.device), rows.target.to(model.device)  # [B, L]
        if len(rows.target_at):
            fill(ids, rows.target_at.to(model.device), self.image_ids(batch.target_pixels))
        hidden = model.embed(ids)  # [B, L, d]
        if len(rows.input_at):
            fill(hidden, rows.input_at.to(model.device), model.encode_images(batch.input_pixels))
        positions = torch.arange(ids.shape[1], device=model.device)
        hidden = model(hidden, positions)[:, :-1]  # what each id, but the last, predicts
        wanted, following = target[:, 1:], ids[:, 1:]
        is_image = following >= model.vocabulary.image_start
        ranges = {
            "image": (wanted & is_image, model.vocabulary.image_range),
            "text": (wanted & ~is_image, model.vocabulary.text_range),
        }
        return {
            name: self.cross_entropy(hidden, following, mask, id_range)
            for name, (mask, id_range) in ranges.items()
            if bool(mask.any())
        }

    def cross_entropy(
        self, hidden: Tensor, following: Tensor, mask: Tensor, id_range: IdRange
    ) -> Tensor:
        """The mean cross-entropy of masked ids, by the logits of one id range.

        Args:
            hidden: Hidden states [B, n, d].
            following: The id that each of them should predict, [B, n].
            mask: Which of them count, [B, n].
            id_range: The range that all those ids lie in.
        """
        logits = self.model.logits(hidden[mask], id_range).float()
        return F.cross_entropy(logits, following[mask] - id_range.start)

    @torch.no_grad()
    def image_ids(self, pixels: Tensor) -> Tensor:
        """Pictures [D, 3, S, S] in [0, 1] -> their image token ids [D, n]."""
        codes = self.model.image_tokenizer.encode(pixels.to(self.model.device))
        return self.model.vocabulary.code_to_id(codes.flatten(1))
