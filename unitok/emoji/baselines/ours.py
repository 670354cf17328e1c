"""The recipe of the embedded model, in the minutes of a baseline.

Its tokenizers are given, as MiniLM is given to the diffusion model: those of the embedded model.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

import unitok
from unitok.emoji.baselines.budget import Budget, TimedCosine
from unitok.emoji.baselines.states import plain_generator
from unitok.emoji.export import save_folder
from unitok.emoji.pretraining import EmojiUpdates, PretrainRun
from unitok.emoji.pretraining import make_trainer as make_pretrainer
from unitok.families.janus import Template
from unitok.loading import DEFAULT_FOLDER
from unitok.nn.config import DEFAULT, JanusConfig
from unitok.nn.model import UnifiedModel
from unitok.training.packing import PackedBatch
from unitok.training.trainer import Trainer
from unitok_tokenizers.text import TextTokenizer


class PlainUpdates:
    """The recipe's updates, whose state is plain values, as checkpoints in safetensors need it."""

    def __init__(self, updates: EmojiUpdates) -> None:
        self.updates = updates

    def __next__(self) -> list[PackedBatch]:
        """The batches of the next update."""
        return next(self.updates)

    def state_dict(self) -> dict[str, Any]:
        """Where all random streams stand."""
        return self.updates.state_dict() | {"generator": plain_generator(self.updates.generator)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        generator = torch.tensor(state["generator"], dtype=torch.uint8)
        self.updates.load_state_dict(state | {"generator": generator})


def make_trainer(
    run: PretrainRun, budget: Budget, config: JanusConfig = DEFAULT
) -> Trainer[PackedBatch]:
    """A trainer of a new model with the embedded model's tokenizers.

    Args:
        run: The recipe; the learning rate follows the budget, not its steps.
        budget: How long the run is.
        config: Sizes of the model, but for its image tokenizer.
    """
    embedded = unitok.load(device=run.device)
    tokenizer = cast(UnifiedModel, embedded.family.model).image_tokenizer
    embedded.close()
    config = replace(config, image_tokenizer=tokenizer.config)
    trainer = make_pretrainer(config, tokenizer, template_of(config), run)
    trainer.schedule = TimedCosine(run.lr, run.warmup, budget)
    trainer.updates = PlainUpdates(cast(EmojiUpdates, trainer.updates))
    return trainer


def template_of(config: JanusConfig) -> Template:
    """The conversation format, with the embedded model's text tokenizer."""
    return Template(TextTokenizer.load(DEFAULT_FOLDER), config.vision.patches)


def save(trainer: Trainer[Any], folder: Path) -> None:
    """Write the model as a folder that `unitok.load` opens."""
    model = cast(UnifiedModel, trainer.model)
    save_folder(model, template_of(cast(JanusConfig, model.config)), DEFAULT_FOLDER, folder)
