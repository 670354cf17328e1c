"""Opens folders of diffusers' pipelines, part by part.

Only local files are read, weights only as safetensors. A part is a model, a scheduler, a tokenizer
or an image processor of diffusers or of transformers, so no code of a folder is run.
"""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from unitok.baselines.extra import need
from unitok.checkpoints.folders import first_line, variant
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
    need("transformers")  # without it, diffusers has the names of its pipelines alone
    kind = pipeline_class(str(index["_class_name"]))
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        optional = name in kind._optional_components
        if not optional and parameter.default is not inspect.Parameter.empty:  # it is no part
            given |= {name: index[name]} if name in index else {}
        elif named := named_part(folder, index.get(name)):
            made = part_class(kind, *named)
            given[name] = open_part(part_folder(folder, name, made), made, dtype)
        elif not optional:
            raise ValueError(f"{folder / INDEX} names no {name}, which {kind.__name__} needs")
    try:
        return build(kind, given)
    except Exception as error:  # a part does not fit, or a setting
        reason = first_line(error)
        raise ValueError(f"{folder}: {kind.__name__} cannot be made: {reason}") from None


def pipeline_class(name: str) -> Any:
    """A pipeline's class by its name: of diffusers, or our own."""
    need("diffusers")
    own = "unitok.baselines.pixel_pipeline"
    return getattr(import_module(own if name == "PixelPipeline" else "diffusers"), name)


def as_pipeline(pipeline: Any, name: str, **others: Any) -> Any:
    """Another pipeline that shares the parts of one.

    Args:
        pipeline: The one.
        name: The class of the other.
        **others: Further parts.
    """
    kind = getattr(need("diffusers"), name)
    return build(kind, {**pipeline.config, **pipeline.components, **others})


def build(kind: Any, given: dict[str, Any]) -> Any:
    """A pipeline of those parts and settings that it takes; optional parts may be missing."""
    taken = inspect.signature(kind).parameters
    made = dict.fromkeys(kind._optional_components)
    made |= {name: value for name, value in given.items() if name in taken}
    if "requires_safety_checker" in taken:  # it would warn at length that there is none
        made["requires_safety_checker"] = made["safety_checker"] is not None
    return kind(**made)


def named_part(folder: Path, value: Any) -> tuple[str, str] | None:
    """Library and class of a part, as model_index.json names them; None if it names none."""
    if value is None or value == [None, None]:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
        return value[0], value[1]
    raise ValueError(f"{folder / INDEX}: a part is a library and a class, not {shown(value)}")


def part_class(kind: Any, library: str, name: str) -> Any:
    """The class of a part.

    Args:
        kind: The class of the pipeline.
        library: What model_index.json says that the class is of.
        name: The class.

    Raises:
        ValueError: It is not of diffusers or transformers, or is no part of a pipeline.
    """
    diffusers, transformers = need("diffusers"), need("transformers")
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
        f"{INDEX} names {shown(f'{library}.{name}')}, which is no part of {kind.__name__} that "
        "diffusers or transformers has; code of a folder is never run"
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


def open_controlnet(folder: Path, dtype: torch.dtype) -> Any:
    """A ControlNet.

    Raises:
        ValueError: The folder holds something else, or cannot be opened.
        ImportError: A library is missing.
    """
    kind = read_object(folder / "config.json").get("_class_name")
    if kind != "ControlNetModel":
        raise ValueError(f"{folder} holds {shown(kind)}, which is no ControlNetModel")
    return open_part(folder, need("diffusers").ControlNetModel, dtype)


def open_part(folder: Path, kind: Any, dtype: torch.dtype) -> Any:
    """A part of a pipeline; of a model, all weights must be there.

    Raises:
        ValueError: It cannot be opened, or weights are missing.
        ImportError: A library is missing.
    """
    check_shards(folder)
    try:
        if not issubclass(kind, torch.nn.Module):
            return kind.from_pretrained(folder, local_files_only=True)
        options = model_options(folder, kind, dtype)
        model, info = kind.from_pretrained(folder, **options)  # type: ignore[attr-defined]
    except ImportError:
        raise
    except Exception as error:  # those of the libraries are of all kinds
        reason = first_line(error)
        raise ValueError(f"{folder}: {kind.__name__} cannot be opened: {reason}") from None
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}")
    return model.eval().requires_grad_(False)


def check_shards(folder: Path) -> None:
    """Check that an index of weights in several files names only files beside it.

    Raises:
        ValueError: It names others.
    """
    for index in folder.glob("*.index*.json"):
        named = read_object(index).get("weight_map")
        files = named.values() if isinstance(named, dict) else [named]
        for file in files:
            if not isinstance(file, str) or Path(file).name != file:
                raise ValueError(f"{index} names {shown(file)}, which is no file beside it")


def model_options(folder: Path, kind: Any, dtype: torch.dtype) -> dict[str, Any]:
    """How weights are read: as safetensors, in full precision if they are there in several."""
    options: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "output_loading_info": True,
        "variant": variant_of(folder),
    }
    if issubclass(kind, need("diffusers").ModelMixin):
        return options | {"torch_dtype": dtype}
    # Else a config could name an implementation that is fetched from the hub, and run.
    attention = "sdpa" if kind._supports_sdpa else "eager"
    return options | {"dtype": dtype, "attn_implementation": attention}


def variant_of(folder: Path) -> str | None:
    """Which weights are read if those without a variant are not there, such as "fp16"."""
    return min(map(variant, folder.glob("*.safetensors")), default="") or None
