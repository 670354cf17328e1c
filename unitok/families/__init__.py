"""Checkpoint families: one file each. `open_folder` finds the one that knows a folder."""

import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.weights import Dtype
from unitok.families.common.family import Defaults, Family, GenerationSpec, ImageOptions


def open_folder(folder: Path, device: str, dtype: Dtype) -> Family:
    """Load the checkpoint in a folder.

    dtype: of the weights, or a function from the type they are stored in to it.

    Raises:
        FileNotFoundError: no such folder, or a file in it is missing.
        ValueError: a family we do not know, or files that do not fit.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    try:
        return load_family(folder, device, dtype)
    except ValueError as error:
        if str(error).startswith(str(folder)):
            raise
        raise ValueError(f"{folder}: {error}") from error
    except (AttributeError, TypeError, LookupError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder}: a setting has a wrong type or value ({reason})") from error


def load_family(folder: Path, device: str, dtype: Dtype) -> Family:
    """As `open_folder`, but messages may lack the folder's name."""
    config = read_json(folder / "config.json", optional=True)
    names = frozenset(path.name for path in folder.iterdir())
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        family = import_module(module.name)
        if hasattr(family, "matches") and family.matches(config, names):
            return trained_on(family, folder).load(folder, device, dtype)
    if not config:
        raise FileNotFoundError(f"{folder} has no config.json; is it a model's folder?")
    raise ValueError(
        f"{folder}: config.json says model_type {config.get('model_type')!r}, "
        "which is no family that unitok reads (docs/checkpoints.md lists them)"
    )


def trained_on(family: ModuleType, folder: Path) -> ModuleType:
    """The family of what was trained on from one: its files are the same, its name is not."""
    janus, janus4o = (import_module(f"{__name__}.{name}") for name in ("janus", "janus4o"))
    return janus4o if family is janus and janus4o.is_janus_4o(folder) else family


__all__ = ["Defaults", "Family", "GenerationSpec", "ImageOptions", "open_folder"]
