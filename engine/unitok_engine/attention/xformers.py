"""Attention by xformers on CUDA: paged triton split-K for decode, block-diagonal for prefill."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import pad

from unitok_engine.attention.base import AttentionMetadata, CacheView, RowGroup, StaticShape
from unitok_engine.attention.gather import GatherAttention
from unitok_engine.attention.kv_layout import KVShape, StandardKVLayout
from unitok_engine.attention.paged import GroupAttention, GroupedView, PagedBackend
from unitok_engine.transfer import fill

logger = logging.getLogger(__name__)

MAX_QUERIES = 16  # what the paged split-K kernel takes under a causal bias
PAGE = 64  # its pages are multiples of this
HEAD_DIMS = (16, 32, 64, 128, 256, 512)


class XformersBackend(PagedBackend[StandardKVLayout]):
    """The backend "xformers": short rows read K/V in place on CUDA; it has static views.

    Attributes:
        scratch_block: See `StaticBackend`.
    """

    def __init__(
        self,
        shape: KVShape,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(StandardKVLayout(shape, num_blocks + 1, block_size, dtype, device))
        self.scratch_block = num_blocks
        self._has_flat_kernel = has_flat_kernel(shape.head_dim, dtype, device)

    @staticmethod
    def preferred_block_size(dtype: torch.dtype, device: torch.device) -> int:
        """See `AttentionBackend.preferred_block_size`: one page of the kernel."""
        return PAGE

    @staticmethod
    def why_unfit(
        shape: KVShape, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> str | None:
        """Why the kernels do not take such keys and values, or None if they do."""
        if device.type != "cuda":
            return f"it needs CUDA, not {device.type}"
        if dtype not in (torch.float16, torch.bfloat16):
            return f"it takes float16 and bfloat16, not {str(dtype).removeprefix('torch.')}"
        if shape.head_dim not in HEAD_DIMS:
            return f"it takes heads of {', '.join(map(str, HEAD_DIMS))}, not {shape.head_dim}"
        if block_size % PAGE:
            return f"it takes blocks of {PAGE} tokens or a multiple, not {block_size}"
        return None if find_spec("xformers") else "xformers is not installed"

    def view(self, metadata: AttentionMetadata) -> CacheView:
        """See `AttentionBackend.view`."""
        longest = MAX_QUERIES if self._has_flat_kernel else None
        groups = [self._attention(group) for group in metadata.groups(longest=longest)]
        return GroupedView(self.layout, metadata, groups)

    def _attention(self, group: RowGroup) -> GroupAttention:
        """Rows of one short query length, or longer ones."""
        if group.query_lengths[0] <= MAX_QUERIES:
            return DecodeAttention(self.layout, group)
        return (PrefillAttention if self._has_flat_kernel else GatherAttention)(self.layout, group)

    def static_shape(self, rows: int, width: int, context: int) -> StaticShape | None:
        """See `StaticBackend.static_shape`."""
        if width > MAX_QUERIES:
            return None
        padded = 1 << (width - 1).bit_length()
        return StaticShape(padded_rows(rows), padded, padded_context(context + padded - width))

    def static_view(self, slot_mapping: Tensor, shape: StaticShape) -> "StaticDecodeView":
        """See `StaticBackend.static_view`."""
        return StaticDecodeView(self.layout, slot_mapping, shape)


@lru_cache(maxsize=32)
def has_flat_kernel(head_dim: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether xformers has a kernel for rows of any length, tried once on the device.

    It lies in xformers' C++ extension, which loads beside one version of torch alone. Where it does
    not, torch attends in long rows.
    """
    from xformers.ops import fmha  # pyright: ignore[reportMissingTypeStubs]

    mask = fmha.attn_bias.BlockDiagonalCausalFromBottomRightMask
    x = torch.zeros(1, 4, 1, head_dim, dtype=dtype, device=device)
    try:
        bias = mask.from_seqlens([1, 3], [1, 3], device=device)
        fmha.memory_efficient_attention_forward(x, x, x, attn_bias=bias)
    except (NotImplementedError, ValueError):  # no operator for such inputs
        logger.info("xformers has no kernel for long rows here: torch attends in them")
        return False
    return True


