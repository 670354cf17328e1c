"""Tries the paged kernel once on the device: one step of decode rows, compared with torch's.

Triton compiles the kernel when it first runs, so that an install which cannot compile it, or
compiles it wrongly, would otherwise show in the first step of a request.
"""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from unitok_engine.attention.base import AttentionBackend, AttentionMetadata
from unitok_engine.attention.gather import GatherBackend
from unitok_engine.attention.kv_layout import KVShape
from unitok_engine.attention.xformers import XformersBackend

_HEADS = 2
_BLOCKS = 3
_TABLES = ((2, 0), (1,))  # a row that reads past its first block, and a short one
_TOLERANCE = 0.02  # of outputs near 1: two bytes round by up to 0.008, a lost token shows by more


@lru_cache(maxsize=32)
def kernel_fault(
    head_dim: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> str | None:
    """Why xformers' paged kernel is of no use here, or None if it works.

    A process tries each combination once. It takes three blocks of two heads, and the time in which
    Triton compiles a kernel, or finds it compiled on the disk.

    Args:
        head_dim: The size of a head.
        block_size: Tokens per block.
        dtype: The type of keys and values.
        device: Where they are.
    """
    sizes = (KVShape(1, _HEADS, head_dim), _BLOCKS, block_size, dtype, device)
    try:
        attended = _attended(XformersBackend(*sizes))
    except (MemoryError, torch.OutOfMemoryError):  # says nothing of the kernel
        raise
    except Exception as error:  # whatever a library that does not fit raises
        return f"its paged kernel raised {_first_line(error)} ({_versions()})"
    expected = _attended(GatherBackend(*sizes))
    if not torch.allclose(attended, expected, atol=_TOLERANCE, rtol=_TOLERANCE):
        return f"its paged kernel gives wrong numbers ({_versions()})"
    return None


@torch.inference_mode()
def _attended(backend: AttentionBackend) -> Tensor:
    """What two decode rows see, on the CPU in fp32: [2, heads, head_dim]."""
    layout, device = backend.layout, backend.device
    size, head_dim, dtype = layout.block_size, layout.shape.head_dim, layout.keys.dtype
    generator = torch.Generator().manual_seed(0)

    def random(rows: int) -> Tensor:
        x = torch.randn(rows, _HEADS, head_dim, generator=generator)
        return x.to(device=device, dtype=dtype)

    contexts = (size + 2, 3)
    slots = torch.tensor([_TABLES[0][1] * size + 1, _TABLES[1][0] * size + 2])
    everywhere = layout.slot_index(torch.arange(_BLOCKS * size, device=device))
    layout.write(0, everywhere, random(_BLOCKS * size), random(_BLOCKS * size))
    view = backend.view(AttentionMetadata(slots, (1, 1), contexts, _TABLES).to(device))
    return view.attend(0, random(2), random(2), random(2)).float().cpu()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _versions() -> str:
    return ", ".join(f"{name} {_version(name)}" for name in ("xformers", "triton"))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not installed"
