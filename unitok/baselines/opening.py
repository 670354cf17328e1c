"""The adapter of a folder or of a hub id, by what its config says."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from unitok.checkpoints.folders import ANY, HubOptions, find_folder
from unitok.shown import shown
from unitok_tokenizers.bounded_files import read_object

Role = Literal[
    "scorer", "captioner", "generator", "encoder", "segmenter", "detector", "speech", "audio"
]

ADAPTERS: dict[Role, dict[str, str]] = {
    "scorer": {},
    "captioner": {},
    "generator": {},
    "encoder": {
        "vit": "encoders:VitEncoder",
        "vit_mae": "encoders:MaeEncoder",
        "beit": "encoders:BeitEncoder",
        "dinov2": "encoders:Dinov2Encoder",
        "dinov2_with_registers": "encoders:Dinov2RegistersEncoder",
        "dinov3_vit": "encoders:Dinov3Encoder",
        "ijepa": "encoders:IJepaEncoder",
        "vivit": "clips:VivitEncoder",
        "vjepa2": "clips:VJepa2Encoder",
        "lite0": "lite0:Lite0Encoder",
    },
    "segmenter": {"sam": "segmenter:SamSegmenter", "sam2": "segmenter:Sam2Segmenter"},
    "detector": {"grounding-dino": "detector:GroundingDinoDetector"},
    "speech": {"whisper": "speech:WhisperRecognizer"},
    "audio": {"musicgen": "audio:MusicgenGenerator"},
}
"""For each role: the `model_type` in transformers' config.json, or the `_class_name` in diffusers'
model_index.json -> "module:Class" in this package, which is called as
`Class(folder, device=..., **options)`."""

PACKAGED = ("lite0",)
"""Models that come in packages. They have a name instead of a folder, which is then None."""


def load(
    source: str | os.PathLike[str],
    role: Role,
    *,
    device: str = "auto",
    hub: HubOptions = ANY,
    **options: Any,
) -> Any:
    """Open a model of others for a role.

    Args:
        source: A folder, a hub id, or a name of `PACKAGED`.
        role: What it shall do.
        device: "auto" is a GPU if there is one.
        hub: How a repository of the hub is asked for.
        **options: Of the adapter.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No adapter covers its class in this role, or a part of it is missing.
        ImportError: A library is not installed; the message says which extra has it.
    """
    if source in PACKAGED:
        return find_adapter(str(source), role)(None, device=device, **options)
    folder = find_folder(source, hub)
    return find_adapter(folder, role)(folder, device=device, **options)


def find_adapter(folder: Path | str, role: Role) -> Any:
    """The class that opens a folder, or a name of `PACKAGED`, for a role; ValueError if none."""
    kind = folder if isinstance(folder, str) else kind_of(folder)
    adapters = ADAPTERS[role]
    if kind not in adapters:
        others = [other for other, kinds in ADAPTERS.items() if kind in kinds]
        hint = f"it can be a {' or a '.join(others)}" if others else "no adapter covers it"
        raise ValueError(f"{folder} holds {shown(kind)}, which is no {role}: {hint}")
    module, _, name = adapters[kind].partition(":")
    return getattr(import_module(f"unitok.baselines.{module}"), name)


def kind_of(folder: Path) -> str:
    """What a folder says that it holds: a `_class_name` of diffusers or a `model_type`.

    Raises:
        ValueError: It has neither model_index.json nor config.json, or they do not say it.
    """
    for name, key in (("model_index.json", "_class_name"), ("config.json", "model_type")):
        if (folder / name).is_file():
            kind = read_object(folder / name).get(key)
            if not isinstance(kind, str):
                raise ValueError(f"{folder / name} does not say its {key}")
            return kind
    raise ValueError(f"{folder} has neither model_index.json nor config.json")
