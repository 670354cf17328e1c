"""LoRA tuning of text answers beside transformers and peft: tokens per second, and memory."""

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitok.nn.model import UnifiedModel
from unitok.training.lora import LoraOptions, add_lora
from unitok.training.packing import PackedBatch, pack, pack_rows
from unitok.training.sequences import TrainingSequence
from unitok.training.unified_loss import UnifiedLoss
from unitok_engine import Branch

SHORTEST, LONGEST = 64, 1024  # tokens of a conversation
RANK, ALPHA = 16, 32.0
PACKED = 2048  # tokens that are computed at once
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Conversation:
    """A question and its answer, as ids.

    Attributes:
        ids: All of them.
        asked: How many of them are the question.
    """

    ids: tuple[int, ...]
    asked: int


def conversations(count: int, vocabulary: int, longest: int = LONGEST) -> list[Conversation]:
    """Conversations whose lengths grow geometrically, shuffled by a fixed seed.

    The first half of each is the question.
    """
    generator = torch.Generator().manual_seed(0)
    ratio = longest / SHORTEST
    lengths = [round(SHORTEST * ratio ** (i / max(count - 1, 1))) for i in range(count)]
    order = torch.randperm(count, generator=generator).tolist()
    return [
        Conversation(
            tuple(torch.randint(vocabulary, (lengths[i],), generator=generator).tolist()),
            lengths[i] // 2,
        )
        for i in order
    ]


class OurTuning:
    """Updates of a low-rank adapter of our model, over packed rows."""

    def __init__(self, model: UnifiedModel, talk: Sequence[Conversation]) -> None:
        """Give a model an adapter, and pack what is learned."""
        self.model = model
        add_lora(self.model, LoraOptions(RANK, ALPHA))
        self.model.checkpoint_activations("selective")
        self.model.train()
        self.loss = UnifiedLoss(self.model, self.model.vocabulary.text_range)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=LEARNING_RATE)
        targets = sum(len(c.ids) - c.asked for c in talk)
        weights = {"text": 1 / targets, "image": 1 / targets}
        sequences = [sequence(c, index) for index, c in enumerate(talk)]
        self.batches = [pack(row, weights) for row in pack_rows(sequences, PACKED)]

    def update(self) -> float:
        """Learn all conversations once; the loss before."""
        losses = [self.learn(batch) for batch in self.batches]
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return sum(losses)

    def learn(self, batch: PackedBatch) -> float:
        """Add the gradients of a batch."""
        with torch.enable_grad(), torch.autocast(self.model.device.type, torch.bfloat16):
            total: Tensor = self.loss(batch, 0).total
        total.backward()
        return float(total.detach())


def sequence(talk: Conversation, index: int) -> TrainingSequence:
    """A conversation as a sequence whose answer is learned."""
    targets = [i >= talk.asked for i in range(len(talk.ids))]
    return TrainingSequence(Branch(talk.ids), tuple(targets), name=f"conversation {index}")


def peak_memory() -> float:
    """The most memory that this process has had, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
