"""Low-rank adapters of linear layers, https://arxiv.org/abs/2106.09685."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to a linear layer: y + scale * (x A^T) B^T.

    Attributes:
        a: [rank, in_features].
        b: [out_features, rank].
        scale: alpha / rank.
    """

    a: Tensor
    b: Tensor
    scale: float

    def product(self, device: torch.device) -> Tensor:
        """Compute scale * B A [out_features, in_features] in float32 on a device."""
        return self.scale * (self.b.to(device, torch.float32) @ self.a.to(device, torch.float32))


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter of a model.

    Attributes:
        name: For people, and in requests.
        layers: The names of linear layers in the model, such as "decoder.blocks.0.attention.q" ->
            what is added to them.
        digest: Names the numbers: equal digests are equal adapters.
        full: The names of parameters that were trained in full beside the layers, such as
            "image_head.fc1.weight" -> what takes their place. Most adapters have none.
    """

    name: str
    layers: Mapping[str, LowRank]
    digest: str
    full: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, layers: Mapping[str, LowRank], full: Mapping[str, Tensor]
    ) -> "LoraAdapter":
        """Make an adapter and its digest."""
        return cls(name, layers, digest_of(layers, full), full)


def digest_of(layers: Mapping[str, LowRank], full: Mapping[str, Tensor]) -> str:
    """The SHA-256 of an adapter's names and numbers, in hexadecimal."""
    sha = hashlib.sha256()
    for name, added in sorted(layers.items()):
        sha.update(f"{name} {added.scale!r}".encode())
        _add(sha, (added.a, added.b))
    for name, value in sorted(full.items()):
        sha.update(name.encode())
        _add(sha, (value,))
    return sha.hexdigest()


def _add(sha: "hashlib._Hash", tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        numbers = tensor.detach().cpu().float().contiguous()
        sha.update(str(tuple(numbers.shape)).encode())
        sha.update(numbers.numpy().tobytes())


def check_low_rank(name: str, low_rank: LowRank, in_features: int, out_features: int) -> None:
    """Raise ValueError if an adapter of a layer does not fit it, or is not finite."""
    a, b = low_rank.a, low_rank.b
    fits = a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1]
    if not fits or (a.shape[1], b.shape[0]) != (in_features, out_features):
        raise ValueError(
            f"the adapter of {name} must be [rank, {in_features}] and [{out_features}, rank], not "
            f"{list(a.shape)} and {list(b.shape)}"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError(f"the adapter of {name} holds NaN or infinity")


def merge(model: nn.Module, adapter: LoraAdapter) -> None:
    """Add an adapter to the weights of a model, before it is prepared for inference.

    The sum is computed in float32, and rounded to the type of the weights. A text head that shares
    its weight with the text embedding gets one of its own if the adapter changes it.

    Args:
        model: The model, which is changed in place.
        adapter: The adapter.

    Raises:
        ValueError: The model lacks a layer or a parameter, or it has another shape; a number of a
            product is not finite; or the layer was replaced when the model was prepared. Then
            nothing is changed.
    """
    layers = {name: linear_layer(model, name) for name in adapter.layers}
    owners = {name: _owner(model, name, value) for name, value in adapter.full.items()}
    for name, added in adapter.layers.items():
        shape = added.b.shape[0], added.a.shape[1]
        if layers[name].weight.shape != shape:
            raise ValueError(f"{name} is {list(layers[name].weight.shape)}, not {list(shape)}")
        check_low_rank(name, added, *reversed(shape))
    for name, value in adapter.full.items():
        _put(owners[name], name.rpartition(".")[2], value)
    for name, added in adapter.layers.items():
        layer = layers[name]
        layer.weight = nn.Parameter(_sum(layer.weight, added), requires_grad=False)
    if any(name.startswith("image_tokenizer.") for name in adapter.full):
        model.image_tokenizer.refresh()  # type: ignore[operator]


@torch.no_grad()
def _sum(weight: Tensor, added: LowRank) -> Tensor:
    exact = torch.promote_types(weight.dtype, torch.float32)
    return (weight.to(exact) + added.product(weight.device)).to(weight.dtype)


def linear_layer(model: nn.Module, name: str) -> nn.Linear:
    """A linear layer by its name.

    Raises:
        ValueError: The model has none of this name, or it was replaced by another.
    """
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        raise ValueError(
            f"the model has no layer {name}, or it is prepared for inference: merge before that"
        ) from None
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"{name} is no linear layer")
    return layer


def _owner(model: nn.Module, name: str, value: Tensor) -> nn.Module:
    """The module that holds a parameter, which has the value's shape."""
    owner, _, leaf = name.rpartition(".")
    try:
        found = model.get_submodule(owner)
        shape = getattr(found, leaf).shape
    except AttributeError:
        raise ValueError(f"the model has no parameter {name}") from None
    if shape != value.shape:
        raise ValueError(f"{name} is {list(shape)}, not {list(value.shape)}")
    return found


def _put(owner: nn.Module, leaf: str, value: Tensor) -> None:
    """Put a value in a parameter's place, in its type and on its device."""
    old = getattr(owner, leaf)
    new = value.detach().to(old.device, old.dtype)
    if leaf in owner._parameters:
        setattr(owner, leaf, nn.Parameter(new, requires_grad=False))
    else:
        owner._buffers[leaf] = new
