"""Loads a model: the embedded one, a checkpoint's folder, or a hub id."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, Unpack, cast

import torch

from unitok.api import Model
from unitok.backends.vllm.opening import Opening
from unitok.backends.vllm.options import VllmOptions, check_options, refuse_ours
from unitok.checkpoints.folders import ANY, HubOptions, find_folder, first_line, read_json
from unitok.checkpoints.lora_files import read_adapter
from unitok.drafts import Drafts, check_drafts
from unitok.families import Family, open_folder
from unitok.nn.compiled import why_not_compiled
from unitok.nn.lora import merge
from unitok.precision import Choice, parse_dtype, read_cpu_dtype
from unitok.quantization.weights import Quantization, Quantized, check_quantization
from unitok.shown import shown
from unitok_engine import EngineConfig

logger = logging.getLogger(__name__)

BackendName = Literal["unitok", "vllm"]
BACKENDS: tuple[BackendName, ...] = ("unitok", "vllm")
DEFAULT_FOLDER = Path(__file__).parent / "assets" / "default"


def load(
    path: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = "auto",
    memory: int | float | str | None = None,
    strict: bool = False,
    compile: bool | Literal["auto"] = False,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    adapter: str | os.PathLike[str] | None = None,
    adapters: Mapping[str, str | os.PathLike[str]] | None = None,
    drafts: Drafts = "auto",
    quantize: Quantization | None = None,
    backend: BackendName = "unitok",
    **options: Unpack[VllmOptions],
) -> Model:
    """Load a model: the embedded one, a checkpoint's folder, or a Hugging Face hub id.

    docs/checkpoints.md lists the families. A hub id such as "deepseek-community/Janus-Pro-1B" is
    downloaded once.

    Args:
        path: The folder or the hub id; None for the embedded model.
        device: By default "cuda" if there is a GPU, else "cpu".
        dtype: "auto" is the type that the model names for a CPU, else the type in which its weights
            are stored if the device computes well in it, else float32. Other values are "float32"
            or "fp32", "bfloat16" or "bf16", "float16" or "fp16", "float64" or "fp64", and torch's
            types. `Model.info` has the type and the reason.
        memory: The size of the K/V pool: bytes, "512MB" or "2GB"; or a share of the free memory,
            0.5 or "50%".
        strict: Whether settings that unitok does not know are refused, in config.json, in the files
            of the image preprocessor and in unitok.json.
            If not, a UserWarning names them. Settings that are known to change the maths are
            always refused.
        compile: Whether decode steps go through torch.compile, which joins small kernels and takes
            up to minutes when the steps first run. "auto" does it on CUDA if Triton is installed.
        revision: Of a hub repository: a branch, a tag or a commit. By default its main branch.
        token: An access token of the hub; False for none. By default that of the environment
            variable HF_TOKEN, or of `hf auth login`.
        cache_dir: The folder of downloads from the hub. By default the hub library's own, which
            the environment variables HF_HOME and HF_HUB_CACHE set.
        adapter: A low-rank adapter of this model, in PEFT's format: a folder, or a hub id, whose
            main branch is taken. It is merged into the weights, so that it costs nothing later.
            docs/guide/adapters.md tells more.
        adapters: Names of adapters, and their folders or hub ids. They are kept beside the
            weights, for requests with `adapter=name`; see `Model.load_adapter`.
        drafts: Whether the next tokens of a picture are guessed, so that a step may verify several
            at once. It takes fewer steps, and changes no picture where a step rounds alike however
            many rows it has. "auto" does it only there: in float32 on a CPU, for small models.
            docs/guide/loading.md tells more.
        quantize: "int8" or "int4": the linear layers of the decoder and the heads have weights of
            so many bits, which takes less memory, and less time on a CPU. The rest computes in
            `dtype`. docs/guide/quantization.md tells more.
        backend: What runs the model: "unitok", our own engine, or "vllm", which is to be installed
            in the environment. With "vllm", `device` is where pictures are decoded, and `memory` is
            in bytes; adapter, adapters, compile, drafts and quantize are refused.
            docs/guide/vllm.md tells more.
        options: Options of vLLM's, see `unitok.backends.vllm.options.VllmOptions`, such as
            `tensor_parallel_size=2`; only with backend="vllm".

    Returns:
        The model, ready for use.

    Raises:
        FileNotFoundError: There is no such folder or repository, or a file in it is missing.
        OSError: A download broke off.
        ValueError: A file cannot be read, does not fit, or is beyond a limit (docs/security.md);
            the path is empty; the device, dtype or memory is unknown; a revision, token or
            cache_dir is given for a folder; the adapter is of another base or of another kind than
            plain LoRA; what it takes to compile is missing; drafts is none of its values; there is
            no such quantisation, or none for the device or the dtype; an adapter is to be merged
            into a model that is quantised; there is no such backend; or vLLM cannot serve the
            folder, or not with these options.
        TypeError: An argument has another type, or is unknown.
        ImportError: vLLM is asked for, and is not installed here.
        RuntimeError: vLLM's processes did not start.
    """
    check_backend(backend, options)
    began = time.perf_counter()
    hub = HubOptions(revision, token, cache_dir)
    where = check_device(device)
    asked, size = parse_dtype(dtype), parse_memory(memory)
    if backend == "vllm":
        refuse_ours(
            size,
            adapter=adapter,
            adapters=adapters,
            compile=compile,
            drafts=drafts,
            quantize=quantize,
        )
    compiled = decide_compile(compile, torch.device(where))
    check_drafts(drafts)
    few_bits = check_quantization(quantize, torch.device(where), asked)
    if few_bits and adapter is not None:
        raise ValueError(
            f"an adapter cannot be merged into weights of {few_bits}: keep it beside them with "
            "adapters={name: folder}, or merge it without quantize, save the model, and load that"
        )
    folder = find_folder(DEFAULT_FOLDER if path is None else path, hub)
    choice = Choice(asked, torch.device(where), own_cpu_dtype(folder))
    if backend == "vllm":
        model = Opening(folder, choice, cast("int | None", size), strict, options).load()
        log_loaded(model, time.perf_counter() - began)
        return model
    added = None if adapter is None else FoundAdapter.find(adapter, hub)
    beside = find_adapters({} if adapters is None else adapters, hub)
    logger.info("opening %s on %s", folder, where)
    kind = choice if few_bits is None else Quantized(choice, few_bits)
    family = open_folder(folder, where, kind, strict)
    if added is not None:
        added.merge_into(family)
    config = EngineConfig(memory=size, max_context=family.max_context)
    name, precision = added and added.name, str(choice.made)
    model = Model(
        family, config, precision=precision, compile=compiled, adapter=name, drafts=drafts
    )
    load_adapters(model, beside)
    log_loaded(model, time.perf_counter() - began)
    return model


def check_backend(backend: object, options: Mapping[str, object]) -> None:
    """Check what runs the model, and the options that it has alone.

    Raises:
        ValueError: There is no such backend, it has no such option, or one is out of its range.
        TypeError: An option is unknown, or of a wrong type.
    """
    if not isinstance(backend, str) or backend not in BACKENDS:  # an array is in nothing
        names = " or ".join(map(repr, BACKENDS))
        raise ValueError(f"backend must be {names}, not {shown(backend)}")
    check_options(options)
    if options and backend != "vllm":
        raise ValueError(f"{next(iter(options))} is an option of backend='vllm' alone")


def load_adapters(model: Model, adapters: Mapping[str, FoundAdapter]) -> None:
    """Load adapters beside a model's weights. The model is closed if one cannot be loaded."""
    try:
        for name, found in adapters.items():
            model.load_adapter(name, found.folder)
    except BaseException:
        model.close()
        raise


