"""Linear layers on a CPU whose weights lie as oneDNN's kernels read them, and nowhere else.

A few rows times a weight is quickest from a blocked layout, which oneDNN
(https://github.com/uxlfoundation/oneDNN) otherwise makes anew at every call, or does without:
packed before, a call takes about half as long, in fp32 and in bfloat16.

Its kernels are compiled for one number of rows each, which costs milliseconds and half a megabyte,
so rows are filled up to one of few numbers, and more than the last one go piece by piece.

To pack a layer takes as long as tens of calls. So that a first answer is not late, those of a large
model run as they are for a while, and are then packed one at a step.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

ROWS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128)
SMALL = 64 * 2**20  # bytes of weights that are packed in no time
PATIENCE = 16  # calls of a large model's layers before the first one is packed


class PackedLinear(nn.Module):
    """Linear layers of one input, frozen, that run as one: their outputs stand side by side.

    They are packed at a call, the first one `after` so many, and what they were made from is let
    go. `state_dict` has them as before, under the names they had beside this module.
    """

    def __init__(self, layers: Mapping[str, nn.Linear], after: int = 0) -> None:
        super().__init__()
        self.out_features = [layer.out_features for layer in layers.values()]
        self._names = list(layers)
        self._dense = [layer.weight.detach() for layer in layers.values()]
        self._packed: Tensor | None = None
        self._calls_left = after
        self._dtype = self._dense[0].dtype
        biases = [layer.bias.detach() for layer in layers.values() if layer.bias is not None]
        self._bias = torch.cat(biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., sum of out_features].

        Raises:
            RuntimeError: an input of another dtype, or one that wants gradients.
        """
        if x.dtype is not self._dtype:
            raise RuntimeError(f"the input's dtype is {x.dtype}, the weight's {self._dtype}")
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("the model is packed for inference and has no gradients")
        packed = self._packed
        if packed is None:
            if self._calls_left > 0:
                self._calls_left -= 1
                return self._as_they_are(x)
            packed = self._pack()
        rows = x.numel() // x.shape[-1]
        if rows in ROWS:
            return _run(x, packed, self._bias)
        pieces = [self._filled_up(piece) for piece in x.reshape(-1, x.shape[-1]).split(ROWS[-1])]
        out = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return out.view(*x.shape[:-1], out.shape[1])

    # Straight there: the way through hooks costs microseconds, dozens of times a step.
    __call__ = forward

    def _as_they_are(self, x: Tensor) -> Tensor:
        out = [linear(x, weight) for weight in self._dense]
        joined = out[0] if len(out) == 1 else torch.cat(out, dim=-1)
        return joined if self._bias is None else joined + self._bias

    def _filled_up(self, x: Tensor) -> Tensor:
        """x [up to the most rows, d], run with as many rows as a kernel is there for."""
        assert self._packed is not None
        missing = missing_rows(len(x))
        filled = pad(x, (0, 0, 0, missing)) if missing else x
        return _run(filled, self._packed, self._bias)[: len(x)]

    def _pack(self) -> Tensor:
        weight = self._dense[0] if len(self._dense) == 1 else torch.cat(self._dense)
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._packed, self._dense = packed, []
        return packed

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        beside = prefix.removesuffix(".").rpartition(".")[0]
        weights = self._dense
        if self._packed is not None:
            weights = self._packed.to_dense().split(self.out_features)
        for name, weight in zip(self._names, weights, strict=True):
            destination[f"{beside}.{name}.weight".removeprefix(".")] = weight
        if self._bias is not None:
            for name, bias in zip(self._names, self._bias.split(self.out_features), strict=True):
                destination[f"{beside}.{name}.bias".removeprefix(".")] = bias

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        raise RuntimeError("the model is packed for inference on a CPU: it cannot be converted")


def missing_rows(rows: int) -> int:
    """How many more a kernel is there for; 0 also if there are too many for any."""
    place = bisect_left(ROWS, rows)
    return ROWS[place] - rows if place < len(ROWS) else 0


def pack(model: nn.Module, at_once: bool = False) -> int:
    """Pack a module's frozen linear layers where that can be done; how many.

    A module may say in `together`, {name: names of its linear layers}, which of them take the same
    input: these are replaced by one under that name.
    at_once: at the first call, however large the model is.
    """
    shared = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    groups: list[tuple[nn.Module, str, dict[str, nn.Linear]]] = []
    for module in model.modules():
        together: Mapping[str, tuple[str, ...]] = getattr(module, "together", {})
        found = {
            name: layer
            for name, layer in module._modules.items()
            if isinstance(layer, nn.Linear) and _can_be_packed(layer, shared)
        }
        for name, parts in together.items():
            if all(part in found for part in parts):
                groups.append((module, name, {part: found.pop(part) for part in parts}))
        groups += [(module, name, {name: layer}) for name, layer in found.items()]
    size = sum(layer.weight.nbytes for *_, layers in groups for layer in layers.values())
    waits = size > SMALL and not at_once
    for place, (module, name, layers) in enumerate(groups):
        for part in layers.keys() - {name}:
            delattr(module, part)
        setattr(module, name, PackedLinear(layers, PATIENCE + place if waits else 0))
    return sum(len(layers) for *_, layers in groups)


def _can_be_packed(layer: nn.Linear, shared: Mapping[int, int]) -> bool:
    if type(layer) is not nn.Linear or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    weight = layer.weight
    supported = weight.dtype is torch.float32 or (
        weight.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    frozen = not weight.requires_grad and shared[id(weight)] == 1
    return frozen and supported and weight.is_cpu and torch.backends.mkldnn.is_available()


def _run(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")
