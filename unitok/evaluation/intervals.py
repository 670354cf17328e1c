"""How sure a score is: intervals at 95%."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959964  # of the normal distribution, for 95%


def wilson(right: int, of: int) -> tuple[float, float]:
    """The interval of a share (Wilson, 1927, https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        right: How many were right.
        of: How many there were; (0, 1) if there were none.
    """
    if of == 0:
        return 0.0, 1.0
    share, square = right / of, Z * Z / of
    centre = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / of + square / (4 * of)) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval of a mean, by the normal distribution. One value alone has no spread.

    For the differences of two runs on the same items it is the paired interval.
    """
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return mean, mean
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = Z * math.sqrt(variance / count)
    return mean - half, mean + half
