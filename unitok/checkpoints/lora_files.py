"""Folders of low-rank adapters in PEFT's format, with the names of transformers' classes.

A folder holds adapter_config.json and adapter_model.safetensors. Ours hold the fingerprint of their
base too, see `unitok.checkpoints.fingerprint`. `unitok.checkpoints.lora_saving` writes them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from unitok.checkpoints.adapter import StateDictAdapter, Stored
from unitok.checkpoints.fingerprint import check_base
from unitok.checkpoints.lora_settings import LoraSettings, read_lora_settings
from unitok.checkpoints.tensors import SafetensorsFile, Tensors
from unitok.checkpoints.weights import FLOATS, check_finite, parameters
from unitok.nn.linear import linear_shapes
from unitok.nn.lora import LoraAdapter, LowRank
from unitok.nn.model import UnifiedModel
from unitok.shown import shown

FILE = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
PREFIX = "base_model.model."  # what PEFT puts before the names of the class that it wraps
A, B = ".lora_A.weight", ".lora_B.weight"


class Base(Protocol):
    """What an adapter is for: a family.

    Attributes:
        name: For people.
        model: The weights.
        weight_names: Where its parameters are in the classes that adapters are made with.
    """

    name: str
    model: UnifiedModel

    @property
    def weight_names(self) -> Sequence[StateDictAdapter]:
        """The first one is for writing, all are for reading."""
        ...


def read_adapter(folder: Path, base: Base, name: str | None = None) -> LoraAdapter:
    """Read an adapter of a base, which may be prepared for inference.

    Args:
        folder: The adapter's.
        base: What it is for.
        name: What it is called; by default as its folder.

    Returns:
        The adapter in float32, on the CPU.

    Raises:
        FileNotFoundError: There is no such folder, or a file in it is missing.
        ValueError: It is of another base, of another kind than plain LoRA, or changes what the
            model does not have; a tensor has a wrong shape or type, or holds NaN or infinity; a
            file cannot be read.
    """
    settings = _read_settings(folder)
    tensors = SafetensorsFile(_weights_of(folder))
    check_base(folder, base.name, base.model)
    stored = {name_in_class(name): name for name in sorted(tensors.names)}
    layout = Layout.best(base, stored)
    _check_known(stored, layout, settings, base, folder)
    reader = Reader(tensors, stored, layout, settings)
    return LoraAdapter.of(name or folder.resolve().name, reader.layers(), reader.full(base))


def name_in_class(name: str) -> str:
    """The name in the class of a tensor in the file.

    PEFT wraps the class, and writes the weight of a text head beside what is added to it.
    """
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")


def _read_settings(folder: Path) -> LoraSettings:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    return read_lora_settings(folder)


def _weights_of(folder: Path) -> Path:
    path = folder / FILE
    if path.is_file():
        return path
    if (folder / PICKLE).is_file():
        raise ValueError(
            f"{folder} has {PICKLE}, which may run code and is not opened; save the adapter as "
            f"{FILE}"
        )
    raise FileNotFoundError(f"{path} is missing; the folder is not complete")


@dataclass(frozen=True)
class Layout:
    """The names of a model's linear layers in one class.

    Attributes:
        names: Where each of our parameters is there.
        layers: The names of linear layers there -> those of ours that they hold, which are several
            if they are fused there.
        shapes: The names of ours -> out_features, in_features.
    """

    names: StateDictAdapter
    layers: Mapping[str, Sequence[tuple[str, Stored]]]
    shapes: Mapping[str, tuple[int, int]]

    @classmethod
    def best(cls, base: Base, names: Collection[str]) -> "Layout":
        """The layout that knows the most of an adapter's layers, the first of several."""
        layouts = [cls.of(base, adapter) for adapter in base.weight_names]
        asked = {layer_of(name) for name in names}
        return max(layouts, key=lambda layout: len(asked & layout.layers.keys()))

    @classmethod
    def of(cls, base: Base, names: StateDictAdapter) -> "Layout":
        """The layout that a class has."""
        shapes = linear_shapes(base.model)
        layers: dict[str, list[tuple[str, Stored]]] = {}
        for name in shapes:
            stored = names(f"{name}.weight")
            layers.setdefault(stored.name.removesuffix(".weight"), []).append((name, stored))
        return cls(names, layers, shapes)


