"""Decode attention on a CPU that reads paged K/V in place, once, at the speed of memory.

Attention of one query is two weighted sums of table rows: scores = sum over d of q[d] K[d, :], and
output = sum over ids of p[id] V[id, :]. That is what `embedding_bag` computes, from rows given by
index, so K/V need be neither gathered nor contiguous; its kernel (FBGEMM,
https://arxiv.org/abs/2101.05615) runs at the speed of memory, in bfloat16 too, where batched
products of one row each take ten times as long.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from unitok_engine.batch import Batch
from unitok_engine.layout import BagMajor

MAX_QUERIES = 4  # longer runs share what they read: gathering their context once is quicker


class BagGroup:
    """Rows of one short query length, `first` to `first + count` of the batch.

    Each query is a line of its own, as long as what it sees. Scores are kept as [lines, blocks of
    the longest line, heads, block_size], but only blocks that exist are read.
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
        self._width = max(widths)
        self._lines = len(lengths)
        self._owners = None if len(blocks) == self._lines * self._width else _owners(widths)
        self._blocks = torch.tensor(blocks, dtype=torch.int32)
        self._mask = _end_mask(lengths, self._width, size)
        self._repeats = 0  # query heads per K/V head; known at the first layer

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [lines, heads, head_dim] -> [lines, heads, head_dim]; k and v are in the cache."""
        heads, size = q.shape[1], self._layout.block_size
        if not self._repeats:
            self._index(heads)
        key_table, value_table = self._layout.tables[layer]
        scores = embedding_bag(
            self._key_rows,
            key_table,
            self._key_bags,
            mode="sum",
            per_sample_weights=self._per_block(q).flatten(),
        )
        scores = self._padded(scores.view(-1, heads, size)).transpose(1, 2)
        # fp32 from here on: [lines, heads, width, block_size], masked behind each line's end.
        scores = torch.add(self._mask, scores, alpha=q.shape[2] ** -0.5)
        weights = scores.flatten(2).softmax(-1).to(q.dtype)
        out = embedding_bag(
            self._value_rows,
            value_table,
            self._value_bags,
            mode="sum",
            per_sample_weights=self._existing(weights.view(-1, size)).flatten(),
        )
        return out.view(q.shape)

    def _index(self, heads: int) -> None:
        """Which rows of the tables each bag sums; the same in every layer."""
        shape, size = self._layout.shape, self._layout.block_size
        self._repeats = heads // shape.kv_heads
        head = torch.arange(heads, dtype=torch.int32) // self._repeats
        # Keys: a bag per block and head, over head_dim.
        pages = self._blocks[:, None] * shape.kv_heads + head
        dims = torch.arange(shape.head_dim, dtype=torch.int32)
        self._key_rows = (pages[..., None] * shape.head_dim + dims).flatten()
        self._key_bags = _starts(pages.numel(), shape.head_dim)
        # Values: a bag per line and head, over the ids of its blocks.
        if self._owners is None:
            pages = pages.view(self._lines, self._width, heads).transpose(1, 2)
            self._value_bags = _starts(self._lines * heads, self._width * size)
        else:
            self._value_bags = self._order_by_head(heads)
            pages = pages.flatten()[self._by_head]
        ids = torch.arange(size, dtype=torch.int32)
        self._value_rows = (pages[..., None] * size + ids).flatten()

    def _order_by_head(self, heads: int) -> Tensor:
        """For lines of unequal width: from (line, block, head) to (line, head, block).

        Sets the order of (block, head) pairs and of padded (line, head, block) rows that exist;
        returns where each bag of values starts.
        """
        assert self._owners is not None
        line, place = self._owners
        head = torch.arange(heads)
        rows = ((line[:, None] * heads + head) * self._width + place[:, None]).flatten()
        self._existing_rows, self._by_head = rows.sort()
        widths = line.bincount(minlength=self._lines).repeat_interleave(heads)
        return ((widths.cumsum(0) - widths) * self._layout.block_size).int()

    def _per_block(self, q: Tensor) -> Tensor:
        """Each line's query, once for each of its blocks."""
        if self._owners is None:
            return q[:, None].expand(-1, self._width, -1, -1)
        return q.index_select(0, self._owners[0])

    def _padded(self, scores: Tensor) -> Tensor:
        """[blocks, heads, block_size] -> [lines, width, heads, block_size]."""
        if self._owners is not None:
            line, place = self._owners
            padded = scores.new_zeros((self._lines * self._width, *scores.shape[1:]))
            scores = padded.index_copy_(0, line * self._width + place, scores)
        return scores.view(self._lines, self._width, *scores.shape[1:])

    def _existing(self, weights: Tensor) -> Tensor:
        """Rows [lines * heads * width, block_size] -> those of blocks that exist."""
        if self._owners is None:
            return weights
        return weights.index_select(0, self._existing_rows)


def _owners(widths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of every block: its line, and its place in it."""
    counts = torch.tensor(widths)
    line = torch.arange(len(widths)).repeat_interleave(counts)
    return line, torch.arange(len(line)) - (counts.cumsum(0) - counts)[line]


def _starts(bags: int, size: int) -> Tensor:
    return torch.arange(0, bags * size, size, dtype=torch.int32)


def _end_mask(lengths: Sequence[int], width: int, size: int) -> Tensor:
    """[lines, 1, width, block_size] fp32: -inf behind each line's end, else 0."""
    hidden = torch.arange(width * size) >= torch.tensor(lengths)[:, None]
    mask = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
    return mask.view(len(lengths), 1, width, size)
