"""Weights of 8 bits: a whole number from -127 to 127 for each, and a scale for each output.

Activations stay precise. A row is scaled to whole numbers of 16 bits, which are two parts of 8 bits
each, and the weights are multiplied by both parts in one call: processors have instructions for
products of 8 bits. Their sums are exact. So what a row gets has the same bits however many rows
there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from unitok.nn.linear import Linears
from unitok.nn.packed_linear import LARGE, ROWS, in_pieces
from unitok.quantization.linear import QuantizedLinear

LARGEST = 127
"""Of the numbers of weights."""
LARGEST_OF_ROW = 127 * 256
"""Of the numbers of activations, whose higher part is at most 127."""
TINY = 1e-30
"""A weight or a row whose numbers are all smaller is zero."""
MIDDLE = 128
"""The byte that stands for 0 in a part of activations, as VNNI multiplies bytes without a sign."""
ONES = 3 * 2.0**22
"""A float32 of this size has a step of 1: what is added to it is rounded to a whole number, which
its lower bits are."""
SIZES = tuple(2 * rows for rows in ROWS)
"""The numbers of rows that oneDNN compiles kernels for: two parts for each row of activations."""
SIZES_OF_LARGE = SIZES[1:]
"""The numbers for large layers, where a kernel of four rows is faster than one of two (see
`unitok.nn.packed_linear`)."""
BLOCK = 128
"""Outputs that are quantised or dequantised at once, so that they stay in a CPU's cache."""


