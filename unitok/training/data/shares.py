"""Shares out the conversations of an update between ranks, so that all have as much to compute."""

from __future__ import annotations

from collections.abc import Sequence


def balanced_shares(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Which items each rank gets. The longest go first, each to the rank that has least.

    Args:
        lengths: Of each item.
        ranks: The number of ranks.

    Returns:
        Of each rank, the indices of its items, in their order. Together they are all, each once.
    """
    loads = [0] * ranks
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rank = min(range(ranks), key=lambda r: (loads[r], len(shares[r]), r))
        loads[rank] += lengths[i]
        shares[rank].append(i)
    return [sorted(share) for share in shares]
