"""The one place where a model's linear layers are exchanged for others.

Layers packed for a CPU, layers with low-rank adapters (LoRA, https://arxiv.org/abs/2106.09685) and
layers of few bits are one kind of replacement: `replace_linears` finds the layers that may be
replaced, a `LinearMaker` builds what takes their place, and `LinearReplacement` is its base class.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Linears = Mapping[str, nn.Linear]

SAMPLED = 16
"""Numbers in a sample of a weight."""


@runtime_checkable
class HasFusedProjections(Protocol):
    """A module of which several linear layers take the same input, so that one can stand for them.

    Its `forward` uses the layer of the fused name if that is not None, else the single ones.
    """

    fused_projections: ClassVar[Mapping[str, tuple[str, ...]]]
    """The name of the layer that stands for others -> their names, in order of its outputs."""


class LinearMaker(Protocol):
    """Chooses which linear layers to replace, and builds what takes their place."""

    def __call__(self, layers: Linears, /) -> nn.Module | None:
        """Build the replacement of one layer, or of several that take the same input.

        Args:
            layers: The layers by their names in the module that holds them. All of them take the
                same input [..., in_features].

        Returns:
            A module that maps this input to the layers' outputs side by side
            [..., sum of out_features]; or None, to leave them as they are. Several layers that are
            left are offered again one by one.
        """
        ...


@dataclass(frozen=True)
class LinearGroup:
    """Linear layers of one module that take the same input.

    Attributes:
        parent: The module that holds them.
        name: The name in `parent` that their replacement gets.
        layers: The layers by their names in `parent`.
    """

    parent: nn.Module
    name: str
    layers: Linears

    def replace(self, by: nn.Module) -> None:
        """Put a module in the layers' place."""
        for part in self.layers.keys() - {self.name}:
            delattr(self.parent, part)
        setattr(self.parent, self.name, by)

    def single(self) -> Iterator["LinearGroup"]:
        """Yield a group for each layer alone."""
        for name, layer in self.layers.items():
            yield LinearGroup(self.parent, name, {name: layer})


class LinearReplacement(nn.Module, ABC):
    """Stands for linear layers of one input; the state dict is that of these layers.

    Parameters and buffers that a subclass registers are in the state dict too, under its own name.

    Attributes:
        names: The names of the layers in the module that held them.
        in_features: The width of their input.
        out_features: The width of each one's output.
    """

    def __init__(self, layers: Linears) -> None:
        super().__init__()
        self.names = list(layers)
        self.in_features = next(iter(layers.values())).in_features
        self.out_features = [layer.out_features for layer in layers.values()]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to the outputs side by side [..., sum of out_features]."""

    @abstractmethod
    def weights(self) -> Sequence[Tensor]:
        """Return each layer's weight [its out_features, in_features] as a dense tensor."""

    def biases(self) -> Sequence[Tensor]:
        """Return each layer's bias [its out_features], or nothing if they have none."""
        return ()

    def samples(self) -> Sequence[Tensor]:
        """Return a sample of each layer's weight, as `sample_of` takes it of the dense one."""
        return list(map(sample_of, self.weights()))

    @property
    def nbytes(self) -> int:
        """How much memory the weights and biases take."""
        return sum(tensor.nbytes for tensor in (*self.weights(), *self.biases()))

    @property
    def like(self) -> Tensor:
        """A tensor on the device and of the type of the weights."""
        return self.weights()[0]

    @property
    def row_sizes(self) -> Sequence[int]:
        """The numbers of rows that it pads to, in ascending order; empty if it takes any."""
        return ()

    @property
    def rounds_alike(self) -> bool:
        """Whether a row gets the same bits however many rows there are, from two rows up."""
        return False

    def update(self, weights: Mapping[str, Tensor], biases: Mapping[str, Tensor]) -> None:
        """Put other numbers in the place of some layers' weights and biases.

        Args:
            weights: The new weights by the names of their layers, in the shape, the type and on the
                device of the old ones.
            biases: The new biases, alike.

        Raises:
            TypeError: This kind of replacement cannot be updated.
        """
        raise TypeError(f"the weights of a {type(self).__name__} cannot be updated")

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # `prefix` ends with the replacement's own name: the layers stood beside it.
        beside = prefix.removesuffix(".").rpartition(".")[0]
        for name, weight in zip(self.names, self.weights(), strict=True):
            destination[f"{beside}.{name}.weight".removeprefix(".")] = weight
        for name, bias in zip(self.names, self.biases(), strict=False):
            destination[f"{beside}.{name}.bias".removeprefix(".")] = bias


