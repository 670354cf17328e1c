"""Puts other numbers in the place of a model's weights, while the model stays loaded.

The tensors stay where they are, so that what was recorded of the model computes with the new
numbers. What follows from the weights, such as packed layers, follows.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitok.nn.linear import LinearReplacement
from unitok.nn.model import UnifiedModel

IMAGE_TOKENIZER = "image_tokenizer."  # how the names of its parameters begin


@dataclass(frozen=True, eq=False)
class Slot:
    """Where a parameter lies.

    Attributes:
        module: The module that holds it.
        part: The name of its layer, if the module stands for several; else "".
        leaf: Its own name, such as "weight".
        shape: Its shape.
        like: A tensor on its device and of its type.
    """

    module: nn.Module
    part: str
    leaf: str
    shape: tuple[int, ...]
    like: Tensor


def slots_of(model: nn.Module) -> dict[str, Slot]:
    """Where each parameter lies, by its name in the state dict; nothing is unpacked for it."""
    slots: dict[str, Slot] = {}
    for prefix, module in model.named_modules():
        for name, slot in _slots_in(module):
            beside = prefix.rpartition(".")[0] if slot.part else prefix
            slots[f"{beside}.{name}".removeprefix(".")] = slot
    return slots


def _slots_in(module: nn.Module) -> Iterator[tuple[str, Slot]]:
    """Where the parameters of a module lie that no module inside it holds."""
    if isinstance(module, LinearReplacement):
        like, width = module.like, module.in_features
        for name, out in zip(module.names, module.out_features, strict=True):
            yield f"{name}.weight", Slot(module, name, "weight", (out, width), like)
            if module.biases():
                yield f"{name}.bias", Slot(module, name, "bias", (out,), like)
        return
    temporary = module._non_persistent_buffers_set
    buffers = {n: b for n, b in module._buffers.items() if n not in temporary}
    for name, tensor in (*module._parameters.items(), *buffers.items()):
        if tensor is not None:
            yield name, Slot(module, "", name, tuple(tensor.shape), tensor)


class WeightUpdate:
    """New weights of a model, which fit it.

    Raises:
        TypeError: Something is no tensor.
        ValueError: A name is unknown, a shape or a type does not fit, a number is not finite,
            two names of one parameter differ, or the image tokenizer would change.
    """

    def __init__(self, model: UnifiedModel, tensors: Mapping[str, Tensor]) -> None:
        """Check the weights, and bring them to the model's types.

        They stay on their own device until they are written, one after the other: beside a model
        and its K/V there may be no room for all of them.

        Args:
            model: The model, which is not changed yet.
            tensors: The new weights by their names in the state dict. Others stay as they are.
        """
        if not tensors:
            raise ValueError("there are no tensors to update the weights with")
        check_image_tokenizer(model, tensors)
        slots = slots_of(model)
        self._model = model
        self._new = {
            name: (slot := slot_named(name, slots), fitting(name, tensor, slot.shape, slot.like))
            for name, tensor in tensors.items()
            if not name.startswith(IMAGE_TOKENIZER)
        }
        check_shared(self._new)

    @torch.inference_mode()
    def write(self) -> None:
        """Put the new weights in the place of the old ones. Doing so twice does no harm."""
        layers: dict[LinearReplacement, dict[str, dict[str, Tensor]]] = {}
        for slot, tensor in self._new.values():
            if isinstance(slot.module, LinearReplacement):
                mine = layers.setdefault(slot.module, {"weight": {}, "bias": {}})
                mine[slot.leaf][slot.part] = tensor.to(slot.like.device)
            else:
                slot.like.copy_(tensor)
        for layer, parts in layers.items():
            layer.update(parts["weight"], parts["bias"])
        self._model.refresh()


def slot_named(name: str, slots: Mapping[str, Slot]) -> Slot:
    """The slot of a parameter.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in slots:
        near = difflib.get_close_matches(name, slots, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"the model has no parameter {name}{hint}")
    return slots[name]


def fitting(name: str, tensor: object, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A tensor of new weights in the type of the old ones, on its own device.

    Raises:
        TypeError: It is no tensor.
        ValueError: It has another shape or kind of type, or a number is not finite.
    """
    tensor = need_tensor(name, tensor)
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be {list(shape)}, not {list(tensor.shape)}")
    if tensor.is_floating_point() != like.is_floating_point():
        raise ValueError(f"{name} must be of a type such as {like.dtype}, not {tensor.dtype}")
    new = tensor.detach().to(like.dtype)
    if not new.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity")
    return new


def need_tensor(name: str, tensor: object) -> Tensor:
    """A tensor as it is; TypeError if it is none."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
    return tensor


def check_shared(new: Mapping[str, tuple[Slot, Tensor]]) -> None:
    """Raise ValueError for two names of one parameter, such as a shared head, that differ."""
    first: dict[int, str] = {}
    for name, (slot, tensor) in new.items():
        other = name if slot.part else first.setdefault(id(slot.like), name)
        if other != name and not torch.equal(new[other][1].to(tensor.device), tensor):
            raise ValueError(f"{other} and {name} are one parameter here, and must be equal")


def check_image_tokenizer(model: UnifiedModel, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError if tensors would change the image tokenizer.

    Pictures are tokenized and decoded beside the engine's steps, at any time.
    """
    own = model.image_tokenizer.state_dict() if model.image_tokenizer is not None else {}
    for name, tensor in tensors.items():
        if name.startswith(IMAGE_TOKENIZER):
            old = own.get(name.removeprefix(IMAGE_TOKENIZER))
            if old is None or not torch.equal(old, need_tensor(name, tensor).detach().to(old)):
                raise ValueError(
                    f"{name} differs: the image tokenizer is not updated in place; save the model "
                    "and load it anew"
                )
