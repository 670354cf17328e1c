"""CPU paged attention: decode rows read keys and values in place, once, at the speed of memory.

Attention of one query is two weighted sums of table rows: scores = sum over d of q[d] K[d, :], and
output = sum over tokens of p[token] V[token, :]. That is what `embedding_bag` computes, from rows
given by index, so K/V need be neither gathered nor contiguous. Its kernel (FBGEMM,
https://arxiv.org/abs/2101.05615) runs at the speed of memory, in bfloat16 too, where batched
products of one row each take ten times as long.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unitok_engine.attention.base import AttentionMetadata, CacheView, RowGroup
from unitok_engine.attention.gather import GatherAttention
from unitok_engine.attention.kv_layout import CPU_BLOCK_BYTES, CpuKVLayout, KVShape
from unitok_engine.attention.paged import GroupAttention, GroupedView, PagedBackend

# Longer rows share what they read: gathering their context once is quicker, from about 11 queries
# on at Janus-Pro-1B's shape. Rows of drafts are up to 16 long (`draft_width.py`), and each of their
# tokens must get bit by bit what a decode row gets, so prompts of 11 to 16 go the slower way, too.
MAX_QUERIES = 16
# Blocks that are read over those of the contexts, so that all rows of a step read equally many.
MOST_IN_VAIN = 1.25


class CpuBackend(PagedBackend[CpuKVLayout]):
    """The backend "torch": short rows read K/V in place, longer ones gather it; on a CPU."""

    def __init__(
        self,
        shape: KVShape,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(CpuKVLayout(shape, num_blocks, block_size, dtype, device))
        self._index: PagedIndex | None = None  # the last step's, for the next that reads alike

    @staticmethod
    def preferred_block_size(dtype: torch.dtype, device: torch.device) -> int:
        """See `AttentionBackend.preferred_block_size`."""
        return CPU_BLOCK_BYTES // dtype.itemsize

    def reset(self) -> None:
        """See `AttentionBackend.reset`: the index of what rows read is made anew."""
        self._index = None

    def view(self, metadata: AttentionMetadata) -> CacheView:
        """See `AttentionBackend.view`."""
        groups = [self._attention(group) for group in metadata.groups()]
        return GroupedView(self.layout, metadata, groups)

    def _attention(self, group: RowGroup) -> GroupAttention:
        queries = group.query_lengths[0]
        if queries > MAX_QUERIES:
            return GatherAttention(self.layout, group)
        # Each query reads for itself: the tokens up to its own.
        lengths = [n - queries + i + 1 for n in group.context_lengths for i in range(queries)]
        blocks: list[int] = []
        widths = self._widths(group.context_lengths)
        for width, table in zip(widths, group.block_tables, strict=True):
            row = table[:width]
            blocks += [*row, *[self.layout.zero_block] * (width - len(row))] * queries
        widths = [width for width in widths for _ in range(queries)]
        # A branch gets a new block once in a while: most steps read what the step before read.
        index = self._index
        if index is None or not index.is_of(blocks, widths):
            index = self._index = PagedIndex(self.layout, blocks, widths)
        return CpuPagedAttention(self.layout, group.tokens, index, index.mask(lengths))

    def _widths(self, contexts: Sequence[int]) -> list[int]:
        """How many blocks the queries of each row read, given the context of its last one.

        What a query does not see is masked, and adds nothing to any sum. To read a few blocks in
        vain is quicker than to tell apart who reads how many.
        """
        widths = [-(-context // self.layout.block_size) for context in contexts]
        widest = max(widths)
        even = widest * len(widths) <= MOST_IN_VAIN * sum(widths)
        return [widest] * len(widths) if even else widths


class CpuPagedAttention:
    """The `GroupAttention` of rows of one short query length.

    Args:
        layout: The backend's.
        tokens: Where the group's tokens lie among the step's.
        index: The table rows that its queries read.
        mask: See `PagedIndex.mask`.
    """

    def __init__(
        self, layout: CpuKVLayout, tokens: slice, index: "PagedIndex", mask: Tensor
    ) -> None:
        self.tokens = tokens
        self._layout = layout
        self._index = index
        self._mask = mask

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `GroupAttention.attend`."""
        index = self._index
        index.prepare(q.shape[1])
        key_table, value_table = self._layout.tables[layer]
        scores = _weighted_sums(key_table, index.key_rows, index.key_bags, index.per_block(q))
        # fp32 from here on: [queries, heads, width * block_size], masked behind each query's end.
        scores = torch.add(self._mask, index.padded(scores), alpha=q.shape[2] ** -0.5)
        weights = index.existing(scores.softmax(-1).to(q.dtype))
        out = _weighted_sums(value_table, index.value_rows, index.value_bags, weights)
        return out.view(q.shape)


