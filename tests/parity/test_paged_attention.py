"""Paged attention against one oracle: the xformers bias, materialised on the CPU."""

import pytest
import torch
from torch import Tensor
from xformers.ops.fmha.attn_bias import (
    BlockDiagonalCausalFromBottomRightMask,
    PagedBlockDiagonalCausalWithOffsetPaddedKeysMask,
)

from unitok_engine.batch import Batch
from unitok_engine.config import KVShape
from unitok_engine.kv_cache import KVCache

CPU = torch.device("cpu")
HEADS, HEAD_DIM, LAYER = 4, 16, 1


def batch_of(queries: list[int], contexts: list[int], block_size: int) -> Batch:
    """Rows in scattered blocks; ids and positions play no part in attention."""
    widths = [-(-length // block_size) for length in contexts]
    order = torch.randperm(sum(widths), generator=torch.Generator().manual_seed(0)).tolist()
    tables, slots = [], []
    for query, context, width in zip(queries, contexts, widths, strict=True):
        table, order = order[:width], order[width:]
        tables.append(table)
        steps = range(context - query, context)
        slots += [table[i // block_size] * block_size + i % block_size for i in steps]
    flat = torch.tensor(slots)
    return Batch(flat, flat, flat, tuple(queries), tuple(contexts), tuple(tables), (), ())


def filled_cache(batch: Batch, kv_heads: int, block_size: int) -> KVCache:
    """A cache of random K/V, as earlier steps would have left it."""
    blocks = sum(map(len, batch.block_tables))
    cache = KVCache(KVShape(2, kv_heads, HEAD_DIM), blocks, block_size, torch.float32, CPU)
    for keys, values in cache.blocks:
        for x in (keys, values):
            x[:blocks] = torch.randn(x[:blocks].shape)
    return cache


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k / sqrt(d) + bias) v, spelt out; q [n, h, d], k and v [m, kv_heads, d]."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[2] ** 0.5
    return torch.einsum("hqk,khd->qhd", (scores + bias).softmax(-1), v)


CASES = pytest.mark.parametrize(
    ("queries", "contexts"),
    [
        ([1, 1, 1], [9, 9, 9]),
        ([1, 1, 1, 1], [1, 30, 7, 16]),
        ([3, 3], [3, 17]),
        ([5, 5], [5, 5]),
        ([1, 1, 2, 6, 20], [12, 5, 9, 6, 33]),
    ],
    ids=["equal decode", "decode", "runs", "prompts", "all at once"],
)


@CASES
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("block_size", [3, 8])
def test_paged_attention_is_the_materialised_bias(
    queries: list[int], contexts: list[int], kv_heads: int, block_size: int
):
    torch.manual_seed(0)
    batch = batch_of(queries, contexts, block_size)
    cache = filled_cache(batch, kv_heads, block_size)
    n = sum(queries)
    q = torch.randn(n, HEADS, HEAD_DIM)
    k, v = torch.randn(2, n, kv_heads, HEAD_DIM)
    got = cache.view(batch).attend(LAYER, q, k, v)
    keys, values = (x[:-block_size] for x in cache.slots[LAYER])  # without the zero block
    assert torch.equal(keys[batch.slots], k) and torch.equal(values[batch.slots], v)
    torch.testing.assert_close(got, _paged_oracle(batch, block_size, q, keys, values))
    torch.testing.assert_close(got, _gathered_oracle(batch, block_size, q, keys, values))


def _paged_oracle(batch: Batch, block_size: int, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The paged bias, row by row: its table must have no padding to be materialised."""
    rows = q.split(batch.query_lengths)
    outputs = []
    for row, query, context, table in zip(
        rows, batch.query_lengths, batch.context_lengths, batch.block_tables, strict=True
    ):
        bias = PagedBlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            [query], [context], torch.tensor([table]), block_size, device=CPU
        ).materialize((query, len(table) * block_size))
        m = bias.shape[1]
        outputs.append(attention(row, keys[:m], values[:m], bias))
    return torch.cat(outputs)


def _gathered_oracle(
    batch: Batch, block_size: int, q: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """The block-diagonal bias over every context laid out flat, as prefill on CUDA has it."""
    slots = [
        table[i // block_size] * block_size + i % block_size
        for table, context in zip(batch.block_tables, batch.context_lengths, strict=True)
        for i in range(context)
    ]
    bias = BlockDiagonalCausalFromBottomRightMask.from_seqlens(
        list(batch.query_lengths), list(batch.context_lengths), device=CPU
    )
    return attention(q, keys[slots], values[slots], bias.materialize((len(q), len(slots))))


def test_other_layers_stay_as_they_were():
    batch = batch_of([1, 2], [4, 6], block_size=4)
    cache = filled_cache(batch, 2, 4)
    before = [x.clone() for x in cache.blocks[0]]
    k, v = torch.randn(2, 3, 2, HEAD_DIM)
    cache.view(batch).attend(LAYER, torch.randn(3, HEADS, HEAD_DIM), k, v)
    assert all(torch.equal(a, b) for a, b in zip(before, cache.blocks[0], strict=True))
