"""Attention by xformers on CUDA: paged triton split-K for decode, block-diagonal for prefill."""

from itertools import groupby

import torch
from torch import Tensor

from unitok_engine.batch import Batch
from unitok_engine.layout import TokenMajor, block_table

MAX_QUERIES = 16  # what the paged split-K kernel takes under a causal bias
PAGE = 64  # its pages are multiples of this
HEAD_DIMS = (16, 32, 64, 128, 256, 512)


class DecodeGroup:
    """Rows of one short query length: the paged kernel reads K/V in place."""

    def __init__(
        self, layout: TokenMajor, batch: Batch, rows: slice, first: int, count: int
    ) -> None:
        from xformers.ops.fmha import memory_efficient_attention_forward, triton_splitk
        from xformers.ops.fmha.attn_bias import PagedBlockDiagonalCausalWithOffsetPaddedKeysMask

        self.rows = rows
        self._layout = layout
        self._attention = memory_efficient_attention_forward
        self._op = triton_splitk.FwOp
        contexts = batch.context_lengths[first : first + count]
        tables = batch.block_tables[first : first + count]
        self._bias = PagedBlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            list(batch.query_lengths[first : first + count]),
            list(contexts),
            block_table(layout, tables, max(contexts)).int(),
            layout.block_size,
            device=layout.keys.device,
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self._layout.slots[layer]
        q_heads = _grouped(q, keys.shape[1])
        k, v = (_expanded(x, q_heads) for x in (keys, values))
        out = self._attention(q_heads[None], k[None], v[None], attn_bias=self._bias, op=self._op)
        return out.reshape(q.shape)


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
