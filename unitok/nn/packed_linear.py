"""Linear layers on a CPU whose weights are stored only in the layout that oneDNN's kernels read.

A few rows times a weight is fastest from a blocked layout, which oneDNN
(https://github.com/uxlfoundation/oneDNN) otherwise makes anew at every call, or does without. With
a weight that was packed before, a call takes about half as long, in float32 and in bfloat16.

A kernel of oneDNN is compiled for one number of rows, which costs milliseconds and half a megabyte.
So rows are padded to one of few numbers, and more rows than the last one are run in pieces.

To pack a layer takes as long as tens of calls. So that a first answer is not late, the layers of a
large model run unpacked for a while, and are then packed one at a step.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from unitok.nn.linear import LinearReplacement, Linears, find_linears, replace_linears

ROWS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256)
"""The numbers of rows that kernels are compiled for. Two calls of 128 rows, and the copy that joins
them, take a quarter longer than one of 256; larger pieces than these gain nothing."""
LARGE = 4 * 2**20
"""Bytes of a layer whose weights no core keeps in its cache."""
ROWS_OF_LARGE = ROWS[2:]
"""The numbers for large layers. Memory alone sets the pace of few rows, but on an AMD EPYC (Zen 4),
kernels of one or two rows read a fifth slower than that of four."""
SMALL = 64 * 2**20
"""Bytes of weights that are packed at the first call, since that takes no noticeable time."""
PATIENCE = 16
"""Calls of a large model's layers before the first one is packed."""


class PackedLinear(LinearReplacement):
    """Frozen linear layers of one input, run as one by a oneDNN kernel.

    They are packed at the first call after some others, and the weights that they were made from
    are freed. The state dict unpacks them.
    """

    def __init__(self, layers: Linears, after: int = 0) -> None:
        """Take layers over.

        Args:
            layers: The layers by name, all with a bias or all without.
            after: The number of calls before the one that packs them.
        """
        super().__init__(layers)
        self._dense = [layer.weight.detach() for layer in layers.values()]
        self._packed: Tensor | None = None
        self._calls_left = after
        self._dtype = self._dense[0].dtype
        biases = [layer.bias.detach() for layer in layers.values() if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None
        self._row_sizes = ROWS_OF_LARGE if self.nbytes >= LARGE else ROWS

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., sum of out_features].

        Raises:
            RuntimeError: The input has another dtype than the weights, or wants gradients.
        """
        if torch.compiler.is_compiling():  # `unitok.nn.compiled` packs before, and pads rows
            return packed_linear(x, self._packed, self._bias, sum(self.out_features))
        if x.dtype is not self._dtype:
            raise RuntimeError(f"the input's dtype is {x.dtype}, the weight's {self._dtype}")
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("the model is packed for inference and has no gradients")
        packed = self._packed
        if packed is None:
            if self._calls_left > 0:
                self._calls_left -= 1
                return self._run_dense(x)
            packed = self.pack()
        return in_pieces(x, lambda some: _run(some, packed, self._bias), self._row_sizes)

    # Hooks would cost microseconds dozens of times a step, and only prepared models are packed.
    __call__ = forward

    @property
    def nbytes(self) -> int:
        """How much memory the weights and biases take."""
        numbers = sum(self.out_features) * self.in_features
        return numbers * self._dtype.itemsize + sum(bias.nbytes for bias in self.biases())

    @property
    def row_sizes(self) -> Sequence[int]:
        """See `LinearReplacement.row_sizes`."""
        return self._row_sizes

    @property
    def rounds_alike(self) -> bool:
        """Whether no call runs unpacked weights any more, which may round otherwise."""
        return self._calls_left == 0

    def pack(self) -> Tensor:
        """Pack the weights now, if that is not done yet, and return them in oneDNN's layout."""
        packed = self._packed
        if packed is None:
            self._packed = packed = _reorder(self._dense)
            self._dense = []  # afterwards: another thread may read the weights meanwhile
        return packed

    def weights(self) -> Sequence[Tensor]:
        """Return each layer's weight [its out_features, in_features], unpacked."""
        dense, packed = self._dense, self._packed
        if packed is None:
            return dense
        return packed.to_dense().split(self.out_features)

    def biases(self) -> Sequence[Tensor]:
        """Return each layer's bias [its out_features], or nothing if they have none."""
        return () if self._bias is None else self._bias.split(self.out_features)

    @property
    def like(self) -> Tensor:
        """A tensor on the device and of the type of the weights."""
        return torch.empty(0, dtype=self._dtype)

    def update(self, weights: Mapping[str, Tensor], biases: Mapping[str, Tensor]) -> None:
        """Put other numbers in the place of some layers' weights and biases.

        What is packed is packed anew, which takes the memory of the layer twice for a moment.
        """
        for name, bias in zip(self.names, self.biases(), strict=False):
            if name in biases:
                bias.copy_(biases[name])
        if weights and self._packed is not None:
            whole = len(weights) == len(self.names)
            old = weights if whole else dict(zip(self.names, self.weights(), strict=True))
            # What was compiled for tensors with or without inference mode serves no others.
            with torch.inference_mode(self._packed.is_inference()):
                self._packed = _reorder([weights.get(name, old[name]) for name in self.names])
        elif weights:
            for name, dense in zip(self.names, self._dense, strict=True):
                if name in weights:
                    dense.copy_(weights[name])

    def _run_dense(self, x: Tensor) -> Tensor:
        out = [linear(x, weight) for weight in self._dense]
        joined = out[0] if len(out) == 1 else torch.cat(out, dim=-1)
        return joined if self._bias is None else joined + self._bias

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        raise RuntimeError("the model is packed for inference on a CPU: it cannot be converted")


