"""The result of a run as a folder that `unitok.load` opens."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from unitok.families import Family
from unitok.training.base import open_base
from unitok.training.recipe import Recipe
from unitok.training.trainer import Trainer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def result_path(recipe: Recipe) -> Path:
    """The folder that a run ends with."""
    return Path(recipe.out) / ("model" if recipe.lora is None else "adapter")


def check_place(recipe: Recipe) -> None:
    """Raise FileExistsError if the result of a new run would replace what is none of its own."""
    target = result_path(recipe)
    if target.exists() or target.is_symlink():
        raise FileExistsError(
            f"{target} exists, and there is no checkpoint of a run that wrote it: move it away, or "
            "choose another folder as out"
        )


def gathered_weights(trainer: Trainer[Any]) -> dict[str, Tensor]:
    """The trained weights, or their averages if there are such, whole and on the CPU.

    All ranks call it, and rank 0 gets them.
    """
    weights = trainer.trained_by_name if trainer.ema is None else trainer.ema.averages
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        tensor = weight.detach()
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if trainer.ranks.is_first:
            found[name] = whole.to("cpu", copy=True)
    return found


def write_result(recipe: Recipe, weights: Mapping[str, Tensor]) -> Path:
    """Write the tuned model, or the adapters.

    The base model is opened anew, so that what was sharded, cast or prepared for training leaves no
    trace.

    Args:
        recipe: Of the run.
        weights: Those that were trained, by name.

    Returns:
        The folder, as `result_path` names it.

    Raises:
        OSError: The disk is full, or cannot be written.
        ValueError: The family cannot be saved.
    """
    family = open_base(recipe, "cpu", DTYPES[recipe.save_as])
    target = result_path(recipe)
    unfinished = target.with_name(f".{target.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    fill_in(family, weights)
    if recipe.lora is None:
        family.save(unfinished, None)
    else:
        from unitok.training.lora import save_adapter

        save_adapter(family, unfinished)
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    return target


@torch.no_grad()
def fill_in(family: Family, weights: Mapping[str, Tensor]) -> None:
    """Give a model the weights that were trained."""
    parameters = dict(family.model.named_parameters())
    for name, weight in weights.items():
        parameters[name].copy_(weight)