def layer_of(name: str) -> str | None:
    """The layer that a tensor of an adapter is of; None if it is of no low-rank product."""
    for end in (A, B):
        if name.endswith(end):
            return name.removesuffix(end)
    return None


def _check_known(
    stored: Mapping[str, str], layout: Layout, settings: LoraSettings, base: Base, folder: Path
) -> None:
    """Raise ValueError for an adapter of nothing, of half a layer, or of what there is not."""
    layers = {layer for name in stored if (layer := layer_of(name)) is not None}
    if not stored:
        raise ValueError(f"{folder / FILE} holds no tensors")
    for layer in sorted(layers):
        for end in (A, B):
            if layer + end not in stored:
                raise ValueError(f"{folder / FILE}: {layer}{end} is missing")
    if unknown := sorted(layers - layout.layers.keys()):
        raise ValueError(
            f"{folder} changes {len(unknown)} layers that {base.name} does not have, such as "
            f"{unknown[0]}{said_base(settings)}"
        )


def said_base(settings: LoraSettings) -> str:
    """What an adapter says of its base, as the end of a message."""
    made = shown(settings.base)
    return f"; it says that it was made for {made}" if settings.base else ""


@dataclass(frozen=True)
class Reader:
    """Reads the tensors of an adapter.

    Attributes:
        tensors: Of its file.
        stored: The names of its tensors in the class -> in the file.
        layout: What the names of the class mean.
        settings: Its ranks and scales.
    """

    tensors: Tensors
    stored: Mapping[str, str]
    layout: Layout
    settings: LoraSettings

    def layers(self) -> dict[str, LowRank]:
        """What is added to our linear layers."""
        found = sorted({layer for name in self.stored if (layer := layer_of(name)) is not None})
        return {ours: added for layer in found for ours, added in self._layer(layer)}

    def _layer(self, layer: str) -> Iterator[tuple[str, LowRank]]:
        """What is added to a layer of the class, which may be several of ours side by side."""
        ours = self.layout.layers[layer]
        rank, shapes = self.settings.rank_of(layer), [self.layout.shapes[name] for name, _ in ours]
        a = self._tensor(layer + A, (rank, shapes[0][1]))
        b = self._tensor(layer + B, (sum(rows for rows, _ in shapes), rank))
        for name, stored in ours:
            yield name, LowRank(a, stored.take(b), self.settings.scale_of(layer))

    def full(self, base: Base) -> dict[str, Tensor]:
        """Our parameters that were trained in full; those that are as in the base are left out."""
        others = {name for name in self.stored if layer_of(name) is None}
        if not others:
            return {}
        known: dict[str, list[tuple[str, Stored, Tensor]]] = {}
        for key, value in parameters(base.model).items():
            stored = self.layout.names(key)
            known.setdefault(stored.name, []).append((key, stored, value))
        if unknown := sorted(others - known.keys()):
            raise ValueError(
                f"{self.tensors.source}: {unknown[0]} is neither plain LoRA of a linear layer nor "
                f"a parameter of {base.name}"
            )
        found = [
            (key, value, self._full(name, stored, value))
            for name in sorted(others)
            for key, stored, value in known[name]
        ]
        return {key: new for key, old, new in found if not torch.equal(new.to(old), old)}

    def _full(self, name: str, stored: Stored, value: Tensor) -> Tensor:
        """Our parameter that is trained in full, out of the tensor that holds it."""
        found = stored.take(self._tensor(name, None))
        if found.shape != value.shape:
            raise ValueError(self._wrong(name, tuple(found.shape), tuple(value.shape)))
        return found

    def _tensor(self, name: str, shape: tuple[int, ...] | None) -> Tensor:
        """A tensor in float32, whose shape and type are looked at before it is read."""
        key = self.stored[name]
        found, kind = self.tensors.shape(key), self.tensors.dtype(key)
        if shape is not None and found != shape:
            raise ValueError(self._wrong(name, found, shape))
        if kind not in FLOATS:
            raise ValueError(f"{self.tensors.source}: {name} is of type {kind}, which is no float")
        tensor = self.tensors.tensor(key)
        check_finite(tensor, key, self.tensors)
        return tensor.float()

    def _wrong(self, name: str, found: tuple[int, ...], shape: tuple[int, ...]) -> str:
        shapes = f"{list(found)}, not {list(shape)}"
        return f"{self.tensors.source}: {name} is {shapes}{said_base(self.settings)}"
