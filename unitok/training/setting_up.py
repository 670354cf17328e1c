"""The parts of a run, made as its recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import torch

from unitok.families import Family
from unitok.nn.model import UnifiedModel
from unitok.training.data.code_cache import CodeCache
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.data.sources import Source, open_source
from unitok.training.data.stream import ConversationStream
from unitok.training.finetuning_loss import FineTuningLoss
from unitok.training.optimisers import make_adamw, make_muon
from unitok.training.packing import PackedBatch
from unitok.training.preferences.batches import PreferenceBatch, PreferenceBatchMaker
from unitok.training.preferences.loss import DpoLoss
from unitok.training.preferences.reference import Reference
from unitok.training.ranks import Ranks
from unitok.training.recipe import BatchKeys, OptimiserKeys, Recipe
from unitok.training.schedule import Schedule, WarmupConstant, WarmupCosine, WarmupLinear
from unitok.training.targets import text_range_of
from unitok.training.updates import Batches, BatchMaker, ConversationUpdates


def precision_of(recipe: Recipe, device: torch.device) -> torch.dtype:
    """The type that a run computes in."""
    if recipe.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if recipe.precision == "bf16" else torch.float32


def weights_dtype(recipe: Recipe, precision: torch.dtype) -> torch.dtype:
    """The type of the model's own weights in training.

    What is trained is kept in float32, whatever it is computed in. Beside adapters the model's own
    weights never change, so they need no more bits than are computed with.
    """
    return torch.float32 if recipe.lora is None else precision


def make_sequences(recipe: Recipe, family: Family, dropout: float) -> SequenceMaker:
    """What makes sequences of conversations.

    Raises:
        ValueError: Sequences may be longer than a batch or than the model's context.
    """
    batch = recipe.batch
    if batch.max_length is not None and batch.max_length > batch.max_tokens:
        raise ValueError(
            f"batch.max_length is {batch.max_length}, and batch.max_tokens only {batch.max_tokens}"
        )
    longest = longest_sequence(batch, family.max_context)
    codes = recipe.codes and CodeCache(Path(recipe.codes), family.model.image_tokenizer)
    return SequenceMaker(
        family, longest, batch.too_long, dropout, recipe.seed, codes or None, batch.on_error
    )


def longest_sequence(batch: BatchKeys, context: int) -> int:
    """The most tokens of a sequence, for a model's context."""
    return min(context, batch.max_length or batch.max_tokens)


def make_batches(
    recipe: Recipe, maker: SequenceMaker, ranks: Ranks, reference: Reference | None = None
) -> BatchMaker | PreferenceBatchMaker:
    """What makes batches of conversations.

    Args:
        recipe: Of the run.
        maker: Makes sequences.
        ranks: Who shares the work.
        reference: What the run compares with, if it learns from pairs of answers.
    """
    weights = {"text": recipe.loss.text_weight, "image": recipe.loss.image_weight}
    most = recipe.batch.max_tokens
    if recipe.dpo is None or reference is None:
        return BatchMaker(maker, ranks, maker.family.model.vocabulary, most, weights)
    weights |= {"pairs": 1.0, "chosen": recipe.dpo.chosen_weight}
    return PreferenceBatchMaker(maker, ranks, reference, most, weights)


def make_reference(recipe: Recipe, family: Family, precision: torch.dtype) -> Reference | None:
    """What a run compares with: its model before the first update; None if it does not compare."""
    if recipe.dpo is None:
        return None
    return Reference(family.model, text_range_of(family), precision)


def open_sources(recipe: Recipe) -> list[Source]:
    """The data sets of a recipe.

    Raises:
        FileNotFoundError: One does not exist.
        ValueError: One is no data set, or it is empty.
    """
    return [open_source(data.path) for data in recipe.data]


def make_updates(
    recipe: Recipe, sources: list[Source], batches: Batches[Any]
) -> ConversationUpdates[Any]:
    """The updates of a run."""
    stream = ConversationStream(
        sources,
        [data.weight for data in recipe.data],
        recipe.seed,
        recipe.epochs,
        on_error=recipe.batch.on_error,
    )
    return ConversationUpdates(stream, batches, recipe.batch.conversations)


def steps_of(recipe: Recipe, sources: list[Source]) -> int:
    """How many updates a run has; with epochs, at most.

    Raises:
        ValueError: Epochs are asked for, and the number of conversations is not known.
    """
    if recipe.steps is not None:
        return recipe.steps
    sizes = [source.size for source in sources]
    unknown = [s.name for s, size in zip(sources, sizes, strict=True) if size is None]
    if unknown:
        raise ValueError(
            f"{unknown[0]}: how many conversations are in there is known only at the end: give "
            "steps instead of epochs"
        )
    passed = sum(size or 0 for size in sizes) * (recipe.epochs or 1)
    return ceil(passed / recipe.batch.conversations)


def make_loss(family: Family, recipe: Recipe) -> FineTuningLoss | DpoLoss:
    """The loss of a family's model."""
    if (keys := recipe.dpo) is not None:
        return DpoLoss(family.model, text_range_of(family), keys.beta, keys.label_smoothing)
    return make_supervised_loss(family, recipe)


def make_supervised_loss(family: Family, recipe: Recipe) -> FineTuningLoss:
    """The loss of a family's model on conversations that are learned as they are."""
    return FineTuningLoss(family.model, text_range_of(family), recipe.loss.z_loss)


def make_optimiser(model: UnifiedModel, keys: OptimiserKeys) -> torch.optim.Optimizer:
    """The optimiser of the weights that are trainable."""
    if keys.name == "adamw":
        return make_adamw(model, keys.weight_decay)
    layers = [model.decoder.blocks, *([model.vision.blocks] if model.vision is not None else [])]
    return make_muon(model, layers, keys.weight_decay)


def make_schedule(keys: OptimiserKeys, steps: int) -> Schedule:
    """The learning rate of each update."""
    warmup = max(1, keys.warmup)
    if keys.schedule == "cosine":
        return WarmupCosine(keys.learning_rate, warmup, steps)
    if keys.schedule == "linear":
        return WarmupLinear(keys.learning_rate, warmup, steps)
    return WarmupConstant(keys.learning_rate, warmup)


def held_out_batches(
    recipe: Recipe, family: Family, ranks: Ranks, reference: Reference | None = None
) -> Sequence[PackedBatch | PreferenceBatch]:
    """This rank's batches of the conversations that are not learned; none if there are none.

    Raises:
        FileNotFoundError, ValueError: As `open_sources`, or a conversation is wrong.
    """
    if recipe.held_out.path is None:
        return []
    source, on_error = open_source(recipe.held_out.path), recipe.batch.on_error
    stream = ConversationStream([source], epochs=1, shuffle=False, on_error=on_error)
    conversations = stream.next_update(recipe.held_out.conversations)
    maker = make_sequences(recipe, family, dropout=0.0)
    return make_batches(recipe, maker, ranks, reference).batches(conversations)
