"""Paged keys and values, and causal attention over them: xformers on CUDA, torch elsewhere.

Paging follows PagedAttention (https://arxiv.org/abs/2309.06180). A backend turns a batch into
groups of rows once per step; each layer then attends group by group. A group's rows are one
slice of the batch, because a batch is ordered by query length.
"""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import groupby
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unitok_engine.batch import Batch
from unitok_engine.config import KVShape

Backend = Literal["torch", "xformers"]

_SPLIT_K_MAX_QUERIES = 16  # what the paged split-K kernel takes under a causal bias
_SPLIT_K_PAGE = 64  # its pages are multiples of this
_SPLIT_K_HEAD_DIMS = (16, 32, 64, 128, 256, 512)


class CacheView(Protocol):
    """What a model's attention layers see of the cache during one step."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write k, v [n, kv_heads, head_dim] of this step; attend with q [n, heads, head_dim].

        All are flat over the step's rows and already rotated. Each id sees its own line up to
        itself. Query heads are a multiple of K/V heads. Returns [n, heads, head_dim].
        """
        ...


def zeros(size: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that, on a CPU, take memory and time only where they are touched."""
    if device.type != "cpu":
        return torch.zeros(*size, dtype=dtype, device=device)
    # numpy leaves it to the system to clear pages; torch writes them all, 0.2 s for 512 MB.
    pages = np.zeros(math.prod(size) * dtype.itemsize, np.uint8)
    return torch.from_numpy(pages).view(dtype).view(*size)


class KVCache:
    """K/V of `num_blocks` blocks, one tensor [layers, 2, slots, kv_heads, head_dim].

    One block more than asked for stays zero: it pads block tables.
    backend: None picks xformers on CUDA where its paged kernel takes the shape, else torch.
    """

    def __init__(
        self,
        shape: KVShape,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
        backend: Backend | None = None,
    ) -> None:
        self.shape = shape
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.device = device
        self.backend = backend or _pick_backend(shape, block_size, dtype, device)
        size = (shape.layers, 2, num_blocks + 1, block_size, shape.kv_heads, shape.head_dim)
        self._storage = zeros(size, dtype, device)
        slots = self._storage.flatten(2, 3)
        # One pair of views per layer, made once: indexing a tensor costs microseconds a time.
        self.blocks = [(layer[0], layer[1]) for layer in self._storage]
        self.slots = [(layer[0], layer[1]) for layer in slots]

    def clear(self, blocks: Sequence[int]) -> None:
        """Zero blocks that are about to be used.

        What lies behind a line's end is masked, but a masked NaN that an earlier line left would
        still spoil the sum: zero times NaN is NaN.
        """
        if blocks:
            self._storage[:, :, torch.tensor(blocks, device=self.device)] = 0

    def view(self, batch: Batch) -> CacheView:
        """The cache as one step's attention layers see it."""
        groups = _xformers_groups if self.backend == "xformers" else _torch_groups
        return _StepView(self, batch.slots, groups(self, batch))

    def table(self, tables: Sequence[Sequence[int]], length: int, dtype: torch.dtype) -> Tensor:
        """Block tables as [rows, blocks that hold `length` ids], padded by the zero block."""
        width = -(-length // self.block_size)
        padded = [[*row[:width], *[self.num_blocks] * (width - len(row))] for row in tables]
        return torch.tensor(padded, dtype=dtype, device=self.device)


class _Group(Protocol):
    """Rows that attend in one call: the flat ids at `rows`."""

    rows: slice

    def attend(self, layer: int, q: Tensor) -> Tensor: ...


class _StepView:
    def __init__(self, cache: KVCache, slots: Tensor, groups: Sequence[_Group]) -> None:
        self._cache = cache
        self._slots = slots
        self._groups = groups

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self._cache.slots[layer]
        keys.index_copy_(0, self._slots, k)
        values.index_copy_(0, self._slots, v)
        if len(self._groups) == 1:
            return self._groups[0].attend(layer, q)
        return torch.cat([group.attend(layer, q[group.rows]) for group in self._groups])


class _TorchGroup:
    """Rows of one query length: gather their blocks, then one scaled_dot_product_attention."""

    def __init__(self, cache: KVCache, batch: Batch, rows: slice, first: int, count: int) -> None:
        self.rows = rows
        self._cache = cache
        self._count = count
        contexts = batch.context_lengths[first : first + count]
        self._queries = batch.query_lengths[first]
        self._length = max(contexts)
        tables = batch.block_tables[first : first + count]
        self._table = cache.table(tables, self._length, torch.int64).flatten()
        equal = min(contexts) == self._length
        self._causal = equal and 1 < self._queries == self._length
        plain = equal and (self._queries == 1 or self._causal)
        dtype = cache.blocks[0][0].dtype
        self._mask = None if plain else _causal_mask(contexts, self._queries, dtype, cache.device)

    def attend(self, layer: int, q: Tensor) -> Tensor:
        keys, values = self._cache.blocks[layer]
        q = q.unflatten(0, (self._count, self._queries))  # [rows, queries, heads, head_dim]
        k, v = self._gather(keys), self._gather(values)
        out = scaled_dot_product_attention(
            q.transpose(1, 2),
            k,
            v,
            attn_mask=self._mask,
            is_causal=self._causal,
            enable_gqa=q.shape[2] != k.shape[1],
        )
        return out.transpose(1, 2).flatten(0, 1)

    def _gather(self, blocks: Tensor) -> Tensor:
        """[rows, kv_heads, length, head_dim] from [blocks, block_size, kv_heads, head_dim]."""
        lines = blocks.index_select(0, self._table)
        lines = lines.view(self._count, -1, *blocks.shape[2:])
        return lines[:, : self._length].transpose(1, 2)


def _torch_groups(cache: KVCache, batch: Batch) -> list[_TorchGroup]:
    groups = []
    first = start = 0
    for queries, run in groupby(batch.query_lengths):
        count = len(list(run))
        stop = start + queries * count
        groups.append(_TorchGroup(cache, batch, slice(start, stop), first, count))
        first, start = first + count, stop
    return groups


def _causal_mask(
    contexts: Sequence[int], queries: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[rows, 1, queries, longest context], 0 or -inf; a row's last query sees its whole context."""
    length = torch.tensor(contexts, device=device).view(-1, 1, 1, 1)
    query = torch.arange(queries, device=device).view(1, 1, -1, 1)
    key = torch.arange(max(contexts), device=device)
    hidden = key > length - queries + query
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)


class _XformersDecodeGroup:
    """Rows of one short query length: the paged triton split-K kernel reads K/V in place."""

    def __init__(self, cache: KVCache, batch: Batch, rows: slice, first: int, count: int) -> None:
        from xformers.ops.fmha import memory_efficient_attention_forward, triton_splitk
        from xformers.ops.fmha.attn_bias import PagedBlockDiagonalCausalWithOffsetPaddedKeysMask

        self.rows = rows
        self._cache = cache
        self._attention = memory_efficient_attention_forward
        self._op = triton_splitk.FwOp
        contexts = batch.context_lengths[first : first + count]
        tables = batch.block_tables[first : first + count]
        self._bias = PagedBlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            list(batch.query_lengths[first : first + count]),
            list(contexts),
            cache.table(tables, max(contexts), torch.int32),
            cache.block_size,
            device=cache.device,
        )

    def attend(self, layer: int, q: Tensor) -> Tensor:
        keys, values = self._cache.slots[layer]
        q_heads = _grouped(q, keys.shape[1])
        k, v = (_expanded(x, q_heads) for x in (keys, values))
        out = self._attention(q_heads[None], k[None], v[None], attn_bias=self._bias, op=self._op)
        return out.reshape(q.shape)


class _XformersPrefillGroup:
    """Long runs of any length: gather their contexts flat, then block-diagonal attention."""

    def __init__(self, cache: KVCache, batch: Batch, rows: slice, first: int) -> None:
        from xformers.ops.fmha import memory_efficient_attention_forward
        from xformers.ops.fmha.attn_bias import BlockDiagonalCausalFromBottomRightMask

        self.rows = rows
        self._cache = cache
        self._attention = memory_efficient_attention_forward
        contexts = batch.context_lengths[first:]
        self._slots = torch.cat(
            [
                _slots(cache, table, length)
                for table, length in zip(batch.block_tables[first:], contexts, strict=True)
            ]
        )
        self._bias = BlockDiagonalCausalFromBottomRightMask.from_seqlens(
            list(batch.query_lengths[first:]), list(contexts), device=cache.device
        )

    def attend(self, layer: int, q: Tensor) -> Tensor:
        keys, values = (x.index_select(0, self._slots) for x in self._cache.slots[layer])
        repeats = q.shape[1] // keys.shape[1]
        if repeats > 1:
            keys, values = (x.repeat_interleave(repeats, dim=1) for x in (keys, values))
        return self._attention(q[None], keys[None], values[None], attn_bias=self._bias)[0]


def _xformers_groups(
    cache: KVCache, batch: Batch
) -> list[_XformersDecodeGroup | _XformersPrefillGroup]:
    groups: list[Any] = []
    first = start = 0
    for queries, run in groupby(batch.query_lengths):
        if queries > _SPLIT_K_MAX_QUERIES:
            groups.append(_XformersPrefillGroup(cache, batch, slice(start, None), first))
            break
        count = len(list(run))
        stop = start + queries * count
        groups.append(_XformersDecodeGroup(cache, batch, slice(start, stop), first, count))
        first, start = first + count, stop
    return groups


def _slots(cache: KVCache, table: Sequence[int], length: int) -> Tensor:
    """[length] int64, the slots of a line's first ids."""
    starts = cache.table([table], length, torch.int64)[0] * cache.block_size
    offsets = torch.arange(cache.block_size, device=cache.device)
    return (starts[:, None] + offsets).flatten()[:length]


def _grouped(q: Tensor, kv_heads: int) -> Tensor:
    """[n, heads, d], or [n, kv_heads, repeats, d] if several query heads share a K/V head."""
    return q if q.shape[1] == kv_heads else q.unflatten(1, (kv_heads, -1))


def _expanded(x: Tensor, q: Tensor) -> Tensor:
    """K/V as grouped queries want them: repeated by a stride of 0, not copied."""
    return x if q.ndim == 3 else x[:, :, None].expand(-1, -1, q.shape[2], -1)


def _pick_backend(
    shape: KVShape, block_size: int, dtype: torch.dtype, device: torch.device
) -> Backend:
    fits = (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and shape.head_dim in _SPLIT_K_HEAD_DIMS
        and block_size % _SPLIT_K_PAGE == 0
    )
    return "xformers" if fits and find_spec("xformers") else "torch"