def find_adapters(
    adapters: Mapping[str, str | os.PathLike[str]], hub: HubOptions
) -> dict[str, FoundAdapter]:
    """Find adapters by their names; TypeError if they have none."""
    if not isinstance(adapters, Mapping):
        kind = type(adapters).__name__
        raise TypeError(f"adapters must map names to folders, as in {{'a': folder}}, not {kind}")
    return {name: FoundAdapter.find(path, hub) for name, path in adapters.items()}


@dataclass(frozen=True)
class FoundAdapter:
    """An adapter that is on this disk.

    Attributes:
        name: As its folder or, from the hub, as its repository without the owner.
        folder: Where it lies.
    """

    name: str
    folder: Path

    @classmethod
    def find(cls, path: str | os.PathLike[str], hub: HubOptions) -> FoundAdapter:
        """Find a folder, or fetch the main branch of a hub id.

        Args:
            path: The folder or the hub id.
            hub: How the base was asked for: an adapter is fetched with the same token.

        Raises:
            FileNotFoundError, OSError, ValueError, TypeError: As `find_folder`.
        """
        here = is_folder(path)
        folder = find_folder(path, ANY if here else replace(hub, revision=None), "an adapter")
        return cls((folder.resolve() if here else Path(path)).name, folder)

    def merge_into(self, family: Family) -> None:
        """Merge it into the weights of a family, before a `Model` is made of that.

        Its name is added to the family's. It may have taught new words, so that the words the model
        knows are listed no more.

        Raises:
            FileNotFoundError, ValueError: As `read_adapter`.
        """
        logger.info("merging the adapter %s into %s", self.name, family.name)
        merge(family.model, read_adapter(self.folder, family, self.name))
        family.name = f"{family.name}+{self.name}"
        family.defaults = replace(family.defaults, known_words=None)


