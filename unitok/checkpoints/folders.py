"""Folders of checkpoints: on this disk, or fetched from the Hugging Face hub; their JSON files."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import model_info, snapshot_download

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PATTERNS = ("*.json", "*.yaml", "*.model", "*.tiktoken", "*.txt", "*.jinja", "*.ckpt")
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")  # the first kind that is there


def find_folder(path: str | Path) -> Path:
    """A folder of this disk, or the files of a hub repository, which are downloaded once.

    Args:
        path: The folder, or a name such as "deepseek-community/Janus-Pro-1B".

    Raises:
        FileNotFoundError: There is no such folder, and no such repository can be had.
        ValueError: It is a file.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"{path} is a file; give the folder that holds it")
    if HUB_ID.fullmatch(str(path)) is None:
        raise FileNotFoundError(f"{path}: no such folder")
    return download(str(path))


def download(repository: str) -> Path:
    """Fetch what a model needs of a hub repository; an earlier download serves when offline."""
    try:
        files = [s.rfilename for s in model_info(repository, timeout=10).siblings or ()]
    except Exception as error:  # each version of the library has another HTTP client's errors
        return earlier_download(repository, error)
    kind = next((w for w in WEIGHTS if any(Path(f).match(w) for f in files)), WEIGHTS[0])
    logger.info("%s: fetching from the hub what is not here yet", repository)
    try:
        folder = Path(snapshot_download(repository, allow_patterns=[*PATTERNS, kind]))
    except Exception as error:  # as above: the reason is told, whatever its class
        raise OSError(f"{repository}: the download broke off: {first_line(error)}") from None
    logger.info("%s: lies in %s", repository, folder)
    return folder


def earlier_download(repository: str, why: Exception) -> Path:
    """What is in the hub's cache, when the hub itself cannot be asked."""
    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except Exception:  # there is none; why the hub could not be asked says more than that
        raise FileNotFoundError(
            f"{repository}: no such folder here, and the hub did not give it: {first_line(why)}"
        ) from None
    reason = first_line(why)
    logger.info("%s: %s lies here; the hub could not be asked: %s", repository, folder, reason)
    return folder


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_json(path: Path, optional: bool = False) -> Mapping[str, Any]:
    """A JSON object of a checkpoint folder.

    Args:
        path: The file.
        optional: Whether an empty object serves if there is no such file.

    Raises:
        FileNotFoundError: It is missing and not optional.
        ValueError: It cannot be parsed, or is no object.
    """
    if not path.is_file():
        if optional:
            return {}
        raise FileNotFoundError(f"{path} is missing; the folder is not complete")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object")
    return data
