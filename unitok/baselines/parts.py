"""Opens the parts of a folder that transformers reads: its weights, and what prepares its inputs.

Only local files are read, weights only as safetensors, and no code of a folder is run.
"""

from pathlib import Path
from typing import Any

import torch

from unitok.checkpoints.folders import first_line
from unitok.loading import check_device
from unitok.precision import parse_dtype

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
NEEDS_TORCHVISION = (
    "which does not run beside this torch: use the environment that make install-vision makes"
)


def find_device(device: str) -> str:
    """The device of a name; "auto" is a GPU if there is one.

    Raises:
        ValueError: It does not exist.
    """
    return check_device(None if device == "auto" else device)


def find_dtype(dtype: str, device: str) -> Any:
    """The type to compute in, as transformers takes it.

    Args:
        dtype: A name; "auto" is the checkpoint's own on a GPU, and float32 on a CPU.
        device: Where the model computes.

    Raises:
        ValueError: There is no such type.
    """
    own = torch.float32 if device.startswith("cpu") else "auto"
    return parse_dtype(dtype) or own


def open_model(kind: Any, folder: Path, dtype: Any = torch.float32, **options: Any) -> Any:
    """The weights of a folder, whole, ready for use.

    Args:
        kind: A model's class in transformers.
        folder: Where they lie.
        dtype: The type to compute in; "auto" is the checkpoint's own.
        **options: Of the class.

    Raises:
        ValueError: They cannot be opened, or some are missing.
        ImportError: A library is missing.
    """
    given = {"use_safetensors": True, "dtype": dtype, "output_loading_info": True}
    model, info = _open(kind, folder, "it", **given, **options)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}")
    return model.eval()


def open_processor(kind: Any, folder: Path, **options: Any) -> Any:
    """What turns pictures, sounds or texts into a model's inputs, as the folder's files say.

    Args:
        kind: A processor's class in transformers.
        folder: Where the files lie.
        **options: Of the class.

    Raises:
        ValueError: A file is missing, or it cannot be opened.
        ImportError: A library is missing.
    """
    return _open(kind, folder, f"what its {kind.__name__} needs", **options)


def check_vocabulary(folder: Path) -> None:
    """Check that a folder has a tokenizer's vocabulary.

    Without one, transformers opens a tokenizer that knows no words.

    Raises:
        ValueError: It has none.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ValueError(f"{folder} has no tokenizer: none of {', '.join(VOCABULARIES)}")


def _open(kind: Any, folder: Path, what: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # that library's are of all kinds
        if isinstance(error, ImportError) or "torchvision" in str(error):
            raise ImportError(missing_library(folder, error)) from None
        reason = first_line(error)
        raise ValueError(f"{folder}: transformers cannot open {what}: {reason}") from None


def missing_library(folder: Path, error: Exception) -> str:
    """What to say of a library that a folder needs and that is not installed."""
    if "torchvision" in str(error).lower():
        return f"{folder} needs torchvision, {NEEDS_TORCHVISION}"
    return f"{folder}: {' '.join(str(error).split())[:200]}"
