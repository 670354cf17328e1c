"""Decode attention on a CPU that reads paged K/V in place, once, at the speed of memory.

Attention of one query is two weighted sums of table rows: scores = sum over d of q[d] K[d, :], and
output = sum over ids of p[id] V[id, :]. That is what `embedding_bag` computes, from rows given by
index, so K/V need be neither gathered nor contiguous; its kernel (FBGEMM,
https://arxiv.org/abs/2101.05615) runs at the speed of memory, in bfloat16 too, where batched
products of one row each take ten times as long.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unitok_engine.attention.layout import BagMajor
from unitok_engine.batch import Batch

MAX_QUERIES = 4  # longer runs share what they read: gathering their context once is quicker


class BagGroup:
    """Rows of one short query length, `first` to `first + count` of the batch.

    Each query is a line of its own, as long as what it sees.
    """

    def __init__(self, layout: BagMajor, batch: Batch, rows: slice, first: int, count: int) -> None:
        self.rows = rows
        self._layout = layout
        queries = batch.query_lengths[first]
        contexts = batch.context_lengths[first : first + count]
        tables = batch.block_tables[first : first + count]
        lengths = [length - queries + i + 1 for length in contexts for i in range(queries)]
        size = layout.block_size
        widths = [-(-length // size) for length in lengths]
        blocks: list[int] = []
        for i, width in enumerate(widths):
            blocks += tables[i // queries][:width]
        # Lines get a new block once in a while: most steps read what the step before read.
        index = layout.bag_index
        if not isinstance(index, BagIndex) or not index.is_of(blocks, widths):
            index = layout.bag_index = BagIndex(layout, blocks, widths)
        self._index = index
        self._mask = index.mask(lengths)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [lines, heads, head_dim] -> [lines, heads, head_dim]; k and v are in the cache."""
        index, size = self._index, self._layout.block_size
        index.prepare(q.shape[1])
        key_table, value_table = self._layout.tables[layer]
        scores = _weighted_sums(key_table, index.key_rows, index.key_bags, index.per_block(q))
        scores = index.padded(scores.view(-1, q.shape[1], size)).transpose(1, 2)
        # fp32 from here on: [lines, heads, width, block_size], masked behind each line's end.
        scores = torch.add(self._mask, scores, alpha=q.shape[2] ** -0.5)
        weights = scores.flatten(2).softmax(-1).to(q.dtype)
        weights = index.existing(weights.view(-1, size))
        out = _weighted_sums(value_table, index.value_rows, index.value_bags, weights)
        return out.view(q.shape)


class BagIndex:
    """Which table rows each bag sums, for lines of some blocks each; the same in every layer.

    Scores are kept as [lines, blocks of the longest line, heads, block_size], but only blocks that
    exist are read.
    """

    def __init__(self, layout: BagMajor, blocks: list[int], widths: list[int]) -> None:
        self._layout = layout
        self._of = (blocks, widths)
        self._lines, self._width = len(widths), max(widths)
        self._owners = None if min(widths) == self._width else _owners(widths)
        self._heads = 0  # of queries; known at the first layer
        self._lengths: list[int] = []
        self._mask = torch.empty(0)

    def mask(self, lengths: list[int]) -> Tensor:
        """[lines, 1, width, block_size] fp32: -inf behind each line's end, else 0."""
        if lengths == [length + 1 for length in self._lengths]:  # as from one decode to the next
            ends = torch.tensor(self._lengths)[:, None]
            self._mask.flatten(1).scatter_(1, ends, 0.0)
        else:
            self._mask = _end_mask(lengths, self._width, self._layout.block_size)
        self._lengths = lengths
        return self._mask

    def is_of(self, blocks: list[int], widths: list[int]) -> bool:
        return self._of == (blocks, widths)

    def prepare(self, heads: int) -> None:
        """Fill in the index for `heads` query heads, which share K/V heads in equal groups."""
        if heads == self._heads:
            return
        shape, size = self._layout.shape, self._layout.block_size
        self._heads = heads
        head = torch.arange(heads, dtype=torch.int32) // (heads // shape.kv_heads)
        # Keys: a bag per block and head, over head_dim.
        pages = torch.tensor(self._of[0], dtype=torch.int32)[:, None] * shape.kv_heads + head
        dims = torch.arange(shape.head_dim, dtype=torch.int32)
        self.key_rows = (pages[..., None] * shape.head_dim + dims).flatten()
        self.key_bags = _starts(pages.numel(), shape.head_dim)
        # Values: a bag per line and head, over the ids of its blocks.
        if self._owners is None:
            pages = pages.view(self._lines, self._width, heads).transpose(1, 2)
            self.value_bags = _starts(self._lines * heads, self._width * size)
        else:
            self.value_bags = self._order_by_head(heads, self._owners)
            pages = pages.flatten()[self._by_head]
        ids = torch.arange(size, dtype=torch.int32)
        self.value_rows = (pages[..., None] * size + ids).flatten()

    def _order_by_head(self, heads: int, owners: tuple[Tensor, Tensor]) -> Tensor:
        """For lines of unequal width: from (line, block, head) to (line, head, block).

        Sets the order of (block, head) pairs and of padded (line, head, block) rows that exist;
        returns where each bag of values starts.
        """
        line, place = owners
        head = torch.arange(heads)
        rows = ((line[:, None] * heads + head) * self._width + place[:, None]).flatten()
        self._existing_rows, self._by_head = rows.sort()
        widths = line.bincount(minlength=self._lines).repeat_interleave(heads)
        return ((widths.cumsum(0) - widths) * self._layout.block_size).int()

    def per_block(self, q: Tensor) -> Tensor:
        """Each line's query, once for each of its blocks."""
        if self._owners is None:
            return q[:, None].expand(-1, self._width, -1, -1)
        return q.index_select(0, self._owners[0])

    def padded(self, scores: Tensor) -> Tensor:
        """[blocks, heads, block_size] -> [lines, width, heads, block_size]."""
        if self._owners is not None:
            line, place = self._owners
            padded = scores.new_zeros((self._lines * self._width, *scores.shape[1:]))
            scores = padded.index_copy_(0, line * self._width + place, scores)
        return scores.view(self._lines, self._width, *scores.shape[1:])

    def existing(self, weights: Tensor) -> Tensor:
        """Rows [lines * heads * width, block_size] -> those of blocks that exist."""
        if self._owners is None:
            return weights
        return weights.index_select(0, self._existing_rows)


def _weighted_sums(table: Tensor, rows: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Rows of a table, weighted and summed bag by bag: [bags, table's width]."""
    # Straight to the kernel: the function in torch.nn.functional checks its arguments for long.
    return torch.embedding_bag(table, rows, bags, False, 0, False, weights.reshape(-1))[0]


def _owners(widths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of every block: its line, and its place in it."""
    counts = torch.tensor(widths)
    line = torch.arange(len(widths)).repeat_interleave(counts)
    return line, torch.arange(len(line)) - (counts.cumsum(0) - counts)[line]


def _starts(bags: int, size: int) -> Tensor:
    return torch.arange(0, bags * size, size, dtype=torch.int32)


def _end_mask(lengths: Sequence[int], width: int, size: int) -> Tensor:
    """See `BagIndex.mask`."""
    hidden = np.arange(width * size) >= np.asarray(lengths)[:, None]
    mask = np.where(hidden, np.float32(-np.inf), np.float32(0))
    return torch.from_numpy(mask).view(len(lengths), 1, width, size)
