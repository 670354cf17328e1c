"""Checkpoint families: one file each. `open_folder` tells them by config.json."""

from pathlib import Path

import torch

from unitok.families import janus
from unitok.families.family import Defaults, Family, read_json

LOADERS = {"janus": janus.load}


def open_folder(folder: Path, device: str, dtype: torch.dtype) -> Family:
    """Load the checkpoint in a folder.

    Raises:
        FileNotFoundError: no such folder, or a file in it is missing.
        ValueError: a family we do not know, or files that do not fit.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in LOADERS:
        raise ValueError(f"{folder}: model_type {kind!r} is none of {', '.join(LOADERS)}")
    return LOADERS[kind](folder, device, dtype)


__all__ = ["Defaults", "Family", "open_folder"]
