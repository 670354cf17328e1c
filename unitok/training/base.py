"""The model that a run begins from."""

from __future__ import annotations

import torch

from unitok.checkpoints.folders import HubOptions, find_folder
from unitok.families import Family, open_folder
from unitok.loading import DEFAULT_FOLDER
from unitok.training.parts import choose_parts
from unitok.training.recipe import LoraKeys, Recipe


def open_base(recipe: Recipe, device: torch.device | str, dtype: torch.dtype) -> Family:
    """Open a recipe's model, make what it trains trainable, and freeze the rest.

    Adapters begin at random, by torch's random state.

    Args:
        recipe: Of the run.
        device: Where the weights are put.
        dtype: Of the weights that were stored; adapters are float32.

    Raises:
        FileNotFoundError: There is no such model.
        ValueError: It cannot be read, or has no such parts.
    """
    folder = find_folder(DEFAULT_FOLDER if recipe.model is None else recipe.model, HubOptions())
    family = open_folder(folder, str(device), dtype)
    if recipe.lora is None:
        choose_parts(family.model, recipe.train.parts, recipe.train.freeze)
    else:
        add_adapters(family, recipe.lora)
    family.model.train()
    family.model.image_tokenizer.eval()  # it only gives codes, which must not depend on dropout
    return family


def add_adapters(family: Family, keys: LoraKeys) -> None:
    """Give a model adapters, and freeze all else."""
    from unitok.training.lora import LoraOptions, add_lora

    add_lora(family.model, LoraOptions(**vars(keys)))
