"""Recipes that train image tokenizers, as TOML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitok.training.image_tokenizer.options import ImageTokenizerOptions
from unitok.training.recipe_file import read_as, read_table

TASK = "image_tokenizer"


def is_image_tokenizer(path: Path, settings: Sequence[str] = ()) -> bool:
    """Whether a recipe trains an image tokenizer; one without a task fine-tunes a model.

    Args:
        path: The file.
        settings: "key=value" each, which replace what the file says.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no TOML, or its task is unknown.
    """
    task = read_table(path, settings).get("task")
    if task not in (None, TASK):
        raise ValueError(f"{path}: task must be {TASK}, not {task!r}; without it a model is tuned")
    return task == TASK


def read_options(path: Path, settings: Sequence[str] = ()) -> ImageTokenizerOptions:
    """Read a recipe; see `is_image_tokenizer`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no TOML, a key is unknown or missing, or a value is wrong.
    """
    return parse_options(read_table(path, settings), str(path))


def parse_options(table: Mapping[str, Any], where: str) -> ImageTokenizerOptions:
    """Make options of a table of a TOML file, whose name is for messages.

    Raises:
        ValueError: A key is unknown or missing, or a value is wrong.
    """
    try:
        return read_as(ImageTokenizerOptions, table, where)
    except ValueError as error:
        if str(error).startswith(where):
            raise
        raise ValueError(f"{where}: {error}") from None
