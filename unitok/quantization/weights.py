"""Which linear layers are quantised, and how: while a checkpoint is read, or of a whole model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from unitok.nn.linear import LinearGroup, Linears, find_linears
from unitok.nn.model import UnifiedModel
from unitok.quantization.int4 import Int4Linear, fits_int4
from unitok.quantization.int8 import Int8Linear
from unitok.shown import shown

Quantization = Literal["int8", "int4"]
QUANTIZATIONS: tuple[Quantization, ...] = ("int8", "int4")
DEVICES = ("cpu", "cuda")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

Make = Callable[[Linears], nn.Module]
"""Quantises linear layers of one input."""


@dataclass(frozen=True)
class Quantized:
    """A type of weights: few bits in the linear layers that are quantised, another elsewhere.

    Attributes:
        dtype: The type elsewhere, or what is to be made of the one that is stored.
        quantization: Which few bits.
    """

    dtype: torch.dtype | Callable[[torch.dtype], torch.dtype]
    quantization: Quantization


def check_quantization(
    asked: object, device: torch.device, dtype: torch.dtype | None
) -> Quantization | None:
    """Check what was asked of quantisation.

    Args:
        asked: One of QUANTIZATIONS; None for none.
        device: Where the model computes.
        dtype: The type that it was asked to compute in, if any.

    Raises:
        ValueError: There is no such quantisation, or the device or the type has none.
    """
    if asked is None:
        return None
    if not isinstance(asked, str) or asked not in QUANTIZATIONS:
        names = ", ".join(map(repr, QUANTIZATIONS))
        raise ValueError(f"quantize must be one of {names} or None, not {shown(asked)}")
    if device.type not in DEVICES:
        raise ValueError(
            f"quantize={asked!r} needs a device of {' or '.join(DEVICES)}, not {device.type}"
        )
    if dtype is not None and dtype not in DTYPES:
        names = ", ".join(str(kind).removeprefix("torch.") for kind in DTYPES)
        raise ValueError(
            f"quantize={asked!r} needs a dtype of {names}, not {str(dtype).removeprefix('torch.')}"
        )
    return asked


def groups_to_quantize(
    model: UnifiedModel, quantization: Quantization
) -> Iterator[tuple[LinearGroup, Make]]:
    """The linear layers that are quantised, with what quantises them.

    These are all of the decoder's blocks and the heads. In a model of 4 bits the heads have 8, and
    so have layers whose sizes 4 bits do not suit.
    """
    blocks = set(model.decoder.blocks.modules())
    for group in find_linears(model):
        if group.parent in blocks:
            yield group, make_int4 if quantization == "int4" else Int8Linear
        elif group.parent is model.image_head or group.layers.get("text_head") is model.text_head:
            yield group, Int8Linear


def make_int4(layers: Linears) -> nn.Module:
    """Layers of 4 bits; of 8, if 4 do not suit their sizes."""
    return Int4Linear(layers) if fits_int4(layers) else Int8Linear(layers)


class StreamedQuantizer:
    """Quantises the layers of a model that is being filled, as soon as they are there.

    So no more of the weights than one layer's lies in memory unquantised.
    """

    def __init__(self, model: UnifiedModel, quantization: Quantization) -> None:
        """Find the layers, whose weights may be without storage yet."""
        self._pending: dict[str, _Pending] = {}
        names = {module: name for name, module in model.named_modules()}
        for group, make in groups_to_quantize(model, quantization):
            keys = {
                f"{names[layer]}.{leaf}"
                for layer in group.layers.values()
                for leaf, parameter in layer._parameters.items()
                if parameter is not None
            }
            self._pending |= dict.fromkeys(keys, _Pending(group, make, keys))
        model.quantization = quantization

    def placed(self, key: str) -> None:
        """Note that a parameter is in its place, and quantise its layer if it was the last one."""
        pending = self._pending.pop(key, None)
        if pending is not None:
            pending.keys.discard(key)
            if not pending.keys:
                pending.group.replace(pending.make(pending.group.layers))


@dataclass(frozen=True)
class _Pending:
    group: LinearGroup
    make: Make
    keys: set[str]


def quantize_model(model: UnifiedModel, quantization: Quantization) -> None:
    """Quantise a model in memory, in place, before it is prepared for inference."""
    quantizer = StreamedQuantizer(model, quantization)
    for name in [name for name, _ in model.named_parameters()]:
        quantizer.placed(name)
