"""Files from which a training run goes on. Loading one runs no code of the file."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from unitok.terminal import one_line


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a state dictionary; a file that is there already stays whole until the new one is.

    Raises:
        OSError: It could not be written, for example because the disk is full.
    """
    temporary = path.with_suffix(".tmp")
    try:
        torch.save(state, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch raises the latter if a disk is full
        temporary.unlink(missing_ok=True)
        kept = "the one that was there is kept" if path.is_file() else "there is none yet"
        raise OSError(f"{path} could not be written: {one_line(error)}; {kept}") from None


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, with its tensors on a device.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or it is no checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no training checkpoint, or it is broken: {reason}") from error
    if not isinstance(state, dict) or not state.keys() >= {"model", "optimiser", "step"}:
        raise ValueError(f"{path} is no training checkpoint: it has no model, optimiser and step")
    return state
