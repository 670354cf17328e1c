"""Host numbers to a device, without waiting for it: a plain copy waits for all it has to do."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def send(x: Tensor, device: torch.device) -> Tensor:
    """x on the device; on CUDA the copy is only queued, from pinned memory."""
    if x.device.type == device.type or device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def fill(target: Tensor, x: Tensor) -> None:
    """Write a host tensor into one on the device, in place; on CUDA this is only queued."""
    target.copy_(x.pin_memory() if target.device.type == "cuda" else x, non_blocking=True)


@lru_cache(maxsize=256)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of numbers that rarely change from step to step: sent once. Never write to it."""
    return send(torch.tensor(values, dtype=dtype), device)
