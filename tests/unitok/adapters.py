"""Random adapters, and the models that they are merged into."""

import re
from pathlib import Path

import torch

import unitok
from unitok.checkpoints.fingerprint import fingerprint_of
from unitok.checkpoints.lora_saving import write_adapter
from unitok.families import Family, open_folder
from unitok.nn.linear import linear_shapes
from unitok.nn.lora import LoraAdapter, LowRank, merge
from unitok.nn.model import UnifiedModel

SERVED = r"decoder\.blocks\..*|text_head|image_head\.fc[12]"


def random_adapter(
    model: UnifiedModel, seed: int, layers: str = SERVED, rank: int = 3, name: str = "random"
) -> LoraAdapter:
    """An adapter of the layers that a regular expression names, with large random numbers."""
    generator = torch.Generator().manual_seed(seed)
    shapes = linear_shapes(model).items()
    added = {
        layer: LowRank(
            torch.randn(rank, width, generator=generator) * 0.3,
            torch.randn(out, rank, generator=generator) * 0.3,
            0.5,
        )
        for layer, (out, width) in sorted(shapes)
        if re.fullmatch(layers, layer)
    }
    return LoraAdapter.of(name, added, {})


def opened(folder: Path) -> Family:
    """The checkpoint of a folder, which nothing was done to yet."""
    return open_folder(folder, "cpu", torch.float32)


def merged(folder: Path, adapter: LoraAdapter) -> unitok.Model:
    """A model that an adapter was merged into."""
    family = opened(folder)
    merge(family.model, adapter)
    return unitok.Model(family)


def saved(adapter: LoraAdapter, folder: Path, model_folder: Path) -> Path:
    """The folder of an adapter in PEFT's form."""
    family = opened(model_folder)
    write_adapter(adapter, folder, family, fingerprint_of(family.model))
    return folder
