"""The identity of a model that `unitok.load` gives: what decides its results, beside requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitok.batch.keys import identity_of, with_adapters, with_backend, with_quantization

OF_HUB = ("revision", "token", "cache_dir")


def identity_of_load(model: str | None, load: Mapping[str, Any]) -> str:
    """A digest of the files that `unitok.load` opens, which are fetched from the hub if need be.

    Args:
        model: The folder or the hub id; None for the embedded model.
        load: Further arguments of `unitok.load`.

    Raises:
        FileNotFoundError, OSError, ValueError, TypeError: As `unitok.load`, of its folders.
    """
    from unitok.checkpoints.folders import HubOptions, find_folder
    from unitok.loading import DEFAULT_FOLDER, FoundAdapter, find_adapters

    hub = HubOptions(**{name: load[name] for name in OF_HUB if name in load})
    folders = [find_folder(DEFAULT_FOLDER if model is None else model, hub)]
    if (adapter := load.get("adapter")) is not None:
        folders.append(FoundAdapter.find(adapter, hub).folder)
    beside = find_adapters(load.get("adapters") or {}, hub)
    adapters: dict[str, Path] = {name: found.folder for name, found in beside.items()}
    identity = with_quantization(
        with_adapters(identity_of(folders), adapters), load.get("quantize")
    )
    return with_backend(identity, load.get("backend"))
