"""The model that makes rollouts: a copy of the model in training, whose weights follow it.

It is prepared for inference and computes in the type that is wanted there. Adapters are merged, so
that they cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unitok.api import Model
from unitok.checkpoints.folders import HubOptions, find_folder
from unitok.cores import has_idle_core
from unitok.families import Family, open_folder
from unitok.image_decoder import ImageDecoder
from unitok.loading import DEFAULT_FOLDER
from unitok.nn.lora import LowRank
from unitok.nn.model import UnifiedModel
from unitok_engine import EngineConfig

MEGABYTE = 2**20


def open_rollout_model(
    model: str | None, device: torch.device, dtype: torch.dtype, memory: int | None = None
) -> Model:
    """Open a base model for rollouts. It is not merged with what is trained yet.

    Args:
        model: A folder or a hub id; None for the embedded model.
        device: Where it computes.
        dtype: In which type.
        memory: Megabytes of keys and values; None for what suits the device.

    Raises:
        FileNotFoundError: There is no such model.
        ValueError: It cannot be read.
    """
    folder = find_folder(DEFAULT_FOLDER if model is None else model, HubOptions())
    family = open_folder(folder, str(device), dtype)
    size = None if memory is None else memory * MEGABYTE
    config = EngineConfig(memory=size, max_context=family.max_context)
    return Model(family, config, rollout_image_decoder(family.model.device))


def rollout_image_decoder(device: torch.device) -> ImageDecoder:
    """An image decoder for many drawings that end in the same steps: it decodes them together.

    A thread beside the steps of a CPU decodes one after the other, as its batches, and with them
    the last bits of pixels, would depend on time.
    """
    return ImageDecoder(device, batched=device.type == "cuda" or not has_idle_core())


def follow(model: Model, learner: Family, version: int) -> None:
    """Give a rollout model the weights that are trained, as they are now, unless it has them.

    Nothing is found any more of what was computed with others. Results carry the version.

    Args:
        model: The rollout model, of the same base.
        learner: The model in training.
        version: Of the weights, which grows with each change.
    """
    if version > model.weight_version:
        model.update_weights(trained_weights(learner.model), version)


@torch.no_grad()
def trained_weights(model: UnifiedModel) -> Mapping[str, Tensor]:
    """The weights that are trained by the names that a model without adapters has for them.

    Low-rank products are added to the weights of their layers.
    """
    if model.lora is None:
        return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    from unitok.training.lora import adapter_of

    adapter = adapter_of(model)
    found = {name: merged(model, name, added) for name, added in adapter.layers.items()}
    return {f"{name}.weight": weight for name, weight in found.items()} | dict(adapter.full)


def merged(model: UnifiedModel, name: str, added: LowRank) -> Tensor:
    """The weight of a linear layer with its low-rank product, in float32."""
    base = model.get_parameter(f"{name}.base_layer.weight")
    return base.float() + added.product(base.device)
