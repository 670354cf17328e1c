"""Where the image tokenizer of a run comes from, and how it is written back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from unitok.families import Family, open_folder
from unitok.training.image_tokenizer.options import SizeOptions
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.llamagen import load_llamagen, save_llamagen

FILE = "image_tokenizer.safetensors"
FOLDER = "model"


@dataclass(frozen=True)
class Base:
    """What is trained further.

    Attributes:
        tokenizer: The image tokenizer in float32. Its weights lie in memory of their own: those of
            a file may be mapped.
        save: Writes what it has become into a folder, and returns the path of what
            `unitok.load` or `load_llamagen` opens.
    """

    tokenizer: ImageTokenizer
    save: Callable[[ImageTokenizer, Path], Path]


def open_base(path: str | None, sizes: SizeOptions, seed: int = 0) -> Base:
    """Open what a run starts from.

    Args:
        path: A model's folder, or a file of LlamaGen's image tokenizer; None for new weights.
        sizes: Those of new weights; of a file, its pictures' size alone.
        seed: Of new weights.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: It cannot be read, or its image tokenizer cannot be trained and written back.
    """
    if path is None:
        torch.manual_seed(seed)
        return Base(ImageTokenizer(sizes.to_config()), save_file)
    if Path(path).is_dir():
        return open_model(Path(path))
    return Base(copy.deepcopy(load_llamagen(path, image_size=sizes.image_size)), save_file)


def result_path(path: str | None, out: Path) -> Path:
    """Where a run that started from `path` writes its result."""
    return out / (FOLDER if path is not None and Path(path).is_dir() else FILE)


def open_model(folder: Path) -> Base:
    """Open the image tokenizer of a whole model; what else the folder holds stays as it is."""
    family = open_folder(folder, "cpu", lambda stored: stored)
    tokenizer = family.model.image_tokenizer
    if not isinstance(tokenizer, ImageTokenizer) or tokenizer.config.quantizer != "cosine":
        raise ValueError(
            f"{folder}: only the image tokenizers of Janus and of LlamaGen's files can be trained "
            "and written back"
        )
    stored = tokenizer.quant_conv.weight.dtype
    mine = copy.deepcopy(tokenizer).float()
    return Base(mine, lambda trained, out: save_model(family, trained, stored, out))


def save_file(tokenizer: ImageTokenizer, out: Path) -> Path:
    """Write an image tokenizer under LlamaGen's names."""
    save_llamagen(tokenizer, out / FILE)
    return out / FILE


def save_model(family: Family, trained: ImageTokenizer, dtype: torch.dtype, out: Path) -> Path:
    """Write a whole model with its new image tokenizer, in the type that it was stored in."""
    family.model.image_tokenizer = copy.deepcopy(trained).to(dtype)
    family.model.image_tokenizer.refresh()
    family.save(out / FOLDER, None)
    return out / FOLDER
