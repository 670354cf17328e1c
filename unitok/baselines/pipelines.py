"""Opens folders of diffusers' pipelines, part by part.

A part is a model, a scheduler, a tokenizer or an image processor of diffusers or of transformers,
so no code of a folder is run.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from unitok.baselines.parts import errors_named, open_model, open_whole
from unitok.checkpoints.folders import variant
from unitok.extras import need
from unitok.shown import shown
from unitok_tokenizers.bounded_files import read_object

INDEX = "model_index.json"
OF_DIFFUSERS = ("diffusers", "stable_diffusion", "unclip")
"""How model_index.json calls diffusers, and those folders of it that have parts of their own."""

OLD_NAMES = {"CLIPFeatureExtractor": "CLIPImageProcessor"}


def open_pipeline(folder: Path, dtype: torch.dtype) -> Any:
    """The pipeline of a folder, on the CPU.

    Args:
        folder: It holds model_index.json, and a folder for each part.
        dtype: The type that its models compute in.

    Raises:
        ValueError: A part is missing, cannot be opened, or is of no class that is allowed.
        ImportError: A library is missing.
    """
    index = read_object(folder / INDEX)
    need("transformers", "baselines")  # without it, diffusers has the names of its pipelines alone
    kind = pipeline_class(str(index["_class_name"]))
    parts, settings = kind._get_signature_keys(kind)
    given = {name: index[name] for name in settings if name in index}
    for name in sorted(parts):
        made = part_class(folder, kind, index.get(name))
        if made is None and name not in kind._optional_components:
            raise ValueError(f"{folder / INDEX} names no {name}, which {kind.__name__} needs")
        given[name] = made and open_part(part_folder(folder, name, made), made, dtype)
    if "requires_safety_checker" in settings:  # it would warn at length that there is none
        given["requires_safety_checker"] = given["safety_checker"] is not None
    with errors_named(folder, f"{kind.__name__} cannot be made"):
        return kind(**given)


def pipeline_class(name: str) -> Any:
    """A pipeline's class by its name: of diffusers, or our own."""
    need("diffusers", "baselines")
    own = "unitok.baselines.pixel_pipeline"
    return getattr(import_module(own if name == "PixelPipeline" else "diffusers"), name)


def part_class(folder: Path, kind: Any, named: Any) -> Any:
    """The class of a part of a pipeline; None if there is no such part.

    Args:
        folder: The pipeline's, for errors.
        kind: The class of the pipeline.
        named: Library and class, as model_index.json names them.

    Raises:
        ValueError: It is not of diffusers or transformers, or is no part of a pipeline.
    """
    if named in (None, [None, None]):
        return None
    if not isinstance(named, list) or len(named) != 2 or not all(isinstance(n, str) for n in named):
        raise ValueError(f"{folder / INDEX}: a part is a library and a class, not {shown(named)}")
    library, name = str(named[0]), str(named[1])
    diffusers, transformers = need("diffusers", "baselines"), need("transformers", "baselines")
    places = [diffusers, import_module(kind.__module__)] if library in OF_DIFFUSERS else []
    if library == "transformers":
        places, name = [transformers], OLD_NAMES.get(name, name)
    allowed = (
        diffusers.ModelMixin,
        diffusers.SchedulerMixin,
        transformers.PreTrainedModel,
        transformers.PreTrainedTokenizerBase,
        transformers.ImageProcessingMixin,
    )
    found = next((getattr(place, name) for place in places if hasattr(place, name)), None)
    if isinstance(found, type) and issubclass(found, allowed):
        return found
    raise ValueError(
        f"{folder / INDEX} names {shown('.'.join(named))}, which is no part of {kind.__name__} "
        "that diffusers or transformers has; code of a folder is never run"
    )


def part_folder(folder: Path, name: str, kind: Any) -> Path:
    """Where a part lies: in a folder of its own, or beside model_index.json.

    Raises:
        ValueError: It is in neither.
    """
    own = folder / name
    if own.is_dir():
        return own
    if hasattr(kind, "config_name") and (folder / kind.config_name).is_file():
        return folder
    raise ValueError(f"{own} is missing, in which {INDEX} has a {kind.__name__}")


def open_part(folder: Path, kind: Any, dtype: torch.dtype) -> Any:
    """A part of a pipeline; of a model, all weights must be there.

    Raises:
        ValueError: It cannot be opened, or weights are missing.
        ImportError: A library is missing.
    """
    what = f"{kind.__name__} cannot be opened"
    if not issubclass(kind, torch.nn.Module):
        with errors_named(folder, what):
            return kind.from_pretrained(folder, local_files_only=True)
    # Those in full precision, if they are there; else another variant, such as "fp16".
    read = min(map(variant, folder.glob("*.safetensors")), default="") or None
    if issubclass(kind, need("diffusers", "baselines").ModelMixin):
        return open_whole(kind, folder, what, torch_dtype=dtype, variant=read)
    return open_model(kind, folder, dtype, what, variant=read)


def open_controlnet(folder: Path, dtype: torch.dtype) -> Any:
    """A ControlNet.

    Raises:
        ValueError: The folder holds something else, or cannot be opened.
        ImportError: A library is missing.
    """
    kind = read_object(folder / "config.json").get("_class_name")
    if kind != "ControlNetModel":
        raise ValueError(f"{folder} holds {shown(kind)}, which is no ControlNetModel")
    return open_part(folder, need("diffusers", "baselines").ControlNetModel, dtype)
