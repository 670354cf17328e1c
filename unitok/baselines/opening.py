"""The adapter of a folder or of a hub id, by what its config says."""

import inspect
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from unitok.baselines.silence import without_bars
from unitok.checkpoints.folders import ANY, HubOptions, find_folder
from unitok.requests import unknown_option
from unitok.shown import shown
from unitok_tokenizers.bounded_files import read_object

Role = Literal[
    "scorer", "captioner", "generator", "encoder", "segmenter", "detector", "speech", "audio"
]

ADAPTERS: dict[Role, dict[str, str]] = {
    "scorer": {
        "clip": "scorers:ClipScorer",
        "open_clip": "open_clip_models:OpenClipScorer",
        "open_clip_coca": "open_clip_models:OpenClipScorer",
        "siglip": "scorers:ClipScorer",
        "siglip2": "scorers:ClipScorer",
    },
    "captioner": {
        "blip": "captioners:BlipCaptioner",
        "blip-2": "captioners:Blip2Captioner",
        "instructblip": "captioners:InstructBlipCaptioner",
        "internvl": "captioners:Captioner",
        "llava": "captioners:LlavaCaptioner",
        "llava_next": "captioners:Captioner",
        "open_clip_coca": "open_clip_models:CocaCaptioner",
        "original_llava": "llava_layout:OriginalLlavaCaptioner",
        "qwen2_5_vl": "captioners:Captioner",
        "qwen2_vl": "captioners:Captioner",
        "qwen3_vl": "captioners:Captioner",
    },
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
        "PixelPipeline": "generators:Pixels",
        "UnCLIPPipeline": "generators:UnCLIP",
        "WanPipeline": "generators:Wan",
    },
    "encoder": {
        "vit": "encoders:Encoder",
        "vit_mae": "encoders:MaeEncoder",
        "beit": "encoders:BeitEncoder",
        "dinov2": "encoders:Encoder",
        "dinov2_with_registers": "encoders:Encoder",
        "dinov3_vit": "encoders:Encoder",
        "ijepa": "encoders:Encoder",
        "vivit": "encoders:ClipEncoder",
        "vjepa2": "encoders:ClipEncoder",
        "lite0": "lite0:Lite0Encoder",
    },
    "segmenter": {
        "sam": "segmenter:SamSegmenter",
        "sam2": "segmenter:SamSegmenter",
        "sam2_video": "segmenter:SamSegmenter",
    },
    "detector": {"grounding-dino": "detector:GroundingDinoDetector"},
    "speech": {"whisper": "sounds:WhisperRecognizer"},
    "audio": {"musicgen": "sounds:MusicgenGenerator"},
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
    silent: bool = False,
    **options: Any,
) -> Any:
    """Open a model of others for a role.

    Args:
        source: A folder, a hub id, or a name of `PACKAGED`.
        role: What it shall do.
        device: "auto" is a GPU if there is one.
        hub: How a repository of the hub is asked for.
        silent: Whether the libraries print no bars and no notes, from now on.
        **options: Of the adapter.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No adapter covers its class in this role, or a part of it is missing.
        TypeError: The adapter has no such option.
        ImportError: A library is not installed; the message says which extra has it.
    """
    if source in PACKAGED and hub.given:
        raise ValueError(f"{source} comes in a package: {' and '.join(hub.given)} cannot be given")
    folder = None if source in PACKAGED else find_folder(source, hub)
    adapter = find_adapter(folder or str(source), role)
    check_options(adapter, options)
    if silent:
        without_bars()
    return adapter(folder, device=device, **options)


def check_options(adapter: Any, options: Mapping[str, Any]) -> None:
    """Check that an adapter has the options that are given; TypeError names one that it has not."""
    known = options_of(adapter)
    for name in options:
        if name not in known:
            raise TypeError(f"{adapter.__name__} has {unknown_option(name, known)}")


def options_of(adapter: Any) -> list[str]:
    """The names of an adapter's options. Its `**options` are those of the class it builds on."""
    found: list[inspect.Parameter] = []
    for made in adapter.__mro__:
        if "__init__" in vars(made):
            found += list(inspect.signature(made.__init__).parameters.values())[2:]
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in found):
                break
            found = [one for one in found if one.kind is not one.VAR_KEYWORD]
    return list(dict.fromkeys(parameter.name for parameter in found))


def find_adapter(folder: Path | str, role: Role) -> Any:
    """The class that opens a folder, or a name of `PACKAGED`, for a role; ValueError if none."""
    kind = folder if isinstance(folder, str) else kind_of(folder)
    adapters = ADAPTERS[role]
    if kind not in adapters:
        others = [other for other, kinds in ADAPTERS.items() if kind in kinds]
        roles = (f"an {other}" if other[0] in "aeiou" else f"a {other}" for other in others)
        hint = f"it can be {' or '.join(roles)}" if others else "no adapter covers it"
        raise ValueError(f"{folder} holds {shown(kind)}, which is no {role}: {hint}")
    module, _, name = adapters[kind].partition(":")
    return getattr(import_module(f"unitok.baselines.{module}"), name)


def kind_of(folder: Path) -> str:
    """What a folder says that it holds: a `_class_name` of diffusers or a `model_type`.

    Two kinds have a name of their own here: "original_llava" for LLaVA as its authors store it,
    whatever its `model_type` is; and "open_clip" or "open_clip_coca" for a model of open_clip.

    Raises:
        ValueError: It has none of the files that say it, or they do not say it.
    """
    for name, read in READERS.items():
        if (folder / name).is_file() and (kind := read(read_object(folder / name))) is not None:
            return kind
    found = [name for name in READERS if (folder / name).is_file()]
    if not found:
        raise ValueError(f"{folder} has none of {', '.join(READERS)}")
    raise ValueError(f"{folder / found[0]} does not say what it holds")


def pipeline_kind(document: Mapping[str, Any]) -> str | None:
    """The kind of a diffusers pipeline."""
    return text_of(document, "_class_name")


def model_kind(document: Mapping[str, Any]) -> str | None:
    """The kind of a transformers model, or of one in the layout of LLaVA's authors."""
    return "original_llava" if "mm_vision_tower" in document else text_of(document, "model_type")


def open_clip_kind(document: Mapping[str, Any]) -> str | None:
    """The kind of an open_clip model: a CoCa has a decoder of both pictures and texts."""
    settings = document.get("model_cfg")
    if not isinstance(settings, Mapping):
        return None
    return "open_clip_coca" if "multimodal_cfg" in settings else "open_clip"


def text_of(document: Mapping[str, Any], key: str) -> str | None:
    """A value that is text; None if it is not there."""
    value = document.get(key)
    return value if isinstance(value, str) else None


READERS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "model_index.json": pipeline_kind,
    "config.json": model_kind,
    "open_clip_config.json": open_clip_kind,
}
"""The files that say what a folder holds, and how each is read. The first that says it counts."""
