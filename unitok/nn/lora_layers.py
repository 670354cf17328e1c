"""Low-rank adapters beside the weights of a model: in one step, each row has its own or none.

As in S-LoRA (https://arxiv.org/abs/2311.03285), all rows go through the model's own layers
together, and what an adapter adds is computed for its rows alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitok.nn.linear import LinearReplacement
from unitok.nn.lora import LoraAdapter, LowRank, check_low_rank
from unitok_engine import AdapterRows

ADAPTABLE = re.compile(r"decoder\.blocks\.\d+\..+|text_head|image_head\.fc[12]")
"""The layers that may have adapters beside their weights: those that the engine's step runs."""

Rows = slice | Tensor


@dataclass(frozen=True, eq=False)
class Delta:
    """What an adapter adds to the output of a module: (x a) b.

    Attributes:
        a: [in_features, rank].
        b: [rank, out_features], with the scale in it.
    """

    a: Tensor
    b: Tensor

    def add(self, out: Tensor, x: Tensor, rows: Rows, columns: slice) -> None:
        """Add it to some rows of a module's output, in place.

        Args:
            out: [n, the number of columns].
            x: The module's input [n, in_features].
            rows: Which of the n rows.
            columns: Which of the out_features `out` has.
        """
        b = self.b[:, columns]
        if isinstance(rows, slice):
            out[rows].addmm_(x[rows] @ self.a, b)
        else:
            out.index_add_(0, rows, (x.index_select(0, rows) @ self.a) @ b)


Deltas = Mapping[nn.Module, Delta]
"""What an adapter adds, by the module that runs the layers."""


class StepLora:
    """The adapters of one step's rows. It runs a layer, and adds what they add."""

    def __init__(self, parts: Sequence[tuple[Rows, Deltas]]) -> None:
        """Take the rows of each adapter, with what it adds."""
        self._parts = parts

    def run(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Map [n, in_features] to [n, out_features]."""
        return self.add(layer, x, layer(x))

    def add(self, layer: nn.Module, x: Tensor, out: Tensor, columns: slice = slice(None)) -> Tensor:
        """Add to a layer's output, in place, and return it.

        Args:
            layer: The layer.
            x: Its input [n, in_features].
            out: Its output [n, out_features], or some columns of it.
            columns: Which of the out_features these are.
        """
        for rows, deltas in self._parts:
            if (delta := deltas.get(layer)) is not None:
                delta.add(out, x, rows, columns)
        return out


def run(layer: nn.Module, x: Tensor, lora: StepLora | None) -> Tensor:
    """Run a layer on rows [n, in_features], some of which may have adapters."""
    return layer(x) if lora is None else lora.run(layer, x)


def for_step(adapters: Mapping[str, Deltas], step: AdapterRows | None) -> StepLora | None:
    """The adapters of a step's rows; None if no row has one."""
    if step is None:
        return None
    return StepLora([(rows, adapters[name]) for name, rows in step.rows.items()])


def place_adapter(model: nn.Module, adapter: LoraAdapter, like: Tensor) -> Deltas:
    """Put an adapter beside the layers of a model, which stays as it is.

    Args:
        model: The model, on its device. Its layers may be packed or fused, and are not exchanged
            afterwards.
        adapter: The adapter.
        like: A tensor on the model's device and of its type.

    Returns:
        What it adds to each module.

    Raises:
        ValueError: The adapter has a layer that the model has not, or that cannot have an adapter
            beside its weights; a shape does not fit; or a number is not finite.
    """
    check_layers(adapter)
    found: dict[nn.Module, dict[str, LowRank]] = {}
    for name, low_rank in adapter.layers.items():
        module, part = find_layer(model, name)
        check_low_rank(name, low_rank, *sizes_of(module, part))
        found.setdefault(module, {})[part] = low_rank
    return {module: _side_by_side(module, parts, like) for module, parts in found.items()}


def check_layers(adapter: LoraAdapter) -> None:
    """Raise ValueError if an adapter changes what cannot stand beside the weights in a step."""
    others = [name for name in adapter.layers if not ADAPTABLE.fullmatch(name)]
    if others or adapter.full:
        what = f"layers outside the decoder and its heads, such as {others[0]}" if others else ""
        raise ValueError(
            f"adapter {adapter.name!r} changes {what or f'all of {next(iter(adapter.full))}'}: "
            "merge it into the model with unitok.load(..., adapter=FOLDER)"
        )


def find_layer(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that runs a linear layer, which may run others too, and the layer's name in it.

    Raises:
        ValueError: The model has no such linear layer.
    """
    parent_name, _, part = name.rpartition(".")
    try:
        parent = model.get_submodule(parent_name)
    except AttributeError:
        parent = nn.Module()
    layer = parent._modules.get(part)
    if isinstance(layer, nn.Linear):
        return layer, part
    for module in parent.children():
        if isinstance(module, LinearReplacement) and part in module.names:
            return module, part
    raise ValueError(f"the model has no linear layer {name}")


def sizes_of(module: nn.Module, part: str) -> tuple[int, int]:
    """The width of a layer's input, and that of its output."""
    if isinstance(module, LinearReplacement):
        return module.in_features, module.out_features[module.names.index(part)]
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features


def _side_by_side(module: nn.Module, parts: Mapping[str, LowRank], like: Tensor) -> Delta:
    """What is added to layers that one module runs: its outputs stand side by side."""
    widths = {name: low_rank.b.shape[0] for name, low_rank in parts.items()}
    if isinstance(module, LinearReplacement):
        widths = dict(zip(module.names, module.out_features, strict=True))
    downs = [parts[name].a.detach().to("cpu", torch.float32) for name in widths if name in parts]
    ups = [_up(parts.get(name), width) for name, width in widths.items()]
    a, b = torch.cat(downs), torch.block_diag(*ups)
    return Delta(a.T.to(like).contiguous(), b.T.to(like).contiguous())


def _up(low_rank: LowRank | None, width: int) -> Tensor:
    """The second matrix with the scale in it [width, rank]; of rank 0 if there is none."""
    if low_rank is None:
        return torch.zeros(width, 0)
    return low_rank.b.detach().to("cpu", torch.float32) * low_rank.scale