class Product(Protocol):
    """Multiplies by weights of 8 bits on a kind of device. It has a layout of their numbers."""

    def pack(self, numbers: Tensor) -> Tensor:
        """Bring numbers [out_features, in_features] of int8 into its layout."""
        ...

    def unpack(self, packed: Tensor) -> Tensor:
        """Bring them back."""
        ...

    def multiply(self, rows: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
        """Map rows [n, in_features] to their products [n, out_features], times scales.

        Rows are of uint8, and MIDDLE stands for 0.
        """
        ...


class OneDnnProduct:
    """By oneDNN (https://github.com/uxlfoundation/oneDNN), on CPUs with VNNI or AMX."""

    def pack(self, numbers: Tensor) -> Tensor:
        """See `Product`: inputs stand before outputs, in blocks."""
        return torch.ops.onednn.qlinear_prepack(numbers, None)

    def unpack(self, packed: Tensor) -> Tensor:
        """See `Product`."""
        return packed.to_dense().T.contiguous()

    def multiply(self, rows: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
        """See `Product`."""
        sizes = self.sizes(packed)
        return in_pieces(rows, lambda some: multiply_by_onednn(some, packed, scale), sizes)

    def sizes(self, packed: Tensor) -> Sequence[int]:
        """The numbers of rows that kernels are compiled for."""
        return SIZES_OF_LARGE if packed.numel() >= LARGE else SIZES


def multiply_by_onednn(rows: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
    """See `Product`; each new number of rows takes milliseconds more."""
    # Without AMX, oneDNN has but a reference for bytes with a sign: a thousand times the time.
    rows, offset = (with_sign(rows), 0) if has_amx() else (rows, MIDDLE)
    return torch.ops.onednn.qlinear_pointwise.default(
        rows, 1.0, offset, packed, scale, _no_offset(), None, 1.0, 0, torch.float32, "none", [], ""
    )


def with_sign(rows: Tensor) -> Tensor:
    """Turn bytes of which MIDDLE stands for 0 into int8."""
    return (rows ^ MIDDLE).view(torch.int8)


@cache
def has_amx() -> bool:
    """Whether the CPU has AMX, which multiplies bytes with and without a sign."""
    return bool(torch.cpu.get_capabilities().get("amx_int8", False))


@cache
def _no_offset() -> Tensor:
    """What 0 stands for among the numbers of weights: 0."""
    return torch.zeros(1, dtype=torch.int64, device="cpu")


class CudaProduct:
    """By cuBLASLt, on GPUs with tensor cores for whole numbers."""

    LEAST = 32
    """Rows that are multiplied at least: torch wants more than 16."""

    def pack(self, numbers: Tensor) -> Tensor:
        """Keep the numbers as they are."""
        return numbers

    def unpack(self, packed: Tensor) -> Tensor:
        """Return the numbers as they are."""
        return packed

    def multiply(self, rows: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
        """See `Product`."""
        missing = max(self.LEAST - len(rows), -len(rows) % 8)
        signed = with_sign(rows)
        padded = pad(signed, (0, 0, 0, missing)) if missing else signed
        return torch.ops.aten._int_mm.default(padded, packed.T)[: len(rows)] * scale


def product_for(device: torch.device, shape: torch.Size) -> Product | None:
    """What multiplies by weights of a shape on a device; None if nothing does."""
    if device.type == "cpu" and multiplies_int8():
        return OneDnnProduct()
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 5):
        return CudaProduct() if all(size % 8 == 0 for size in shape) else None
    return None


def multiplies_int8() -> bool:
    """Whether the CPU has VNNI or AMX. Without them, oneDNN's sums are not exact."""
    found = torch.cpu.get_capabilities()
    flags = ("avx512_vnni", "avx_vnni", "amx_int8")
    return torch.backends.mkldnn.is_available() and any(found.get(flag, False) for flag in flags)


class Int8Linear(QuantizedLinear):
    """Linear layers of one input whose weights have 8 bits."""

    def __init__(self, layers: Linears) -> None:
        """Quantise layers.

        Args:
            layers: The layers by name, all with a bias or all without.
        """
        super().__init__(layers)
        parts = [quantize(layer.weight.detach()) for layer in layers.values()]
        numbers, self._scale = (torch.cat(each) for each in zip(*parts, strict=True))
        self._product = product_for(self._device, numbers.shape)
        self._numbers = self._packed(numbers)

    def multiply(self, x: Tensor) -> Tensor:
        """See `QuantizedLinear`."""
        if self._product is None:
            return multiply_dequantized(x, self._numbers, self._scale)
        if torch.compiler.is_compiling() and x.is_cpu:
            return int8_linear(x, self._numbers, self._scale)
        return multiply_exactly(x, self._product, self._numbers, self._scale)

    def dense(self) -> Tensor:
        """See `QuantizedLinear`."""
        return self._unpacked() * self._scale[:, None]

    def put_rows(self, rows: slice, weight: Tensor) -> None:
        """See `QuantizedLinear`."""
        numbers = self._unpacked()
        numbers[rows], self._scale[rows] = quantize(weight)
        if not self._numbers.is_mkldnn:  # where they are, as what was recorded reads them there
            self._numbers.copy_(self._packed(numbers))
            return
        # What was compiled for tensors with or without inference mode serves no others.
        with torch.inference_mode(self._numbers.is_inference()):
            self._numbers = self._packed(numbers)

    @property
    def nbytes(self) -> int:
        """How much memory the weights and biases take."""
        biases = sum(bias.nbytes for bias in self.biases())
        return self._numbers.numel() + self._scale.nbytes + biases

    @property
    def rounds_alike(self) -> bool:
        """Whether the sums are exact."""
        return self._product is not None

    @property
    def row_sizes(self) -> Sequence[int]:
        """See `LinearReplacement.row_sizes`: there are some if oneDNN is used."""
        if not isinstance(self._product, OneDnnProduct):
            return ()
        return [size // 2 for size in self._product.sizes(self._numbers)]

    def _unpacked(self) -> Tensor:
        return self._product.unpack(self._numbers) if self._product else self._numbers

    def _packed(self, numbers: Tensor) -> Tensor:
        return self._product.pack(numbers) if self._product else numbers


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight.

    Args:
        weight: [out_features, in_features].

    Returns:
        Its numbers [out_features, in_features] in int8, and the scales [out_features] in float32.
    """
    numbers, scales = zip(*map(_quantize_block, weight.split(BLOCK)), strict=True)
    return torch.cat(numbers), torch.cat(scales)


def _quantize_block(weight: Tensor) -> tuple[Tensor, Tensor]:
    weight = weight.float()
    scale = (weight.abs().amax(1) / LARGEST).clamp_min(TINY)
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def multiply_exactly(x: Tensor, product: Product, packed: Tensor, scale: Tensor) -> Tensor:
    """Map rows [n, in_features] to [n, out_features] in float32, by sums of whole numbers."""
    parts, unit = split_in_parts(x)
    lower, higher = product.multiply(parts, packed, scale).chunk(2)
    return torch.add(lower, higher, alpha=256).mul_(unit)


def split_in_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """Turn rows into whole numbers.

    Args:
        x: The rows [n, k].

    Returns:
        The lower parts of the numbers, and below them the higher ones, [2 * n, k] in uint8, where
        MIDDLE stands for 0; and what 1 stands for in each row [n, 1]. A number is 256 times its
        higher part, and its lower one.
    """
    # After a weight has gone through a CPU's cache, each kind of operator costs microseconds.
    x = x.float()
    unit = x.abs().amax(-1, keepdim=True).clamp_min_(TINY).div_(LARGEST_OF_ROW)
    numbers = (x / unit).add_(ONES + 256 * MIDDLE + MIDDLE)
    # Of the four bytes of each the two lowest: a view of all lower parts, one of all higher ones.
    count, width = x.shape
    parts = numbers.view(torch.uint8).as_strided((2, count, width), (1, 4 * width, 4))
    return parts.reshape(2 * count, width), unit


def multiply_dequantized(x: Tensor, numbers: Tensor, scale: Tensor) -> Tensor:
    """Map rows [n, in_features] to [n, out_features] where there is nothing for whole numbers."""
    blocks = zip(numbers.split(BLOCK), scale.split(BLOCK), strict=True)
    dense = ((block * of[:, None]).to(x.dtype) for block, of in blocks)
    return torch.cat([linear(x, weight) for weight in dense], dim=-1)


# Inductor's own way to take oneDNN's operator wants constant weights.
_operators = torch.library.Library("unitok", "FRAGMENT")
_operators.define("int8_linear(Tensor x, Tensor packed, Tensor scale) -> Tensor")
for _key in ("CPU", "MkldnnCPU"):
    _operators.impl(
        "int8_linear", lambda x, *rest: multiply_exactly(x, OneDnnProduct(), *rest), _key
    )
int8_linear = torch.ops.unitok.int8_linear.default


@torch.library.register_fake("unitok::int8_linear")
def _shape_of_output(x: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
    return x.new_empty(len(x), len(scale), dtype=torch.float32)
