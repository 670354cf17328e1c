"""load(): the embedded model, a checkpoint's folder, or a hub id, ready for use."""

from __future__ import annotations

from pathlib import Path

import torch

from unitok.api import Model
from unitok.families import open_folder
from unitok.files import find_folder
from unitok_engine import EngineConfig

DEFAULT_FOLDER = Path(__file__).parent / "assets" / "default"


def load(
    path: str | Path | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    memory: int | float | str | None = None,
) -> Model:
    """Load a model: the embedded one, a checkpoint's folder, or a Hugging Face hub id.

    docs/checkpoints.md lists the families. A hub id such as "deepseek-community/Janus-Pro-1B" is
    downloaded once.

    device: "cuda" if there is a GPU, else "cpu". dtype: float32 on a CPU, bfloat16 on CUDA.
    memory: of the K/V pool: bytes, "512MB" or "2GB"; or a share of what is free, 0.5 or "50%".

    Raises:
        FileNotFoundError: no such folder, or a file in it is missing.
        ValueError: a file that cannot be read or does not fit; an unknown device, dtype or memory.
    """
    device = check_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    chosen = parse_dtype(dtype or ("float32" if device == "cpu" else "bfloat16"))
    size = parse_memory(memory)
    folder = DEFAULT_FOLDER if path is None else find_folder(path)
    family = open_folder(folder, device, chosen)
    return Model(family, EngineConfig(memory=size, max_context=family.max_context))


def check_device(device: str) -> str:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {reason}") from None
    return device


def parse_dtype(dtype: torch.dtype | str) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in names:
        raise ValueError(f"dtype must be one of {', '.join(names)}, not {dtype!r}")
    return names[dtype]


def parse_memory(memory: int | float | str | None) -> int | float | None:
    """Bytes, of a number or of text such as "512MB"; a share, of a float or of text such as "50%".

    Raises:
        ValueError: other text, or a share that is not above 0 and at most 1.
    """
    if memory is None or isinstance(memory, int):
        return memory
    size = parse_size(memory) if isinstance(memory, str) else memory
    if isinstance(size, float) and not 0 < size <= 1:
        raise ValueError(f"memory as a share must be above 0 and at most 1 (100%), not {memory!r}")
    return size


def parse_size(text: str) -> int | float:
    """As `parse_memory`, of text."""
    units = {"KB": 2**10, "MB": 2**20, "GB": 2**30}
    text = text.strip()
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        if text.replace(".", "", 1).isdecimal() and "." in text:
            return float(text)
        return int(float(text[:-2]) * units[text[-2:].upper()])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(
            "memory must be bytes, such as '512MB' or '2GB', or a share of what is free, such as "
            f"'50%', not {text!r}"
        ) from None
