"""Measuring speed: paired runs, ratios, and the floor that memory sets.

A machine's speed drifts, so only what ran side by side is compared: every measurement alternates
the contenders, one short run each, and gives medians.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from unitok.nn.model import UnifiedModel


def paired(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Time contenders side by side, in alternating order.

    Args:
        contenders: What to run, by name.
        rounds: How often each runs.
        warm_up: Rounds before those, which do not count.
        pause: Seconds before each run, in which the threads of the one before go to sleep.

    Returns:
        The seconds of each contender, one number a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-warm_up, rounds):
        for name in sorted(contenders, reverse=bool(turn % 2)):
            time.sleep(pause)
            start = time.perf_counter()
            contenders[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each contender."""
    return {name: statistics.median(times) for name, times in seconds.items()}


def median_ratio(seconds: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """The median over the rounds of one contender's time over the other's."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


class MemoryReader:
    """Reads memory from end to end, as fast as torch can: the best time gives the bandwidth."""

    def __init__(self, size: int = 2**30) -> None:
        """size: Bytes to read."""
        self._data = torch.ones(size // 8, dtype=torch.int64)

    def __call__(self) -> None:
        """Read once."""
        self._data.sum()

    def bandwidth(self, seconds: Sequence[float]) -> float:
        """Bytes per second, given the times of some reads."""
        return self._data.nbytes / min(seconds)


def decode_floor(model: UnifiedModel, rows: int, context: int, image: bool) -> int:
    """Bytes that a decode step must read: the layers, the head it uses, and the live K/V.

    Args:
        model: A model that is not prepared: packed layers show no parameters.
        rows: Rows of the step.
        context: Tokens that each row attends to.
        image: Whether the step uses the image head; else it uses the text head.
    """
    head = model.image_head if image else model.text_head
    weights = sum(p.nbytes for part in (model.decoder, head) for p in part.parameters())
    return weights + rows * context * model.kv_shape.bytes_per_token(model.dtype)
