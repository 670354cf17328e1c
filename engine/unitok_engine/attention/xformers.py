"""Attention by xformers on CUDA: paged triton split-K for decode, block-diagonal for prefill."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import pad

from unitok_engine.attention.layout import TokenMajor, block_table
from unitok_engine.batch import Batch
from unitok_engine.transfer import fill

MAX_QUERIES = 16  # what the paged split-K kernel takes under a causal bias
PAGE = 64  # its pages are multiples of this
HEAD_DIMS = (16, 32, 64, 128, 256, 512)


def padded_rows(rows: int) -> int:
    """1, 2, 4, 8, 16, then steps of 16 up to 64, then of 32: as few shapes as waste little."""
    if rows <= 16:
        return 1 << (rows - 1).bit_length()
    step = 16 if rows <= 64 else 32
    return -(-rows // step) * step


def padded_context(ids: int) -> int:
    """1,024 ids, or a power of two above: the kernel's split, not its work, depends on it."""
    return max(1024, 1 << (ids - 1).bit_length())


class PagedAttention:
    """The paged kernel over `rows` lines of `queries` queries each, in blocks of one layout.

    At launch the host reads nothing but shapes: how often the context is split follows from the
    tables' width. Lengths and block ids are read on the device, up to each line's own length. So
    Triton compiles one kernel for each shape, and a recorded launch serves all lengths.

    contexts: [rows] int32, ids a line sees. tables: [rows, blocks] int32.
    """

    def __init__(
        self, layout: TokenMajor, queries: int, contexts: Sequence[int], tables: Tensor
    ) -> None:
        from xformers.ops.fmha import memory_efficient_attention_forward, triton_splitk
        from xformers.ops.fmha.attn_bias import PagedBlockDiagonalCausalWithOffsetPaddedKeysMask

        self._layout = layout
        self._attention = memory_efficient_attention_forward
        self._op = triton_splitk.FwOp
        self._bias = PagedBlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            [queries] * len(contexts),
            contexts,
            tables,
            layout.block_size,
            device=layout.keys.device,
        )
        self.contexts: Tensor = self._bias.k_seqinfo.seqlen
        self.tables = tables

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q [rows * queries, heads, head_dim], line by line -> the same shape."""
        keys, values = self._layout.slots[layer]
        q_heads = _grouped(q, keys.shape[1])
        k, v = (_expanded(x, q_heads) for x in (keys, values))
        out = self._attention(q_heads[None], k[None], v[None], attn_bias=self._bias, op=self._op)
        return out.reshape(q.shape)


class DecodeGroup:
    """Rows of one short query length: the paged kernel reads K/V in place.

    They are padded to a shape the kernel is likely compiled for, by rows that see zeros.
    """

    def __init__(
        self, layout: TokenMajor, batch: Batch, rows: slice, first: int, count: int
    ) -> None:
        self.rows = rows
        queries = batch.query_lengths[first]
        contexts = batch.context_lengths[first : first + count]
        padding = padded_rows(count) - count
        tables = [*batch.block_tables[first : first + count], *[()] * padding]
        self._padding = padding * queries
        self._paged = PagedAttention(
            layout,
            queries,
            [*contexts, *[queries] * padding],
            block_table(layout, tables, padded_context(max(contexts))).int(),
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self._padding:
            return self._paged(layer, q)
        return self._paged(layer, pad(q, (0, 0, 0, 0, 0, self._padding)))[: len(q)]


class StaticView:
    """The cache as decode rows of a fixed shape see it, in tensors that stay in place.

    slots: [rows] int64, where each row's K/V goes. Fill them, `contexts` and the tables before
    each step.
    """

    def __init__(self, layout: TokenMajor, slots: Tensor, context: int) -> None:
        rows = len(slots)
        self._layout = layout
        self._slots = slots
        tables = block_table(layout, [()] * rows, context).int()
        self._paged = PagedAttention(layout, 1, [1] * rows, tables)
        self.contexts = self._paged.contexts
        self._tables = tables.to("cpu", copy=True)
        self._filled: list[Sequence[int]] = [()] * rows

    def fill_tables(self, tables: Sequence[Sequence[int]]) -> None:
        """Lines get a new block once in a while: only what changed is written, and then sent.

        What an earlier line left behind a shorter one's end is not read.
        """
        width = self._tables.shape[1]
        tables = [table[:width] for table in tables]
        changed = [i for i, table in enumerate(tables) if table != self._filled[i]]
        for i in changed:
            self._tables[i, : len(tables[i])] = torch.tensor(tables[i], dtype=torch.int32)
        if changed:
            fill(self._paged.tables, self._tables)
            self._filled = tables  # after it, so that a step that breaks off here fills again

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self._layout.write(layer, (self._slots,), k, v)
        return self._paged(layer, q)


class PrefillGroup:
    """Long runs of any length: gather their contexts flat, then block-diagonal attention."""

    def __init__(self, layout: TokenMajor, batch: Batch, rows: slice, first: int) -> None:
        from xformers.ops.fmha import memory_efficient_attention_forward
        from xformers.ops.fmha.attn_bias import BlockDiagonalCausalFromBottomRightMask

        self.rows = rows
        self._layout = layout
        self._attention = memory_efficient_attention_forward
        contexts = batch.context_lengths[first:]
        self._slots = torch.cat(
            [
                _slots(layout, table, length)
                for table, length in zip(batch.block_tables[first:], contexts, strict=True)
            ]
        )
        self._bias = BlockDiagonalCausalFromBottomRightMask.from_seqlens(
            list(batch.query_lengths[first:]), list(contexts), device=layout.keys.device
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = (x.index_select(0, self._slots) for x in self._layout.slots[layer])
        repeats = q.shape[1] // keys.shape[1]
        if repeats > 1:
            keys, values = (x.repeat_interleave(repeats, dim=1) for x in (keys, values))
        return self._attention(q[None], keys[None], values[None], attn_bias=self._bias)[0]


def xformers_groups(layout: TokenMajor, batch: Batch) -> list[DecodeGroup | PrefillGroup]:
    """Short runs by their length, then all longer ones together."""
    groups: list[DecodeGroup | PrefillGroup] = []
    first = start = 0
    for queries, run in groupby(batch.query_lengths):
        if queries > MAX_QUERIES:
            groups.append(PrefillGroup(layout, batch, slice(start, None), first))
            break
        count = len(list(run))
        stop = start + queries * count
        groups.append(DecodeGroup(layout, batch, slice(start, stop), first, count))
        first, start = first + count, stop
    return groups


def _slots(layout: TokenMajor, table, length: int) -> Tensor:
    """[length] int64, the slots of a line's first ids."""
    starts = block_table(layout, [table], length)[0] * layout.block_size
    offsets = torch.arange(layout.block_size, device=starts.device)
    return (starts[:, None] + offsets).flatten()[:length]


def _grouped(q: Tensor, kv_heads: int) -> Tensor:
    """[n, heads, d], or [n, kv_heads, repeats, d] if several query heads share a K/V head."""
    return q if q.shape[1] == kv_heads else q.unflatten(1, (kv_heads, -1))


def _expanded(x: Tensor, q: Tensor) -> Tensor:
    """K/V as grouped queries want them: repeated by a stride of 0, not copied."""
    return x if q.ndim == 3 else x[:, :, None].expand(-1, -1, q.shape[2], -1)
