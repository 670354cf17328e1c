"""Linear layers on a CPU whose weights lie as oneDNN's kernels read them, once and for all.

A few rows times a weight is quickest from a blocked layout, which oneDNN
(https://github.com/uxlfoundation/oneDNN) otherwise makes anew at every call, or does without:
packed before, a call takes about half as long, in fp32 and in bfloat16.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from unitok_engine.config import free_memory


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
        return torch.ops.mkldnn._linear_pointwise(input, self._packed, bias, "none", [], "")

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
    as much memory again. wanted: None means if that is at most half of what is free.
    """
    layers = packable(model)
    if wanted is None:
        wanted = sum(layer.weight.nbytes for layer in layers) <= _half_of_free_memory()
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


def _half_of_free_memory() -> int:
    try:
        return free_memory(torch.device("cpu")) // 2
    except ValueError:  # it cannot be told here
        return 2**30


def _version(weight: Tensor) -> int:
    """Counts changes in place; a tensor made in inference mode does not count them."""
    return 0 if weight.is_inference() else weight._version
