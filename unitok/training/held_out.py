"""The losses of conversations that are not learned."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule

from unitok.training.losses import PAIR_PARTS
from unitok.training.trainer import Trainer

MEASURED = ("text", "image", *PAIR_PARTS)


class HeldOutLoss:
    """Measures the mean losses of fixed batches: of text and image tokens, and of pairs."""

    def __init__(self, trainer: Trainer[Any], batches: Sequence[Any]) -> None:
        """batches: This rank's share, as many as every rank has."""
        self.trainer, self.batches = trainer, batches

    def __call__(self) -> dict[str, float]:
        """The mean losses over all ranks, as "held_out_text", "held_out_image" and so on."""
        trainer = self.trainer
        sums: dict[str, float] = dict.fromkeys(MEASURED, 0.0)
        counts: dict[str, int] = dict.fromkeys(MEASURED, 0)
        with in_evaluation(trainer.model):
            for batch in self.batches:
                loss = trainer.without_gradients(batch)
                for kind in loss.parts.keys() & sums.keys():
                    sums[kind] += loss.parts[kind] * loss.counts[kind]
                    counts[kind] += loss.counts[kind]
        gather_again(trainer.prepared)
        everywhere = trainer.ranks.gather([*sums.values(), *counts.values()])
        totals = [sum(column) for column in zip(*everywhere, strict=True)]
        means = zip(MEASURED, totals[: len(MEASURED)], totals[len(MEASURED) :], strict=True)
        return {f"held_out_{kind}": value / count for kind, value, count in means if count}


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while, and each of its modules back as it was."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def gather_again(prepared: Any) -> None:
    """Let FSDP2 gather the weights anew, since they may change before the next forward."""
    for module in prepared.modules() if isinstance(prepared, nn.Module) else ():
        if isinstance(module, FSDPModule):
            module.reshard()