def _reorder(weights: Sequence[Tensor]) -> Tensor:
    """Weights of one input, one below the other, in oneDNN's layout."""
    weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def in_pieces(x: Tensor, run: Callable[[Tensor], Tensor], sizes: Sequence[int] = ROWS) -> Tensor:
    """Run rows in numbers that kernels are compiled for.

    Args:
        x: The rows [..., in_features].
        run: Maps [..., in_features] to [..., out_features], if the number of rows is one of sizes.
        sizes: The numbers, in ascending order.

    Returns:
        What all rows become [..., out_features].
    """
    rows = x.numel() // x.shape[-1]
    if rows in sizes:
        return run(x)
    flat = x.reshape(rows, x.shape[-1])
    pieces = [_padded(piece, run, sizes) for piece in flat.split(sizes[-1])]
    out = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return out.view(*x.shape[:-1], out.shape[1])


def _padded(x: Tensor, run: Callable[[Tensor], Tensor], sizes: Sequence[int]) -> Tensor:
    """Run rows [n, in_features], n at most the last of the sizes, padded to one of them."""
    # A single row has a kernel of its own, which rounds otherwise: what is left over must not.
    rows = max(len(x), 2)
    missing = rows + rows_to_pad(rows, sizes) - len(x)
    return run(pad(x, (0, 0, 0, missing)) if missing else x)[: len(x)]


def rows_to_pad(rows: int, sizes: Sequence[int] = ROWS) -> int:
    """Return how many rows to add, so that a kernel is there for all; 0 if there are too many."""
    place = bisect_left(sizes, rows)
    return sizes[place] - rows if place < len(sizes) else 0


def pack(model: nn.Module, at_once: bool = False) -> int:
    """Replace the frozen linear layers of a model on a CPU by packed ones.

    Args:
        model: The model, which is changed in place.
        at_once: Whether each layer is packed at its first call, however large the model is.

    Returns:
        How many linear layers were replaced.
    """
    groups = [group.layers.values() for group in find_linears(model)]
    sizes = [layer.weight.nbytes for layers in groups for layer in layers if can_be_packed(layer)]
    waits = sum(sizes) > SMALL and not at_once
    delays = count(PATIENCE)

    def make(layers: Linears) -> nn.Module | None:
        alike = len({layer.bias is None for layer in layers.values()}) == 1
        if not alike or not all(map(can_be_packed, layers.values())):
            return None
        return PackedLinear(layers, next(delays) if waits else 0)

    return replace_linears(model, make)


def can_be_packed(layer: nn.Linear) -> bool:
    """Return whether a layer is frozen, and on a CPU that has kernels for its dtype."""
    weight = layer.weight
    if weight.requires_grad or not weight.is_cpu or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if weight.dtype is torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype is torch.float32


def _run(x: Tensor, packed: Tensor | None, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")


# Inductor's own way to take `_run` wants a constant weight, and so a compilation for each layer.
_operators = torch.library.Library("unitok", "DEF")
_operators.define(
    "packed_linear(Tensor x, Tensor packed, Tensor? bias, int out_features) -> Tensor"
)
_operators.impl("packed_linear", lambda x, packed, bias, _: _run(x, packed, bias), "CPU")
_operators.impl("packed_linear", lambda x, packed, bias, _: _run(x, packed, bias), "MkldnnCPU")
packed_linear = torch.ops.unitok.packed_linear.default


@torch.library.register_fake("unitok::packed_linear")
def _shape_of_output(x: Tensor, packed: Tensor, bias: Tensor | None, out_features: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], out_features)
