"""What `unitok.load` takes for vLLM alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from unitok.shown import shown


class VllmOptions(TypedDict, total=False):
    """Options of vLLM's own, by its names for them; what is not given is as vLLM has it.

    Attributes:
        tensor_parallel_size: Over how many devices each layer is divided. It must divide the heads.
        data_parallel_size: How many copies of the model share the requests.
        max_model_len: The most tokens of a prompt and what follows it.
        max_num_seqs: The most samples that run at once.
        max_num_batched_tokens: The most tokens of a step, prefill and decode ones together.
        gpu_memory_utilization: The share of a GPU's memory that vLLM takes, weights included.
        enforce_eager: Whether steps are neither compiled nor recorded as CUDA graphs.
        enable_prefix_caching: Whether prompts that begin alike share their K/V.
        text_only: Whether the model only answers and never draws, which takes half the K/V.
    """

    tensor_parallel_size: int
    data_parallel_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    enforce_eager: bool
    enable_prefix_caching: bool
    text_only: bool


FLAGS = ("enforce_eager", "enable_prefix_caching", "text_only")


def check_options(options: Mapping[str, object]) -> None:
    """Check options of vLLM's by themselves.

    Raises:
        TypeError: One is unknown, or of a wrong type.
        ValueError: One is out of its range.
    """
    for name, value in options.items():
        if name not in VllmOptions.__annotations__:
            raise TypeError(f"load() got an unexpected keyword argument {name!r}")
        if name in FLAGS:
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, not {shown(value)}")
        elif name == "gpu_memory_utilization":
            _check_share(name, value)
        else:
            _check_count(name, value)


def _check_share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {shown(value)}")
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, not {value}")


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {shown(value)}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, not {value}")


# What `unitok.load` takes for our own engine alone, and why vLLM cannot have it.
OURS = {
    "adapter": "merge the adapter with unitok's own engine, save the model, and load that folder",
    "adapters": "it has one set of weights; unitok's own engine keeps adapters beside them",
    "compile": "vLLM compiles by itself, unless enforce_eager is given",
    "drafts": "with speculative decoding vLLM runs no logits processors, and guidance needs one",
    "quantize": "its weights are read as they are stored; unitok's own engine quantises",
}


def refuse_ours(memory: int | float | None, **given: object) -> None:
    """Refuse what is for our own engine alone.

    Args:
        memory: The size of the K/V pool, which may be a share.
        given: Arguments of `unitok.load`.

    Raises:
        ValueError: One is given.
    """
    for name, value in given.items():
        if value not in (None, False, "auto", {}):
            raise ValueError(f"backend='vllm' takes no {name}: {OURS[name]}")
    if isinstance(memory, float):
        raise ValueError(
            "backend='vllm' takes memory in bytes: for a share of the GPU's memory, weights "
            "included, give gpu_memory_utilization"
        )
