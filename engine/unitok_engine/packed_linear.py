"""Linear layers on a CPU whose weights lie as oneDNN's kernels read them, once and for all.

A few rows times a weight is quickest from a blocked layout, which oneDNN
(https://github.com/uxlfoundation/oneDNN) otherwise makes anew at every call, or does without:
packed before, a call takes about half as long, in fp32 and in bfloat16.

Its kernels are compiled for one number of rows each, which costs milliseconds and half a megabyte,
so rows are filled up to one of few numbers, and more than the last one go piece by piece.
"""

from __future__ import annotations

from bisect import bisect_left
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

SMALL = 256 * 2**20  # bytes of weights that may lie in memory twice without being asked for
ROWS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128)


class PackedForward:
    """A linear layer's forward: packs at the first call without gradients, and after changes."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._weight: Tensor | None = None
        self._version = 0

    def __call__(self, input: Tensor) -> Tensor:
        parameters = self._layer._parameters  # by name, past a slower look-up: this is called often
        weight, bias = parameters["weight"], parameters["bias"]
        assert weight is not None
        if torch.is_grad_enabled() or input.dtype is not weight.dtype or not weight.is_cpu:
            return linear(input, weight, bias)
        if weight is not self._weight or _version(weight) != self._version:
            self._pack(weight)
        rows = input.numel() // input.shape[-1]
        if rows in ROWS:
            return _run(input, self._packed, bias)
        pieces = [
            self._filled_up(x, bias) for x in input.reshape(-1, input.shape[-1]).split(ROWS[-1])
        ]
        out = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return out.view(*input.shape[:-1], out.shape[1])

    def _filled_up(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x [up to the most rows, d], run with as many rows as a kernel is there for."""
        rows = len(x)
        missing = ROWS[bisect_left(ROWS, rows)] - rows
        return _run(pad(x, (0, 0, 0, missing)) if missing else x, self._packed, bias)[:rows]

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedForward:
        return PackedForward(deepcopy(self._layer, memo))

    def __reduce__(self) -> tuple[type[PackedForward], tuple[nn.Linear]]:
        return PackedForward, (self._layer,)

    def _pack(self, weight: Tensor) -> None:
        self._weight, self._version = weight, _version(weight)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)


def pack_linears(model: object, wanted: bool | None = None) -> int:
    """Let the linear layers of a module run packed where that can be done; how many do.

    The module's parameters stay as they are; the packed copies, made as layers are first used, take
    as much memory again. wanted: None means if that is at most SMALL bytes.
    """
    layers = packable(model)
    if wanted is None:
        wanted = sum(layer.weight.nbytes for layer in layers) <= SMALL
    if not wanted:
        return 0
    for layer in layers:
        if not isinstance(layer.__dict__.get("forward"), PackedForward):
            layer.forward = PackedForward(layer)
    return len(layers)


def packable(model: object) -> list[nn.Linear]:
    """The linear layers of a module that can be packed."""
    if not isinstance(model, nn.Module) or not torch.backends.mkldnn.is_available():
        return []
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return []
    dtypes = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        dtypes.add(torch.bfloat16)
    return [
        layer
        for layer in model.modules()
        if type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype in dtypes
    ]


def _run(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _version(weight: Tensor) -> int:
    """Counts changes in place; a tensor made in inference mode does not count them."""
    return 0 if weight.is_inference() else weight._version