def find_linears(model: nn.Module) -> Iterator[LinearGroup]:
    """Find the linear layers of a model that may be replaced, fused projections first.

    A subclass of `nn.Linear` is left out, since whoever wrote it uses it in a way of its own; so is
    a layer whose weight belongs to another module too.
    """
    uses = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    for module in list(model.modules()):
        layers = {
            name: layer
            for name, layer in module._modules.items()
            if type(layer) is nn.Linear and uses[id(layer.weight)] == 1
        }
        if layers and isinstance(module, HasFusedProjections):
            for name, parts in module.fused_projections.items():
                if all(part in layers for part in parts):
                    yield LinearGroup(module, name, {part: layers.pop(part) for part in parts})
        for name, layer in layers.items():
            yield LinearGroup(module, name, {name: layer})


def replace_linears(model: nn.Module, make: LinearMaker) -> int:
    """Replace the linear layers of a model by what `make` builds of them.

    Args:
        model: The model, which is changed in place.
        make: Is offered fused projections together, and what it leaves of them one by one.

    Returns:
        How many linear layers were replaced.
    """
    return sum(_replace(group, make) for group in list(find_linears(model)))


def _replace(group: LinearGroup, make: LinearMaker) -> int:
    """Replace a group or, if `make` leaves it, those of its layers that `make` does not leave."""
    made = make(group.layers)
    if made is not None:
        group.replace(made)
        return len(group.layers)
    if len(group.layers) == 1:
        return 0
    return sum(_replace(single, make) for single in group.single())


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The linear layers of a model by name, replaced ones too: out_features and in_features."""
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            shapes[name] = module.out_features, module.in_features
        elif isinstance(module, LinearReplacement):
            beside = name.rpartition(".")[0]
            for part, size in zip(module.names, module.out_features, strict=True):
                shapes[f"{beside}.{part}".removeprefix(".")] = size, module.in_features
    return shapes


def count_parameters(model: nn.Module) -> int:
    """How many numbers the weights of a model are, replaced layers included."""
    count = sum(parameter.numel() for parameter in model.parameters())
    for module in model.modules():
        if isinstance(module, LinearReplacement):
            count += sum(module.out_features) * module.in_features
            count += sum(bias.numel() for bias in module.biases())
    return count


def memory_of(model: nn.Module) -> int:
    """How many bytes the parameters of a model take, those of replaced layers included."""
    replaced = (module for module in model.modules() if isinstance(module, LinearReplacement))
    plain = sum(parameter.nbytes for parameter in model.parameters())
    return plain + sum(layer.nbytes for layer in replaced)


def sample_of(weight: Tensor) -> Tensor:
    """Numbers from all over a weight, by which it is known again; a copy."""
    flat = weight.detach().reshape(-1)
    places = torch.linspace(0, len(flat) - 1, SAMPLED, dtype=torch.float64).long()
    return flat[places.to(flat.device)]


def linear_sample(model: nn.Module, name: str) -> Tensor:
    """A sample of the weight of a linear layer, from a replacement too.

    Raises:
        KeyError: The model has no such layer.
    """
    beside, _, leaf = name.rpartition(".")
    for child_name, child in model.get_submodule(beside).named_children():
        if isinstance(child, LinearReplacement) and leaf in child.names:
            return child.samples()[child.names.index(leaf)]
        if isinstance(child, nn.Linear) and child_name == leaf:
            return sample_of(child.weight)
    raise KeyError(name)
