"""Paged attention against one oracle: the xformers bias, materialised on the CPU."""

import pytest
import torch
from torch import Tensor
from xformers.ops.fmha.attn_bias import (
    BlockDiagonalCausalFromBottomRightMask,
    PagedBlockDiagonalCausalWithOffsetPaddedKeysMask,
)

from unitok_engine import AttentionBackend, AttentionMetadata, KVShape, make_backend
from unitok_engine.attention.backends import BackendName

CPU = torch.device("cpu")
HEADS, HEAD_DIM, LAYER = 4, 16, 1


def metadata_of(queries: list[int], contexts: list[int], block_size: int) -> AttentionMetadata:
    """Rows in scattered blocks."""
    widths = [-(-length // block_size) for length in contexts]
    order = torch.randperm(sum(widths), generator=torch.Generator().manual_seed(0)).tolist()
    tables, slots = [], []
    for query, context, width in zip(queries, contexts, widths, strict=True):
        table, order = order[:width], order[width:]
        tables.append(table)
        steps = range(context - query, context)
        slots += [table[i // block_size] * block_size + i % block_size for i in steps]
    rows = (tuple(queries), tuple(contexts), tuple(tables))
    return AttentionMetadata(torch.tensor(slots), *rows)


def filled_backend(
    metadata: AttentionMetadata, name: BackendName, kv_heads: int, block_size: int
) -> tuple[AttentionBackend, Tensor, Tensor]:
    """A backend with random K/V, as earlier steps would have left it, and that K and V by slot."""
    blocks = sum(map(len, metadata.block_tables))
    shape = KVShape(2, kv_heads, HEAD_DIM)
    backend = make_backend(shape, blocks, block_size, torch.float32, CPU, name)
    slots = torch.arange(blocks * block_size)
    keys, values = torch.randn(2, len(slots), kv_heads, HEAD_DIM)
    for layer in range(2):
        backend.layout.write(layer, backend.layout.slot_index(slots), keys, values)
    return backend, keys, values


def stored(backend: AttentionBackend, layer: int) -> tuple[Tensor, Tensor]:
    """K and V of a layer by slot, without the zero block."""
    table = torch.arange(backend.layout.zero_block)[None]
    keys, values = backend.layout.gather(layer, table)
    return keys[0].transpose(0, 1), values[0].transpose(0, 1)


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
        ([2, 2, 4], [2, 19, 26]),
        ([1, 1, 2, 6, 20], [12, 5, 9, 6, 33]),
    ],
    ids=["equal decode", "decode", "runs", "prompts", "ragged runs", "all at once"],
)
BACKENDS = pytest.mark.parametrize("name", ["torch", "torch-gather"])


@CASES
@BACKENDS
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("block_size", [3, 8])
def test_paged_attention_is_the_materialised_bias(
    queries: list[int], contexts: list[int], name: BackendName, kv_heads: int, block_size: int
):
    torch.manual_seed(0)
    metadata = metadata_of(queries, contexts, block_size)
    backend, keys, values = filled_backend(metadata, name, kv_heads, block_size)
    n = sum(queries)
    q = torch.randn(n, HEADS, HEAD_DIM)
    k, v = torch.randn(2, n, kv_heads, HEAD_DIM)
    got = backend.view(metadata).attend(LAYER, q, k, v)
    keys[metadata.slot_mapping], values[metadata.slot_mapping] = k, v
    assert all(map(torch.equal, stored(backend, LAYER), (keys, values)))
    torch.testing.assert_close(got, _paged_oracle(metadata, block_size, q, keys, values))
    torch.testing.assert_close(got, _gathered_oracle(metadata, block_size, q, keys, values))


def _paged_oracle(
    metadata: AttentionMetadata, block_size: int, q: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """The paged bias, row by row: its table must have no padding to be materialised."""
    rows = q.split(metadata.query_lengths)
    outputs = []
    for row, query, context, table in zip(
        rows, metadata.query_lengths, metadata.context_lengths, metadata.block_tables, strict=True
    ):
        bias = PagedBlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            [query], [context], torch.tensor([table]), block_size, device=CPU
        ).materialize((query, len(table) * block_size))
        m = bias.shape[1]
        outputs.append(attention(row, keys[:m], values[:m], bias))
    return torch.cat(outputs)


def _gathered_oracle(
    metadata: AttentionMetadata, block_size: int, q: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """The block-diagonal bias over every context laid out flat, as prefill on CUDA has it."""
    slots = [
        table[i // block_size] * block_size + i % block_size
        for table, context in zip(metadata.block_tables, metadata.context_lengths, strict=True)
        for i in range(context)
    ]
    bias = BlockDiagonalCausalFromBottomRightMask.from_seqlens(
        list(metadata.query_lengths), list(metadata.context_lengths), device=CPU
    )
    return attention(q, keys[slots], values[slots], bias.materialize((len(q), len(slots))))


@BACKENDS
def test_step_after_step_attends_to_what_each_step_reads(name: BackendName):
    torch.manual_seed(0)
    first = metadata_of([1, 1], [6, 15], block_size=8)
    backend, keys, values = filled_backend(first, name, 2, 8)
    for lengths in ([6, 15], [7, 16], [7, 9], [8, 3]):  # of the same tables, and of other blocks
        contexts = tuple(lengths)
        tables = [
            table[: -(-n // 8)] for table, n in zip(first.block_tables, contexts, strict=True)
        ]
        slots = [t[(n - 1) // 8] * 8 + (n - 1) % 8 for t, n in zip(tables, contexts, strict=True)]
        flat = torch.tensor(slots)
        metadata = AttentionMetadata(flat, (1, 1), contexts, tuple(tables))
        q, (k, v) = torch.randn(2, HEADS, HEAD_DIM), torch.randn(2, 2, 2, HEAD_DIM)
        got = backend.view(metadata).attend(LAYER, q, k, v)
        keys[flat], values[flat] = k, v
        torch.testing.assert_close(got, _gathered_oracle(metadata, 8, q, keys, values))


@BACKENDS
def test_other_layers_and_the_zero_block_stay_as_they_were(name: BackendName):
    metadata = metadata_of([1, 2], [4, 6], block_size=4)
    backend, keys, values = filled_backend(metadata, name, 2, 4)
    k, v = torch.randn(2, 3, 2, HEAD_DIM)
    backend.view(metadata).attend(LAYER, torch.randn(3, HEADS, HEAD_DIM), k, v)
    assert all(map(torch.equal, stored(backend, 0), (keys, values)))
    assert not backend.layout.keys[:, -1].any() and not backend.layout.values[:, -1].any()


@BACKENDS
def test_blocks_are_copied_before_any_is_overwritten_and_cleared_in_all_layers(name: BackendName):
    metadata = metadata_of([1], [16], block_size=4)
    backend, keys, _ = filled_backend(metadata, name, 2, 4)
    blocks = keys.unflatten(0, (4, 4)).clone()
    backend.copy([(0, 1), (1, 2)])
    backend.clear([0])
    expected = torch.stack([torch.zeros_like(blocks[0]), blocks[0], blocks[1], blocks[3]])
    for layer in range(2):
        assert torch.equal(stored(backend, layer)[0], expected.flatten(0, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_reads_in_place_agree_with_fp32(dtype: torch.dtype):
    torch.manual_seed(0)
    metadata = metadata_of([1] * 4, [40, 33, 5, 17], block_size=8)
    q, k, v = torch.randn(3, 4, HEADS, HEAD_DIM).to(dtype)
    outs = []
    for kind in (dtype, torch.float32):
        torch.manual_seed(1)
        shape, blocks = KVShape(2, HEADS, HEAD_DIM), sum(map(len, metadata.block_tables))
        backend = make_backend(shape, blocks, 8, kind, CPU)
        history = torch.randn(2, 8 * blocks, HEADS, HEAD_DIM).to(dtype).to(kind)
        index = backend.layout.slot_index(torch.arange(8 * blocks))
        backend.layout.write(LAYER, index, history[0], history[1])
        outs.append(backend.view(metadata).attend(LAYER, *(x.to(kind) for x in (q, k, v))).float())
    assert (outs[0] - outs[1]).abs().max() < 0.02
