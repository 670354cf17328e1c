"""Opens what lies in a folder of a library, and says in one line what is wrong with it.

Only local files are read, weights only as safetensors, and no code of a folder is run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from unitok.checkpoints.folders import first_line
from unitok.extras import need
from unitok.precision import parse_dtype
from unitok.shown import shown
from unitok_tokenizers.bounded_files import read_object

PROCESSOR = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
TOKENIZER = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
NEEDS_TORCHVISION = (
    "which does not run beside this torch: use the environment that make install-vision makes"
)

KERNELS = {"attn_implementation": None, "experts_implementation": None}
"""What runs a model of transformers: its own choice. Else config.json could name a kernel, which is
fetched from the hub, and run."""


def check_complete(folder: Path, *choices: tuple[str, ...]) -> None:
    """Check that a folder has one file of each choice.

    A library would say it at length, or open a tokenizer that knows no words.

    Raises:
        FileNotFoundError: It has none of a choice.
    """
    for names in choices:
        if not any((folder / name).is_file() for name in names):
            raise FileNotFoundError(f"{folder} is not complete: it has no {' or '.join(names)}")


def find_dtype(dtype: str, device: str, gpu: Any = "auto") -> Any:
    """The type to compute in, as the libraries take it.

    Args:
        dtype: A name; "auto" is float32 on a CPU.
        device: Where the model computes.
        gpu: What "auto" is elsewhere; transformers has "auto" for the checkpoint's own.

    Raises:
        ValueError: There is no such type.
    """
    return parse_dtype(dtype) or (torch.float32 if device.startswith("cpu") else gpu)


def open_model(
    kind: Any,
    folder: Path,
    dtype: Any = torch.float32,
    what: str = "transformers cannot open it",
    **options: Any,
) -> Any:
    """A model of transformers with the weights of a folder, ready for use.

    Args:
        kind: The model's class.
        folder: Where the weights lie.
        dtype: The type to compute in; "auto" is the checkpoint's own.
        what: What errors say that could not be done.
        **options: Of the class.

    Raises:
        ValueError: It cannot be opened, or weights are missing.
        ImportError: A library is missing.
    """
    config, others = open_config(kind, folder, what, options)
    return open_whole(kind, folder, what, config=config, dtype=dtype, **KERNELS, **others)


def open_config(
    kind: Any, folder: Path, what: str, options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The settings of a model of transformers, and those options that are none of them.

    Without the settings, the library would read them anew, and take what runs the model from there.
    """
    settings = getattr(kind, "config_class", None) or need("transformers", "baselines").AutoConfig
    safe = {"local_files_only": True, "trust_remote_code": False, "return_unused_kwargs": True}
    with errors_named(folder, what):
        return settings.from_pretrained(folder, **safe, **options)


def open_whole(kind: Any, folder: Path, what: str, **options: Any) -> Any:
    """`open_model` for any library, whose options are all given."""
    check_shards(folder)
    with errors_named(folder, what):
        model, info = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}")
    return model.eval()


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


def open_processor(kind: Any, folder: Path, **options: Any) -> Any:
    """What turns pictures, sounds or texts into a model's inputs, as the folder's files say.

    Args:
        kind: A processor's class in transformers.
        folder: Where the files lie.
        **options: Of the class.

    Raises:
        ValueError: It cannot be opened.
        ImportError: A library is missing.
    """
    with errors_named(folder, f"transformers cannot open what its {kind.__name__} needs"):
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )


@contextmanager
def errors_named(folder: Path, what: str) -> Iterator[None]:
    """Let every error of a library be one line that names the folder and what could not be done.

    Raises:
        ValueError: Anything went wrong; libraries raise errors of all kinds.
        ImportError: A library is missing.
    """
    try:
        yield
    except Exception as error:
        if "torchvision" in str(error).lower():
            raise ImportError(f"{folder} needs torchvision, {NEEDS_TORCHVISION}") from None
        kind = ImportError if isinstance(error, ImportError) else ValueError
        mismatched = "`ignore_mismatched_sizes` to `False`" in str(error)
        reason = "config.json gives weights another shape" if mismatched else first_line(error)
        raise kind(f"{folder}: {what}: {reason}") from None
