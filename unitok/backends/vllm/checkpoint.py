"""Finds the folder that vLLM is to serve, and refuses those that it cannot."""

from pathlib import Path

from unitok.checkpoints.folders import HubOptions, find_folder, read_json
from unitok.families.janus import JanusFolder, read_folder
from unitok.families.janus.weights import MODEL_TYPES
from unitok.shown import shown


def open_checkpoint(model: str, revision: str | None = None) -> JanusFolder:
    """What a folder of Janus says, but for its weights.

    Args:
        model: The folder or the hub id, as vLLM is given it.
        revision: Of a hub id: a branch, a tag or a commit.

    Raises:
        FileNotFoundError: There is no such folder, or a file in it is missing.
        ValueError: It is of another family, or its files ask for what we do not do.
    """
    is_here = Path(model).is_dir()
    folder = find_folder(model, HubOptions() if is_here else HubOptions(revision))
    check_servable(folder)
    return read_folder(folder)


def check_servable(folder: Path) -> None:
    """Raise ValueError if vLLM cannot serve a folder, with the reason."""
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in MODEL_TYPES:
        raise ValueError(
            f"{folder}: unitok's vLLM backend serves Janus and Janus-Pro (model_type "
            f"{' or '.join(map(repr, MODEL_TYPES))}), not {shown(kind)}: docs/guide/vllm.md says "
            "why; unitok's own engine serves all families"
        )
