"""Changes a model that is loaded: adapters beside its weights, and other weights in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import index
from pathlib import Path

from torch import Tensor

from unitok.checkpoints.lora_files import read_adapter
from unitok.driver import Driver
from unitok.families import Family
from unitok.nn.lora import LoraAdapter, LowRank
from unitok.nn.weight_update import WeightUpdate, fitting
from unitok.requests import check_is_text
from unitok.saving import expanded
from unitok_engine import Engine

PEFT = "base_model.model."  # what PEFT may put before the names of a model's layers
A, B = "lora_A.weight", "lora_B.weight"


class Tuning:
    """Adapters and weights of a model that a driver runs. Any thread may call it.

    All changes are made by the driver's thread, between steps.

    Attributes:
        adapters: The adapters that stand beside the weights, by name.
    """

    def __init__(self, family: Family, driver: Driver, engine: Engine) -> None:
        """No adapter is there yet.

        Args:
            family: The model.
            driver: What runs the engine.
            engine: The engine, which computes with the family's own weights.
        """
        self._family, self._driver, self._engine = family, driver, engine
        self.adapters: dict[str, LoraAdapter] = {}

    def load(self, name: str, source: str | Path | LoraAdapter) -> None:
        """Put an adapter beside the weights; see `Model.load_adapter`."""
        check_is_text("name", name)
        if not name:
            raise ValueError("the name of an adapter is empty")
        adapter = self._read(name, source)
        self._driver.between_steps(lambda: self._put_new(adapter))

    def _read(self, name: str, source: str | Path | LoraAdapter) -> LoraAdapter:
        if isinstance(source, LoraAdapter):
            return replace(source, name=name)
        return read_adapter(expanded(source), self._family, name)

    def _put_new(self, adapter: LoraAdapter) -> None:
        if adapter.name in self.adapters:
            raise ValueError(
                f"there is an adapter {adapter.name!r} already: unload it first, or take another "
                "name"
            )
        self._put(adapter)

    def _put(self, adapter: LoraAdapter) -> None:
        self._family.model.put_adapter(adapter)
        self.adapters[adapter.name] = adapter

    def unload(self, name: str) -> None:
        """Take an adapter away; see `Model.unload_adapter`."""
        self._driver.between_steps(lambda: self._drop(name))

    def _drop(self, name: str) -> None:
        self._known(name)
        if uses := self._engine.uses(name):
            requests = "1 request uses" if uses == 1 else f"{uses} requests use"
            raise RuntimeError(f"{requests} adapter {name!r}: unload it when they have ended")
        self._family.model.drop_adapter(name)
        self._engine.forget_prefixes()  # the next one of this name is another
        del self.adapters[name]

    def update_adapter(
        self, name: str, tensors: Mapping[str, Tensor], version: int | None = None
    ) -> int:
        """Put other numbers in an adapter's place; see `Model.update_adapter`."""
        updated_adapter(self._known(name), tensors)  # so that what is wrong need not wait

        def write() -> int:
            self._check_version(version)
            self._put(updated_adapter(self._known(name), tensors))  # of what is there by now
            return self._changed(version)

        return self._driver.between_steps(write, alone=True)

    def update_weights(self, tensors: Mapping[str, Tensor], version: int | None = None) -> int:
        """Put other numbers in the weights' place; see `Model.update_weights`."""
        update = WeightUpdate(self._family.model, tensors)

        def write() -> int:
            self._check_version(version)
            try:
                update.write()
            except Exception:  # some may be written
                self._changed(version)
                raise
            return self._changed(version)

        return self._driver.between_steps(write, alone=True)

    def _known(self, name: str) -> LoraAdapter:
        if name not in self.adapters:
            known = ", ".join(map(repr, sorted(self.adapters)))
            loaded = f"loaded: {known}" if known else "none is loaded"
            raise ValueError(f"there is no adapter {name[:100]!r}; {loaded}")
        return self.adapters[name]

    def _check_version(self, version: int | None) -> None:
        now = self._engine.weight_version
        if version is not None and index(version) <= now:
            raise ValueError(f"version must be above the present one, {now}, not {version}")

    def _changed(self, version: int | None) -> int:
        self._engine.weights_changed(None if version is None else index(version))
        return self._engine.weight_version


def updated_adapter(adapter: LoraAdapter, tensors: Mapping[str, Tensor]) -> LoraAdapter:
    """An adapter with other numbers in some of its matrices.

    Args:
        adapter: The adapter.
        tensors: The matrices, by the names of the layers with ".lora_A.weight" or ".lora_B.weight"
            behind them.

    Raises:
        TypeError: Something is no tensor.
        ValueError: There are none, the adapter has no such matrix, a shape does not fit, or a
            number is not finite.
    """
    if not tensors:
        raise ValueError("there are no tensors to update the adapter with")
    layers = dict(adapter.layers)
    for name, tensor in tensors.items():
        layer, _, matrix = name.removeprefix(PEFT).rpartition(".lora_")
        if layer not in layers or f"lora_{matrix}" not in (A, B):
            raise ValueError(f"adapter {adapter.name!r} has no tensor {name}")
        old = layers[layer]
        like = old.a if f"lora_{matrix}" == A else old.b
        new = fitting(name, tensor, tuple(like.shape), like).to(like.device, copy=True)
        a, b = (new, old.b) if like is old.a else (old.a, new)
        layers[layer] = LowRank(a, b, old.scale)
    return LoraAdapter.of(adapter.name, layers, adapter.full)
