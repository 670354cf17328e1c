"""Families of checkpoints: a package each, and the registry that tells them apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.weights import Dtype
from unitok.families import chameleon, emu3, janus, janus4o, unitoken
from unitok.families.common.family import Defaults, Family, GenerationSpec, ImageOptions
from unitok.shown import shown


class FamilyPackage(Protocol):
    """What the package of a family offers."""

    __name__: str

    def matches(self, config: Mapping[str, Any], names: frozenset[str], folder: Path) -> bool:
        """Whether a folder is of this family.

        Args:
            config: Its config.json, empty if there is none.
            names: The names of all its files and folders.
            folder: Where it lies, for a family whose files are those of another.
        """
        ...

    def load(self, folder: Path, device: str, dtype: Dtype, strict: bool = False) -> Family:
        """Open a folder of this family, with the arguments and the errors of `open_folder`."""
        ...


# The first one that matches opens a folder; docs/checkpoints.md describes each.
FAMILIES: tuple[FamilyPackage, ...] = (janus4o, janus, chameleon, unitoken, emu3)


def open_folder(folder: Path, device: str, dtype: Dtype, strict: bool = False) -> Family:
    """Load the checkpoint in a folder.

    Args:
        folder: The checkpoint's.
        device: Where its weights are put.
        dtype: The type of the weights, or a function from the type they are stored in to it.
        strict: Whether a setting that we do not know is an error; if not, it gives a warning.

    Raises:
        FileNotFoundError: There is no such folder, or a file in it is missing.
        ValueError: It is of no family that we know, or its files do not fit.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    try:
        return _load(folder, device, dtype, strict)
    except ValueError as error:
        if str(error).startswith(str(folder)):
            raise
        raise ValueError(f"{folder}: {error}") from error
    except (AttributeError, TypeError, LookupError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder}: a setting has a wrong type or value ({reason})") from error


def _load(folder: Path, device: str, dtype: Dtype, strict: bool) -> Family:
    """As `open_folder`, but messages may lack the folder's name."""
    config = read_json(folder / "config.json", optional=True)
    if not isinstance(kind := config.get("model_type"), str | None):
        raise ValueError(f"config.json: model_type must be text, not {shown(kind)}")
    names = frozenset(path.name for path in folder.iterdir())
    for family in FAMILIES:
        if family.matches(config, names, folder):
            return family.load(folder, device, dtype, strict)
    if not config:
        raise FileNotFoundError(f"{folder} has no config.json; is it a model's folder?")
    raise ValueError(
        f"{folder}: config.json says model_type {shown(config.get('model_type'))}, "
        "which is no family that unitok reads (docs/checkpoints.md lists them)"
    )


__all__ = [
    "FAMILIES",
    "Defaults",
    "Family",
    "FamilyPackage",
    "GenerationSpec",
    "ImageOptions",
    "open_folder",
]
