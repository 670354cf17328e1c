"""Torch's OpenMP threads: each thread that computes has a team of them.

When all teams together have more threads than there are cores, libgomp lets all of them sleep
between two operators instead of spinning. Small operators then take 1.5 times as long. So a thread
that will not compute for a while gives its team up. It gets a new one in about 50 µs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

_PAUSE_SOFT = 1  # omp_pause_soft of OpenMP 5.0, section 3.2.43


def _find() -> Callable[[int], int] | None:
    """`omp_pause_resource_all` of the libgomp that torch brings; None if torch uses another."""
    for file in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        try:
            return ctypes.CDLL(str(file)).omp_pause_resource_all
        except (OSError, AttributeError):  # not loadable, or older than OpenMP 5.0
            continue
    return None


_pause = _find()


def give_up_team() -> None:
    """End the calling thread's OpenMP threads. Do nothing if torch uses another OpenMP."""
    if _pause is not None:
        _pause(_PAUSE_SOFT)
