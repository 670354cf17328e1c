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
    "generator": {
        "StableDiffusionPipeline": "stable_diffusion:StableDiffusion",
        "StableDiffusionImg2ImgPipeline": "stable_diffusion:StableDiffusion",
        "StableDiffusionInpaintPipeline": "stable_diffusion:StableDiffusion",
        "StableDiffusionControlNetPipeline": "stable_diffusion:StableDiffusion",
        "StableDiffusionXLPipeline": "stable_diffusion:StableDiffusion",
        "StableDiffusionXLImg2ImgPipeline": "stable_diffusion:StableDiffusion",
        "StableDiffusionXLInpaintPipeline": "stable_diffusion:StableDiffusion",
        "StableDiffusionXLControlNetPipeline": "stable_diffusion:StableDiffusion",
        "DiTPipeline": "generators:DiT",
        "DDPMPipeline": "generators:DDPM",
        "DDIMPipeline": "generators:DDPM",
        "UnCLIPPipeline": "generators:UnCLIP",
        "WanPipeline": "generators:Wan",
    },
    "encoder": {},
    "segmenter": {},
    "detector": {},
    "speech": {},
    "audio": {},
}
"""For each role: the `model_type` in transformers' config.json, or the `_class_name` in diffusers'
model_index.json -> "module:Class" in this package, which is called as
`Class(folder, device=..., **options)`."""


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
        source: A folder, or a hub id.
        role: What it shall do.
        device: "auto" is a GPU if there is one.
        hub: How a repository of the hub is asked for.
        **options: Of the adapter.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No adapter covers its class in this role, or a part of it is missing.
        ImportError: A library is not installed; the message says which extra has it.
    """
    folder = find_folder(source, hub)
    return find_adapter(folder, role)(folder, device=device, **options)


def find_adapter(folder: Path, role: Role) -> Any:
    """The class that opens a folder for a role; ValueError if there is none."""
    kind = kind_of(folder)
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