class PagedIndex:
    """Which table rows each bag sums, for queries that read some blocks each.

    It is the same in every layer. Everything is ordered by query, head and block. Scores are kept
    as [queries, heads, width * block_size], where width is the blocks of the query that reads most,
    but only blocks that are in the list are read.

    Args:
        layout: The backend's.
        blocks: The blocks that the queries read, query by query.
        widths: How many of them each query reads.

    Attributes:
        key_rows: int32, the rows of the key table that are summed, bag by bag.
        key_bags: [blocks * heads] int32, where each bag of them starts.
        value_rows: int32, the rows of the value table that are summed, bag by bag.
        value_bags: [queries * heads] int32, where each bag of them starts.
    """

    key_rows: Tensor
    key_bags: Tensor
    value_rows: Tensor
    value_bags: Tensor

    def __init__(self, layout: CpuKVLayout, blocks: list[int], widths: list[int]) -> None:
        self._layout = layout
        self._of = (blocks, widths)
        self._queries, self._width = len(widths), max(widths)
        self._even = min(widths) == self._width
        self._heads = 0  # of queries; known at the first layer
        self._lengths: list[int] = []
        self._mask = torch.empty(0)

    def mask(self, lengths: list[int]) -> Tensor:
        """[queries, 1, width * block_size] fp32: -inf behind each query's end, else 0.

        Args:
            lengths: How many tokens each query sees.
        """
        if lengths == [length + 1 for length in self._lengths]:  # as from one decode to the next
            ends = torch.tensor(self._lengths)[:, None]
            self._mask.flatten(1).scatter_(1, ends, 0.0)
        else:
            self._mask = _end_mask(lengths, self._width * self._layout.block_size)
        self._lengths = lengths
        return self._mask

    def is_of(self, blocks: list[int], widths: list[int]) -> bool:
        """Whether these are the blocks and widths it was made for."""
        return self._of == (blocks, widths)

    def prepare(self, heads: int) -> None:
        """Fill in the index for `heads` query heads, which share K/V heads in equal groups."""
        if heads == self._heads:
            return
        shape, size = self._layout.shape, self._layout.block_size
        self._heads = heads
        pages = self._pages(np.arange(heads, dtype=np.int32) // (heads // shape.kv_heads))
        # Keys: a bag per query, head and block, over head_dim.
        self.key_rows = _rows(pages, shape.head_dim)
        self.key_bags = _starts(len(pages), shape.head_dim)
        # Values: a bag per query and head, over the tokens of its blocks.
        self.value_rows = _rows(pages, size)
        if self._even:
            self.value_bags = _starts(self._queries * heads, self._width * size)
        else:
            widths = np.repeat(self._of[1], heads)
            self.value_bags = torch.from_numpy(((widths.cumsum() - widths) * size).astype(np.int32))

    def _pages(self, kv_heads: np.ndarray) -> np.ndarray:
        """int32, the number of each block and K/V head that is read, by query, head and block.

        Args:
            kv_heads: int32 [heads], the K/V head of each query head.
        """
        blocks, widths = self._of
        numbers = np.array(blocks, np.int32) * self._layout.shape.kv_heads
        if self._even:
            return (numbers.reshape(-1, 1, self._width) + kv_heads[:, None]).ravel()
        ends = np.cumsum(widths)
        places = np.arange(self._width)
        exists = np.repeat((places < np.array(widths)[:, None])[:, None], len(kv_heads), axis=1)
        self._existing_rows = torch.from_numpy(exists.ravel().nonzero()[0])
        self._owners = self._existing_rows // self._width
        pages = [
            numbers[end - n : end] + kv_heads[:, None] for end, n in zip(ends, widths, strict=True)
        ]
        return np.concatenate([page.ravel() for page in pages])

    def per_block(self, q: Tensor) -> Tensor:
        """Each query [queries, heads, head_dim] once for each of its blocks, head by head."""
        if self._even:
            return q[:, :, None].expand(-1, -1, self._width, -1)
        return q.reshape(-1, q.shape[-1]).index_select(0, self._owners)

    def padded(self, scores: Tensor) -> Tensor:
        """[blocks * heads, block_size] -> [queries, heads, width * block_size]."""
        if not self._even:
            padded = scores.new_zeros(self._queries * self._heads * self._width, scores.shape[1])
            scores = padded.index_copy_(0, self._existing_rows, scores)
        return scores.view(self._queries, self._heads, -1)

    def existing(self, weights: Tensor) -> Tensor:
        """[queries, heads, width * block_size] -> that of blocks that are read."""
        if self._even:
            return weights
        return weights.view(-1, self._layout.block_size).index_select(0, self._existing_rows)


def _weighted_sums(table: Tensor, rows: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Rows of a table, weighted and summed bag by bag: [bags, table's width]."""
    # Straight to the kernel: the function in torch.nn.functional checks its arguments for long.
    return torch.embedding_bag(table, rows, bags, False, 0, False, weights.reshape(-1))[0]


def _rows(pages: np.ndarray, size: int) -> Tensor:
    """int32, the table rows of pages that have so many each."""
    return torch.from_numpy((pages[:, None] * size + np.arange(size, dtype=np.int32)).ravel())


def _starts(bags: int, size: int) -> Tensor:
    return torch.from_numpy(np.arange(0, bags * size, size, dtype=np.int32))


def _end_mask(lengths: Sequence[int], width: int) -> Tensor:
    """See `PagedIndex.mask`; the width is in tokens."""
    hidden = np.arange(width) >= np.asarray(lengths)[:, None]
    mask = np.where(hidden, np.float32(-np.inf), np.float32(0))
    return torch.from_numpy(mask)[:, None]
