"""How keys and values lie in memory: in blocks of tokens, one block more than the backend uses.

The last block stays zero: block tables are padded with it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unitok_engine.transfer import send

# Of the keys of one dimension: 32 tokens in fp32, 64 in bf16. It measured best on CPUs.
CPU_BLOCK_BYTES = 128

SlotIndex = tuple[Tensor, ...]
"""A step's slots as the `write` of one layout takes them: see `KVLayout.slot_index`."""


@dataclass(frozen=True)
class KVShape:
    """The shape of a model's keys and values."""

    layers: int
    kv_heads: int
    head_dim: int

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """Bytes of the keys and values of one token in all layers together."""
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype.itemsize


class KVLayout(ABC):
    """The storage for the keys and values of all layers.

    Attributes:
        shape: The shape of the model's keys and values.
        block_size: Tokens per block.
        zero_block: The number of the last block, which is never written.
        keys: [layers, blocks, ...]; each layout says what follows.
        values: [layers, blocks, ...], like the keys.
    """

    def __init__(self, shape: KVShape, block_size: int, keys: Tensor, values: Tensor) -> None:
        self.shape = shape
        self.block_size = block_size
        self.zero_block = keys.shape[1] - 1
        self.keys = keys
        self.values = values

    @abstractmethod
    def slot_index(self, slot_mapping: Tensor) -> SlotIndex:
        """Turn slots into what `write` takes; once per step, since all layers use the same slots.

        Args:
            slot_mapping: [n] int64, block * block_size + offset of each token.
        """

    @abstractmethod
    def write(self, layer: int, index: SlotIndex, k: Tensor, v: Tensor) -> None:
        """Store k and v [n, kv_heads, head_dim] in their slots."""

    @abstractmethod
    def gather(self, layer: int, table: Tensor) -> tuple[Tensor, Tensor]:
        """Copy out the keys and values of whole blocks.

        Args:
            layer: The layer to read.
            table: [rows, width] int64, the blocks of each row.

        Returns:
            Keys and values, each [rows, kv_heads, width * block_size, head_dim].
        """

    def clear(self, blocks: Sequence[int]) -> None:
        """Zero blocks that are about to be used.

        What lies behind the end of a row's context is masked, but a NaN that an earlier sequence
        left there would still spoil the sum: zero times NaN is NaN.
        """
        for x in (self.keys, self.values):
            if x.is_cpu:  # where index_fill_ takes several times as long
                for block in blocks:
                    x.select(1, block).zero_()
            elif blocks:
                x.index_fill_(1, send(torch.tensor(blocks), x.device), 0)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks, each pair from source to target; all are read before any is written."""
        if pairs:
            sources, targets = torch.tensor(pairs, device=self.keys.device).T
            for x in (self.keys, self.values):
                x.index_copy_(1, targets, x.index_select(1, sources))

    def block_table(self, tables: Sequence[Sequence[int]], length: int) -> Tensor:
        """Block tables on the device, [rows, blocks that hold `length` tokens] int64.

        Longer tables are cut; shorter ones are padded with the zero block.
        """
        width = -(-length // self.block_size)
        padded = [[*row[:width], *[self.zero_block] * (width - len(row))] for row in tables]
        return torch.tensor(padded, device=self.keys.device)


class StandardKVLayout(KVLayout):
    """[layers, blocks, block_size, kv_heads, head_dim]: the heads of a token side by side.

    Attributes:
        by_slot: For each layer its keys and its values, each [slots, kv_heads, head_dim].
    """

    def __init__(
        self,
        shape: KVShape,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        size = (shape.layers, num_blocks + 1, block_size, shape.kv_heads, shape.head_dim)
        super().__init__(shape, block_size, zeros(size, dtype, device), zeros(size, dtype, device))
        # One pair of views per layer, made once: indexing a tensor costs microseconds a time.
        self.by_slot = list(zip(self.keys.flatten(1, 2), self.values.flatten(1, 2), strict=True))

    def slot_index(self, slot_mapping: Tensor) -> SlotIndex:
        """See `KVLayout.slot_index`: the slots as they are."""
        return (slot_mapping,)

    def write(self, layer: int, index: SlotIndex, k: Tensor, v: Tensor) -> None:
        """See `KVLayout.write`."""
        keys, values = self.by_slot[layer]
        keys.index_copy_(0, index[0], k)
        values.index_copy_(0, index[0], v)

    def gather(self, layer: int, table: Tensor) -> tuple[Tensor, Tensor]:
        """See `KVLayout.gather`."""
        blocks = table.flatten()
        keys, values = (
            x[layer].index_select(0, blocks).unflatten(0, table.shape).flatten(1, 2)
            for x in (self.keys, self.values)
        )
        return keys.transpose(1, 2), values.transpose(1, 2)


class CpuKVLayout(KVLayout):
    """The layout of the CPU backend, in which attention is a sum over rows of tables.

    Keys are [layers, blocks, kv_heads, head_dim, block_size] and values are [layers, blocks,
    kv_heads, block_size, head_dim]. Within a block and head, scores are a sum of rows of K weighted
    by the query, and outputs a sum of rows of V weighted by probabilities: see `cpu.py`.

    Attributes:
        tables: For each layer its keys as a table of rows, [blocks * kv_heads * head_dim,
            block_size], and its values, [blocks * kv_heads * block_size, head_dim].
    """

    def __init__(
        self,
        shape: KVShape,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        outer, size = (shape.layers, num_blocks + 1, shape.kv_heads), shape.head_dim
        keys = zeros((*outer, size, block_size), dtype, device)
        values = zeros((*outer, block_size, size), dtype, device)
        super().__init__(shape, block_size, keys, values)
        self._heads = np.arange(shape.kv_heads)
        # [blocks * kv_heads, block_size, head_dim], both of them.
        self._rows = [
            (keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1))
            for keys, values in zip(self.keys, self.values, strict=True)
        ]
        self.tables = list(zip(self.keys.flatten(1, 3), self.values.flatten(1, 3), strict=True))

    def slot_index(self, slot_mapping: Tensor) -> SlotIndex:
        """See `KVLayout.slot_index`: rows of blocks and heads, and offsets in a block."""
        # numpy: on few numbers, torch's operators take several times as long.
        blocks, offsets = np.divmod(slot_mapping.numpy()[:, None], self.block_size)
        rows = blocks * self.shape.kv_heads + self._heads
        return torch.from_numpy(rows), torch.from_numpy(offsets)

    def write(self, layer: int, index: SlotIndex, k: Tensor, v: Tensor) -> None:
        """See `KVLayout.write`."""
        for rows, x in zip(self._rows[layer], (k, v), strict=True):
            rows.index_put_(index, x)

    def gather(self, layer: int, table: Tensor) -> tuple[Tensor, Tensor]:
        """See `KVLayout.gather`."""
        blocks = table.flatten()
        keys = self.keys[layer].index_select(0, blocks).unflatten(0, table.shape)
        values = self.values[layer].index_select(0, blocks).unflatten(0, table.shape)
        keys = keys.permute(0, 2, 1, 4, 3).flatten(2, 3)
        return keys, values.transpose(1, 2).flatten(2, 3)


def zeros(size: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that, on a CPU, take memory and time only where they are touched."""
    if device.type != "cpu" or 0 in size:
        return torch.zeros(*size, dtype=dtype, device=device)
    # numpy leaves it to the system to clear pages; torch writes them all, 0.2 s for 512 MB.
    pages = np.zeros(math.prod(size) * dtype.itemsize, np.uint8)
    return torch.from_numpy(pages).view(dtype).view(*size)
