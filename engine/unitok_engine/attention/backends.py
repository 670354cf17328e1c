"""Which attention backends there are, and which fits a model and its device best."""

from typing import Literal

import torch

from unitok_engine.attention.base import AttentionBackend
from unitok_engine.attention.cpu import CpuBackend
from unitok_engine.attention.gather import GatherBackend
from unitok_engine.attention.kv_layout import KVShape
from unitok_engine.attention.probe import kernel_fault
from unitok_engine.attention.xformers import XformersBackend
from unitok_engine.user_warnings import warn

BackendName = Literal["torch", "torch-gather", "xformers"]
"""A backend: "torch" is for CPUs, "torch-gather" for any device, "xformers" for CUDA."""

BackendClass = type[CpuBackend] | type[GatherBackend] | type[XformersBackend]

BACKENDS: dict[BackendName, BackendClass] = {
    "torch": CpuBackend,
    "torch-gather": GatherBackend,
    "xformers": XformersBackend,
}


def pick_backend(
    shape: KVShape,
    block_size: int | None,
    dtype: torch.dtype,
    device: torch.device,
    name: BackendName | None = None,
) -> BackendName:
    """The backend that is asked for, or else the one that fits best.

    Where xformers fits, its kernel is tried once. If it fails, torch attends, and a warning says
    why.

    Args:
        shape: The shape of the model's keys and values.
        block_size: Tokens per block, or None if it may be what the backend prefers.
        dtype: The type of keys and values.
        device: Where they are.
        name: The backend that is asked for.

    Raises:
        ValueError: xformers is asked for, and does not work on the device.
    """
    # On a CPU, xformers' kernel runs in Triton's interpreter alone: whoever asks for it knows.
    if device.type == "cpu" or name not in (None, "xformers"):
        return name or "torch"
    size = block_size or XformersBackend.preferred_block_size(dtype, device)
    unfit = XformersBackend.why_unfit(shape, size, dtype, device)
    fault = None if unfit else kernel_fault(shape.head_dim, size, dtype, device)
    if unfit is None and fault is None:
        return "xformers"
    if name == "xformers":
        raise ValueError(f'attention "xformers" does not work here: {unfit or fault}')
    if fault:
        warn(f"torch attends instead of xformers, more slowly: {fault}")
    return "torch-gather"


def make_backend(
    shape: KVShape,
    num_blocks: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
    name: BackendName | None = None,
) -> AttentionBackend:
    """A backend with storage for the keys and values of `num_blocks` blocks, all zero.

    Args:
        shape: The shape of the model's keys and values.
        num_blocks: Blocks that may be handed out; a backend may add some of its own.
        block_size: Tokens per block.
        dtype: The type of keys and values.
        device: Where they are.
        name: The backend; None picks what fits best.

    Raises:
        ValueError: xformers is asked for, and does not work on the device.
    """
    name = pick_backend(shape, block_size, dtype, device, name)
    return BACKENDS[name](shape, num_blocks, block_size, dtype, device)
