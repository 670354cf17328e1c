"""Sends numbers of the host to a device without waiting for it, as a plain copy would."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def send(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; on CUDA the copy is only queued, from pinned memory."""
    return _ready(x, device).to(device, non_blocking=True)


def fill(target: Tensor, x: Tensor) -> None:
    """Write a tensor into one on the device, in place; on CUDA this is only queued."""
    target.copy_(_ready(x, target.device), non_blocking=True)


def _ready(x: Tensor, device: torch.device) -> Tensor:
    """The tensor, in pinned memory if it is to leave the host for CUDA."""
    return x.pin_memory() if device.type == "cuda" and x.device.type == "cpu" else x


@lru_cache(maxsize=256)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of numbers that rarely change from step to step, sent once. Never write to it."""
    return send(torch.tensor(values, dtype=dtype), device)
