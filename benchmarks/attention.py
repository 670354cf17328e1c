"""Paged attention without an engine: a cache, and a batch made by hand.

All that the benchmarks and checks need to know of the engine's inner types is in this file.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unitok_engine import AttentionMetadata, KVShape, make_backend
from unitok_engine.attention.backends import BackendName, pick_backend

BLOCK = 64  # tokens of a K/V block


class PagedAttention:
    """Sequences in a paged cache, each about to attend with its last few tokens."""

    def __init__(
        self,
        shape: KVShape,
        tables: Sequence[Sequence[int]],
        contexts: Sequence[int],
        queries: int,
        dtype: torch.dtype,
        device: torch.device,
        backend: BackendName | None = None,
    ) -> None:
        """Make a cache of zeros that has just the blocks of the tables.

        Args:
            shape: Layers, heads and head size of the K/V.
            tables: The blocks of each sequence, in order.
            contexts: The length of each sequence, its last tokens included.
            queries: How many last tokens of each attend.
            dtype: The type of the K/V.
            device: Where they lie.
            backend: The attention backend; the device's own if it is left out.
        """
        self.shape, self.device, self.dtype = shape, device, dtype
        self.blocks = 1 + max(block for table in tables for block in table)
        self.backend = backend or pick_backend(shape, BLOCK, dtype, device)
        self.attention = make_backend(shape, self.blocks, BLOCK, dtype, device, self.backend)
        self.view = self.attention.view(last_tokens(tables, contexts, queries).to(device))

    def fill(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Write keys and values [blocks * BLOCK, heads, head size] to all blocks of a layer."""
        slots = torch.arange(self.blocks * BLOCK, device=self.device)
        index = self.attention.layout.slot_index(slots)
        self.attention.layout.write(layer, index, k.to(self.dtype), v.to(self.dtype))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries, keys and values [rows * queries, heads, head size] -> outputs, like queries."""
        return self.view.attend(layer, q, k, v)


def tables_in_order(rows: int, context: int) -> list[tuple[int, ...]]:
    """The block tables of sequences of one length that lie one after another."""
    width = -(-context // BLOCK)
    return [tuple(range(row * width, (row + 1) * width)) for row in range(rows)]


def last_tokens(
    tables: Sequence[Sequence[int]], contexts: Sequence[int], queries: int
) -> AttentionMetadata:
    """The rows of each sequence's last `queries` tokens."""
    slots = [
        table[i // BLOCK] * BLOCK + i % BLOCK
        for table, length in zip(tables, contexts, strict=True)
        for i in range(length - queries, length)
    ]
    lengths = (queries,) * len(tables)
    return AttentionMetadata(
        torch.tensor(slots), lengths, tuple(contexts), tuple(map(tuple, tables))
    )
