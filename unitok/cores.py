"""How many cores of the machine this process may count on."""

import os

import torch

_reserved: int | None = None  # by whoever started this process; None if nobody counts them


def keep_to(cores: int) -> None:
    """Count on so many cores from now on: the others are reserved for other processes.

    Args:
        cores: What was reserved for this process, at least 1.
    """
    global _reserved
    _reserved = cores


def usable_cores() -> int:
    """How many cores this process may use: `taskset`, a container's cpuset and others take some."""
    if hasattr(os, "sched_getaffinity"):
        there = len(os.sched_getaffinity(0))
    else:  # macOS and Windows
        there = os.cpu_count() or 1
    return there if _reserved is None else min(there, _reserved)


def has_idle_core() -> bool:
    """Whether torch leaves a core to another thread."""
    return torch.get_num_threads() == 1 and usable_cores() > 1
