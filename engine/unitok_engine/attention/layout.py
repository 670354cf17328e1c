"""How keys and values lie in memory: blocks of ids, one block more than the pool has.

The last block stays zero: it pads block tables.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unitok_engine.config import KVShape
from unitok_engine.transfer import send


class Layout(Protocol):
    """K/V of all layers. `keys[layer]` and `values[layer]` have the blocks as first dimension."""

    shape: KVShape
    block_size: int
    zero_block: int
    keys: Tensor
    values: Tensor

    def places(self, slots: Tensor) -> Sequence[Tensor]:
        """Slots [n], block * block_size + offset, as `write` wants them; once per step."""
        ...

    def write(self, layer: int, places: Sequence[Tensor], k: Tensor, v: Tensor) -> None:
        """Put k and v [n, kv_heads, head_dim] in their places."""
        ...

    def lines(self, layer: int, table: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of the K and V in blocks [rows, width] as [rows, kv_heads, ids, head_dim]."""
        ...


def zeros(size: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that, on a CPU, take memory and time only where they are touched."""
    if torch.device(device).type != "cpu" or 0 in size:
        return torch.zeros(*size, dtype=dtype, device=device)
    # numpy leaves it to the system to clear pages; torch writes them all, 0.2 s for 512 MB.
    pages = np.zeros(math.prod(size) * dtype.itemsize, np.uint8)
    return torch.from_numpy(pages).view(dtype).view(*size)


def clear(layout: Layout, blocks: Sequence[int]) -> None:
    """Zero blocks that are about to be used.

    What lies behind a line's end is masked, but a masked NaN that an earlier line left would
    still spoil the sum: zero times NaN is NaN.
    """
    for x in (layout.keys, layout.values):
        if x.is_cpu:  # where index_fill_ takes several times as long
            for block in blocks:
                x.select(1, block).zero_()
        elif blocks:
            x.index_fill_(1, send(torch.tensor(blocks), x.device), 0)


def copy(layout: Layout, pairs: Sequence[tuple[int, int]]) -> None:
    """Copy blocks, each pair from source to target; all are read before any is written."""
    if pairs:
        sources, targets = torch.tensor(pairs, device=layout.keys.device).T
        for x in (layout.keys, layout.values):
            x.index_copy_(1, targets, x.index_select(1, sources))


def block_table(layout: Layout, tables: Sequence[Sequence[int]], length: int) -> Tensor:
    """Block tables as int64 [rows, blocks that hold `length` ids], padded by the zero block."""
    width = -(-length // layout.block_size)
    padded = [[*row[:width], *[layout.zero_block] * (width - len(row))] for row in tables]
    return torch.tensor(padded, device=layout.keys.device)


class TokenMajor:
    """[layers, blocks, block_size, kv_heads, head_dim]: an id's heads side by side."""

    def __init__(
        self, shape: KVShape, num_blocks: int, block_size: int, dtype: torch.dtype, device
    ) -> None:
        self.shape = shape
        self.block_size = block_size
        self.zero_block = num_blocks
        size = (shape.layers, num_blocks + 1, block_size, shape.kv_heads, shape.head_dim)
        self.keys, self.values = (zeros(size, dtype, device) for _ in "kv")
        # One pair of views per layer, made once: indexing a tensor costs microseconds a time.
        self.slots = list(zip(self.keys.flatten(1, 2), self.values.flatten(1, 2), strict=True))

    def places(self, slots: Tensor) -> Sequence[Tensor]:
        return (slots,)

    def write(self, layer: int, places: Sequence[Tensor], k: Tensor, v: Tensor) -> None:
        keys, values = self.slots[layer]
        keys.index_copy_(0, places[0], k)
        values.index_copy_(0, places[0], v)

    def lines(self, layer: int, table: Tensor) -> tuple[Tensor, Tensor]:
        blocks = table.flatten()
        keys, values = (
            x[layer].index_select(0, blocks).unflatten(0, table.shape).flatten(1, 2)
            for x in (self.keys, self.values)
        )
        return keys.transpose(1, 2), values.transpose(1, 2)


class BagMajor:
    """For CPUs: keys [layers, blocks, kv_heads, head_dim, block_size], values [layers, blocks,
    kv_heads, block_size, head_dim].

    Within a block and head, scores are a sum of rows of K weighted by the query, and outputs a sum
    of rows of V weighted by probabilities: see `bag_attention`.
    """

    def __init__(
        self, shape: KVShape, num_blocks: int, block_size: int, dtype: torch.dtype, device
    ) -> None:
        self.shape = shape
        self.block_size = block_size
        self.zero_block = num_blocks
        outer, size = (shape.layers, num_blocks + 1, shape.kv_heads), shape.head_dim
        self.keys = zeros((*outer, size, block_size), dtype, device)
        self.values = zeros((*outer, block_size, size), dtype, device)
        self._heads = np.arange(shape.kv_heads)
        # [blocks * kv_heads, block_size, head_dim], both of them.
        self._rows = [
            (keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1))
            for keys, values in zip(self.keys, self.values, strict=True)
        ]
        self.bag_index: object = None  # the last step's, for the next one that reads alike
        # As tables of rows: [blocks * kv_heads * head_dim, block_size] and the other way round.
        self.tables = list(zip(self.keys.flatten(1, 3), self.values.flatten(1, 3), strict=True))

    def places(self, slots: Tensor) -> Sequence[Tensor]:
        # numpy: on few numbers, torch's operators take several times as long.
        blocks, offsets = np.divmod(slots.numpy()[:, None], self.block_size)
        rows = blocks * self.shape.kv_heads + self._heads
        return torch.from_numpy(rows), torch.from_numpy(offsets)

    def write(self, layer: int, places: Sequence[Tensor], k: Tensor, v: Tensor) -> None:
        for rows, x in zip(self._rows[layer], (k, v), strict=True):
            rows.index_put_(tuple(places), x)

    def lines(self, layer: int, table: Tensor) -> tuple[Tensor, Tensor]:
        blocks = table.flatten()
        keys = self.keys[layer].index_select(0, blocks).unflatten(0, table.shape)
        values = self.values[layer].index_select(0, blocks).unflatten(0, table.shape)
        keys = keys.permute(0, 2, 1, 4, 3).flatten(2, 3)
        return keys, values.transpose(1, 2).flatten(2, 3)