def padded_rows(rows: int) -> int:
    """1, 2, 4, 8, 16, then steps of 16 up to 64, then of 32: as few shapes as waste little."""
    if rows <= 16:
        return 1 << (rows - 1).bit_length()
    step = 16 if rows <= 64 else 32
    return -(-rows // step) * step


def padded_context(tokens: int) -> int:
    """1,024 tokens, or a power of two above: the kernel's split, not its work, depends on it."""
    return max(1024, 1 << (tokens - 1).bit_length())


class PagedAttention:
    """The paged kernel over rows of `queries` queries each, in blocks of one layout.

    At launch the host reads nothing but shapes: how often the context is split follows from the
    tables' width. Lengths and block numbers are read on the device, up to each row's own length. So
    Triton compiles one kernel for each shape, and a recorded launch serves all lengths.

    Args:
        layout: The backend's.
        queries: Queries per row.
        contexts: How many tokens each row sees.
        tables: [rows, blocks] int32 on the device.

    Attributes:
        contexts: [rows] int32 on the device, how many tokens each row sees.
        tables: [rows, blocks] int32 on the device.
    """

    def __init__(
        self, layout: StandardKVLayout, queries: int, contexts: Sequence[int], tables: Tensor
    ) -> None:
        from xformers.ops import fmha  # pyright: ignore[reportMissingTypeStubs]

        self._layout = layout
        self._inputs = fmha.Inputs
        # Not through `memory_efficient_attention_forward`, which wants xformers' C++ extension too.
        # Triton compiles this kernel for any torch, and `probe.py` sees whether it works.
        self._kernel = fmha.triton_splitk.FwOp.apply
        self._bias = fmha.attn_bias.PagedBlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            [queries] * len(contexts),
            contexts,
            tables,
            layout.block_size,
            device=layout.keys.device,
        )
        self.contexts: Tensor = self._bias.k_seqinfo.seqlen
        self.tables = tables

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """Attend with q [rows * queries, heads, head_dim], row by row; returns the same shape."""
        keys, values = self._layout.by_slot[layer]
        q_heads = _grouped(q, keys.shape[1])
        k, v = (_expanded(x, q_heads) for x in (keys, values))
        inputs = self._inputs(q_heads[None], k[None], v[None], attn_bias=self._bias)
        out, _ = self._kernel(inputs, needs_gradient=False)
        return out.reshape(q.shape)


class DecodeAttention:
    """The `GroupAttention` of rows of one short query length: the kernel reads K/V in place.

    They are padded to a shape the kernel is likely compiled for, by rows that see zeros.
    """

    def __init__(self, layout: StandardKVLayout, group: RowGroup) -> None:
        self.tokens = group.tokens
        queries, contexts = group.query_lengths[0], group.context_lengths
        padding = padded_rows(len(contexts)) - len(contexts)
        tables = [*group.block_tables, *[()] * padding]
        self._padding = padding * queries
        self._paged = PagedAttention(
            layout,
            queries,
            [*contexts, *[queries] * padding],
            layout.block_table(tables, padded_context(max(contexts))).int(),
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `GroupAttention.attend`."""
        if not self._padding:
            return self._paged(layer, q)
        return self._paged(layer, pad(q, (0, 0, 0, 0, 0, self._padding)))[: len(q)]


class PrefillAttention:
    """The `GroupAttention` of long rows of any length: contexts are gathered flat.

    Attention is block-diagonal then, a block for each row.
    """

    def __init__(self, layout: StandardKVLayout, group: RowGroup) -> None:
        from xformers.ops import fmha  # pyright: ignore[reportMissingTypeStubs]

        self.tokens = group.tokens
        self._layout = layout
        self._attention = fmha.memory_efficient_attention_forward
        rows = zip(group.block_tables, group.context_lengths, strict=True)
        self._slots = torch.cat([_slots(layout, table, length) for table, length in rows])
        self._bias = fmha.attn_bias.BlockDiagonalCausalFromBottomRightMask.from_seqlens(
            list(group.query_lengths), list(group.context_lengths), device=layout.keys.device
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `GroupAttention.attend`."""
        keys, values = (x.index_select(0, self._slots) for x in self._layout.by_slot[layer])
        repeats = q.shape[1] // keys.shape[1]
        if repeats > 1:
            keys, values = (x.repeat_interleave(repeats, dim=1) for x in (keys, values))
        return self._attention(q[None], keys[None], values[None], attn_bias=self._bias)[0]


class StaticDecodeView:
    """The `StaticView` of decode rows: the paged kernel over tensors that stay in place.

    Args:
        layout: The backend's.
        slot_mapping: [rows * width] int64 on the device, where each token's K/V goes.
        shape: Of the steps.

    Attributes:
        contexts: See `StaticView`.
    """

    def __init__(self, layout: StandardKVLayout, slot_mapping: Tensor, shape: StaticShape) -> None:
        rows, width = shape.rows, shape.width
        self._layout = layout
        self._index = layout.slot_index(slot_mapping)
        tables = layout.block_table([()] * rows, shape.context).int()
        self._paged = PagedAttention(layout, width, [width] * rows, tables)
        self.contexts = self._paged.contexts
        self._tables = tables.to("cpu", copy=True)
        self._filled: list[Sequence[int]] = [()] * rows

    def fill_tables(self, tables: Sequence[Sequence[int]]) -> None:
        """See `StaticView.fill_tables`.

        A branch gets a new block once in a while: only what changed is written, and then sent. What
        an earlier table left behind a shorter one's end is not read.
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
        """See `CacheView.attend`."""
        self._layout.write(layer, self._index, k, v)
        return self._paged(layer, q)


def _slots(layout: StandardKVLayout, table: Sequence[int], length: int) -> Tensor:
    """[length] int64, the slots of a branch's first tokens."""
    starts = layout.block_table([table], length)[0] * layout.block_size
    offsets = torch.arange(layout.block_size, device=starts.device)
    return (starts[:, None] + offsets).flatten()[:length]


def _grouped(q: Tensor, kv_heads: int) -> Tensor:
    """[n, heads, d], or [n, kv_heads, repeats, d] if several query heads share a K/V head."""
    return q if q.shape[1] == kv_heads else q.unflatten(1, (kv_heads, -1))


def _expanded(x: Tensor, q: Tensor) -> Tensor:
    """K/V as grouped queries want them: repeated by a stride of 0, not copied."""
    return x if q.ndim == 3 else x[:, :, None].expand(-1, -1, q.shape[2], -1)