def is_folder(path: object) -> bool:
    """Whether a path is of a folder on this disk."""
    return isinstance(path, str | os.PathLike) and os.path.isdir(os.path.expanduser(path))


def own_cpu_dtype(folder: Path) -> torch.dtype | None:
    """The type for a CPU that the folder's unitok.json names; None if it names none.

    Raises:
        ValueError: It names an unknown type.
    """
    file = folder / "unitok.json"
    return read_cpu_dtype(read_json(file, optional=True), str(file))


def log_loaded(model: Model, seconds: float) -> None:
    """Log what was loaded, and how long it took."""
    info = model.info()
    logger.info(
        "loaded %s in %.2f s: %s parameters on %s in %s; K/V pool of %s bytes for %s tokens",
        info.name,
        seconds,
        f"{info.parameters:,}",
        info.device,
        info.precision,
        f"{info.kv_memory:,}",
        f"{info.kv_tokens:,}",
    )


def check_device(device: str | torch.device | None) -> str:
    """Check that a device exists and can hold a model.

    Args:
        device: None for "cuda" if there is a GPU, else "cpu".

    Returns:
        The device's name.

    Raises:
        ValueError: It does not exist, or holds no numbers.
        TypeError: It is neither a name nor a device of torch's.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, str | torch.device):
        raise TypeError(f"device must be a name such as 'cpu' or 'cuda:1', not {shown(device)}")
    name = str(device)
    if name.startswith("meta"):
        raise ValueError("device 'meta' cannot be used: it holds no numbers, so nothing runs there")
    try:
        torch.zeros(1, device=name).tolist()
    except Exception as error:  # each backend of torch has another
        reason = first_line(error)
        raise ValueError(f"device {shown(name)} cannot be used here: {reason}") from None
    return name


def decide_compile(asked: bool | str, device: torch.device) -> bool:
    """Decide whether to compile: as asked or, if that is "auto", on CUDA where it can be done.

    Raises:
        ValueError: It is asked for, and what it takes is missing; or `asked` is something else.
    """
    if not isinstance(asked, bool) and not (isinstance(asked, str) and asked == "auto"):
        raise ValueError(f"compile must be True, False or 'auto', not {shown(asked)}")
    if not asked or (asked == "auto" and device.type != "cuda"):
        return False
    missing = why_not_compiled(device)
    if missing is None:
        return True
    if asked == "auto":
        logger.info("the model is not compiled: %s", missing)
        return False
    raise ValueError(f"the model cannot be compiled here: {missing}")


def parse_memory(memory: int | float | str | None) -> int | float | None:
    """Bytes as an int, or a share of the free memory as a float.

    Args:
        memory: Bytes, a share, or text such as "512MB" or "50%".

    Raises:
        ValueError: The text is of no such form, or the share is not above 0 and at most 1.
        TypeError: It is neither a number nor text.
    """
    if memory is None:
        return None
    if isinstance(memory, bool) or not isinstance(memory, str | Real):
        raise TypeError(f"memory must be a number of bytes, a share, or text, not {shown(memory)}")
    if isinstance(memory, Integral):
        return int(memory)
    size = parse_size(memory) if isinstance(memory, str) else float(memory)
    if isinstance(size, float) and not 0 < size <= 1:
        raise ValueError(
            f"memory as a share must be above 0 and at most 1 (100%), not {shown(memory)}"
        )
    return size


def parse_size(text: str) -> int | float:
    """Bytes as an int, or a share as a float, of text such as "512MB" or "50%".

    Raises:
        ValueError: The text is of no such form.
    """
    units = {"KB": 2**10, "MB": 2**20, "GB": 2**30}
    text = text.strip()
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        if text.replace(".", "", 1).isdecimal() and "." in text:
            return float(text)
        return int(float(text[:-2]) * units[text[-2:].upper()])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(
            "memory must be bytes, such as '512MB' or '2GB', or a share of what is free, such as "
            f"'50%', not {shown(text)}"
        ) from None
