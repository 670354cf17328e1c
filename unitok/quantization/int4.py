"""Weights of 4 bits: a number from 0 to 15 for each, and a scale and an offset for each group.

A group is 32 weights of one output that follow each other. A weight is (number - 8) * scale +
offset, as torch's kernels want it. They compute in bfloat16, whatever the type of the model is.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from unitok.nn.linear import Linears
from unitok.precision import computes_bf16
from unitok.quantization.linear import QuantizedLinear

GROUP = 32
"""Weights that share a scale and an offset."""
PART = 64
"""Outputs whose numbers lie together. A layer's outputs, and its inputs, are a multiple of it."""
HIGHEST = 15
"""Of the numbers."""
MIDDLE = 8
"""The number that stands for the offset alone."""
TINY = 1e-30
"""The least scale: a group may be one number over and over."""
BLOCK = 512
"""Outputs that are quantised or dequantised at once, so that they stay in a CPU's cache."""
FEW = 48
"""Up to so many rows torch's kernel on a CPU is faster. Its time grows with the rows."""


class Kernel(Protocol):
    """Multiplies by weights of 4 bits on a kind of device. It has a layout of their numbers."""

    def pack(self, numbers: Tensor) -> Tensor:
        """Bring numbers [out_features, in_features] of uint8 into its layout."""
        ...

    def unpack(self, packed: Tensor) -> Tensor:
        """Bring them back."""
        ...

    def multiply(self, x: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
        """Map rows [n, in_features] to [n, out_features].

        Args:
            x: The rows.
            packed: The numbers in its layout.
            scales: The scale and the offset of each group [in_features / GROUP, out_features, 2].
        """
        ...


class PlainKernel:
    """By weights that are dequantised for each product, on any device.

    A byte holds the numbers of two outputs of a part, those of the first half in its lower bits.
    """

    part = PART

    def pack(self, numbers: Tensor) -> Tensor:
        """See `Kernel`: the layout is [parts, in_features, half a part]."""
        halves = numbers.view(-1, 2, self.part // 2, numbers.shape[1])
        return (halves[:, 0] | (halves[:, 1] << 4)).transpose(1, 2).contiguous()

    def unpack(self, packed: Tensor) -> Tensor:
        """See `Kernel`."""
        return unpack_parts(packed).transpose(1, 2).reshape(-1, packed.shape[1])

    def multiply(self, x: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
        """See `Kernel`."""
        kind = torch.bfloat16 if computes_bf16(x.device) else torch.float32
        x = x.to(kind)
        blocks = zip(packed.split(BLOCK // self.part), scales.split(BLOCK, 1), strict=True)
        return torch.cat([x @ dequantize_parts(*block, kind) for block in blocks], dim=-1)


class Avx512Kernel(PlainKernel):
    """By torch's kernel for CPUs with AVX-512, whose layout is the plain one, if rows are few."""

    def multiply(self, x: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
        """See `Kernel`."""
        if len(x) > FEW:
            return super().multiply(x, packed, scales)
        flat = packed.view(scales.shape[1], -1)
        return torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.bfloat16().contiguous(), flat, GROUP, scales
        )


class Avx2Kernel(Avx512Kernel):
    """The same for CPUs with AVX2, for which parts are half as large."""

    part = PART // 2


class CudaKernel:
    """By torch's kernel for GPUs with tensor cores for bfloat16."""

    def pack(self, numbers: Tensor) -> Tensor:
        """See `Kernel`: tiles of 8 outputs and 16 inputs, several in a row."""
        pairs = ((numbers[:, ::2] << 4) | numbers[:, 1::2]).contiguous()
        tiles = next(n for n in (8, 4, 2) if numbers.shape[1] % (16 * n) == 0)
        return torch.ops.aten._convert_weight_to_int4pack(pairs, tiles)

    def unpack(self, packed: Tensor) -> Tensor:
        """See `Kernel`: the product with the unit matrix, a scale of 1 and an offset of 8."""
        outputs, inputs = 8 * packed.shape[0], 32 * packed.shape[1] * packed.shape[3]
        unit = torch.eye(inputs, dtype=torch.bfloat16, device=packed.device)
        scales = unit.new_tensor([1, MIDDLE]).expand(inputs // GROUP, outputs, 2).contiguous()
        return self.multiply(unit, packed, scales).T.to(torch.uint8).contiguous()

    def multiply(self, x: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
        """See `Kernel`."""
        return torch.ops.aten._weight_int4pack_mm(x.bfloat16().contiguous(), packed, GROUP, scales)


def kernel_for(device: torch.device) -> Kernel:
    """What multiplies on a device."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return CudaKernel()
    if device.type == "cpu":
        kernels = {"AVX512": Avx512Kernel, "AVX2": Avx2Kernel}
        return kernels.get(torch.backends.cpu.get_cpu_capability(), PlainKernel)()
    return PlainKernel()


class Int4Linear(QuantizedLinear):
    """Linear layers of one input whose weights have 4 bits."""

    def __init__(self, layers: Linears) -> None:
        """Quantise layers.

        Args:
            layers: The layers by name, all with a bias or all without. `fits_int4` is true of them.
        """
        super().__init__(layers)
        parts = [quantize(layer.weight.detach()) for layer in layers.values()]
        numbers, scales = zip(*parts, strict=True)
        self._kernel = kernel_for(self._device)
        self._numbers = self._kernel.pack(torch.cat(numbers))
        self._scales = torch.cat(scales, dim=1)

    def multiply(self, x: Tensor) -> Tensor:
        """See `QuantizedLinear`."""
        if torch.compiler.is_compiling() and x.is_cpu:
            return int4_linear(x, self._numbers, self._scales)
        return self._kernel.multiply(x, self._numbers, self._scales)

    def dense(self) -> Tensor:
        """See `QuantizedLinear`."""
        return dequantize(self._kernel.unpack(self._numbers), self._scales)

    def put_rows(self, rows: slice, weight: Tensor) -> None:
        """See `QuantizedLinear`."""
        numbers = self._kernel.unpack(self._numbers)
        numbers[rows], scales = quantize(weight)
        self._numbers.copy_(self._kernel.pack(numbers))
        self._scales[:, rows] = scales

    @property
    def nbytes(self) -> int:
        """How much memory the weights and biases take."""
        biases = sum(bias.nbytes for bias in self.biases())
        return self._numbers.nbytes + self._scales.nbytes + biases


def fits_int4(layers: Linears) -> bool:
    """Whether all layers have sizes that their numbers can be laid out in."""
    sizes = [size for layer in layers.values() for size in layer.weight.shape]
    return all(size % PART == 0 for size in sizes)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight.

    Args:
        weight: [out_features, in_features].

    Returns:
        Its numbers [out_features, in_features] in uint8, and the scale and the offset of each group
        [in_features / GROUP, out_features, 2] in bfloat16.
    """
    numbers, scales = zip(*map(_quantize_block, weight.split(BLOCK)), strict=True)
    return torch.cat(numbers), torch.cat(scales, dim=1)


def _quantize_block(weight: Tensor) -> tuple[Tensor, Tensor]:
    groups = weight.float().view(len(weight), -1, GROUP)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    scale = ((high - low) / HIGHEST).clamp_min(TINY).bfloat16()
    offset = (low + MIDDLE * scale.float()).bfloat16()
    exact = (groups - offset.float()) / scale.float() + MIDDLE
    numbers = exact.round_().clamp_(0, HIGHEST).to(torch.uint8).view(weight.shape)
    return numbers, torch.cat([scale, offset], dim=-1).transpose(0, 1)


def dequantize(numbers: Tensor, scales: Tensor) -> Tensor:
    """Compute weights [out_features, in_features] in float32, as `quantize` rounded them."""
    scale, offset = scales.float().transpose(0, 1).unsqueeze(2).unbind(-1)
    groups = numbers.view(len(numbers), -1, GROUP)
    return ((groups.float() - MIDDLE) * scale + offset).view(numbers.shape)


def unpack_parts(packed: Tensor) -> Tensor:
    """The numbers [parts, in_features, part] of bytes [parts, in_features, half a part]."""
    return torch.cat([packed & HIGHEST, packed >> 4], dim=-1)


def dequantize_parts(packed: Tensor, scales: Tensor, kind: torch.dtype) -> Tensor:
    """Compute weights [in_features, out_features] of parts in the plain layout."""
    numbers = unpack_parts(packed).transpose(0, 1).reshape(len(scales), GROUP, -1)
    numbers = numbers.view(torch.int8)  # of which a conversion takes a quarter of the time
    scale, offset = (each.contiguous() for each in scales.to(kind).unsqueeze(1).unbind(-1))
    weight = torch.addcmul(offset - MIDDLE * scale, numbers.to(kind), scale)
    return weight.view(packed.shape[1], -1)


# Inductor's own way to take the operator wants constant weights.
_operators = torch.library.Library("unitok", "FRAGMENT")
_operators.define("int4_linear(Tensor x, Tensor packed, Tensor scales) -> Tensor")
_operators.impl("int4_linear", lambda x, *rest: kernel_for(x.device).multiply(x, *rest), "CPU")
int4_linear = torch.ops.unitok.int4_linear.default


@torch.library.register_fake("unitok::int4_linear")
def _shape_of_output(x: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    return x.new_empty(len(x), scales.shape[1], dtype=torch.bfloat16)
