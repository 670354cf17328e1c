"""The loss of fine-tuning: the unified one, with the number of tokens behind each mean."""

from dataclasses import replace

from unitok.training.losses import Loss
from unitok.training.packing import PackedBatch
from unitok.training.unified_loss import UnifiedLoss


class FineTuningLoss(UnifiedLoss):
    """Cross-entropy that says how many tokens its means are of, so that they can be summed up."""

    def forward(self, batch: PackedBatch, step: int) -> Loss:
        """The loss of a batch; one that only keeps step with other ranks counts no token."""
        counts = batch.counts(self.model.vocabulary)
        counts["z_loss"] = sum(counts.values())
        if not any(batch.weights.values()):
            counts = dict.fromkeys(counts, 0)
        return replace(super().forward(batch, step), counts=counts)
