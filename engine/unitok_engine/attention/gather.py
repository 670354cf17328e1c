"""Causal attention in plain torch, on any device.

The blocks of each row are gathered into contiguous keys and values; then scaled dot products.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unitok_engine.attention.base import AttentionMetadata, CacheView, RowGroup
from unitok_engine.attention.kv_layout import (
    CPU_BLOCK_BYTES,
    KVLayout,
    KVShape,
    StandardKVLayout,
)
from unitok_engine.attention.paged import GroupedView, PagedBackend


class GatherBackend(PagedBackend[StandardKVLayout]):
    """The backend "torch-gather": it copies each row's K/V and attends, on any device."""

    def __init__(
        self,
        shape: KVShape,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(StandardKVLayout(shape, num_blocks, block_size, dtype, device))

    @staticmethod
    def preferred_block_size(dtype: torch.dtype, device: torch.device) -> int:
        """See `AttentionBackend.preferred_block_size`: 64 on CUDA, as the other backend there."""
        return 64 if device.type == "cuda" else CPU_BLOCK_BYTES // dtype.itemsize

    def view(self, metadata: AttentionMetadata) -> CacheView:
        """See `AttentionBackend.view`."""
        groups = [GatherAttention(self.layout, group) for group in metadata.groups()]
        return GroupedView(self.layout, metadata, groups)


class GatherAttention:
    """The `GroupAttention` of rows of one query length, in any layout."""

    def __init__(self, layout: KVLayout, group: RowGroup) -> None:
        self.tokens = group.tokens
        self._layout = layout
        self._rows = len(group.query_lengths)
        self._queries = group.query_lengths[0]
        contexts = group.context_lengths
        self._length = max(contexts)
        # A first chunk sees nothing but itself, which is at hand.
        self._own = min(contexts) == self._length == self._queries
        dtype, device = layout.keys.dtype, layout.keys.device
        if not self._own:
            self._table = layout.block_table(group.block_tables, self._length)
        plain = self._own or (self._queries == 1 and min(contexts) == self._length)
        self._mask = None if plain else _causal_mask(contexts, self._queries, dtype, device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `GroupAttention.attend`."""
        q = self._per_row(q)
        if self._own:
            k, v = self._per_row(k), self._per_row(v)
        else:
            k, v = (x[:, :, : self._length] for x in self._layout.gather(layer, self._table))
        out = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=self._mask,
            is_causal=self._own and self._queries > 1,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out.transpose(1, 2).flatten(0, 1)

    def _per_row(self, x: Tensor) -> Tensor:
        """[n, heads, head_dim] -> [rows, heads, queries, head_dim]."""
        return x.unflatten(0, (self._rows, self._queries)).transpose(1, 2)


def _causal_mask(
    contexts: Sequence[int], queries: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[rows, 1, queries, longest context], 0 or -inf; a row's last query sees its whole context."""
    length = torch.tensor(contexts, device=device).view(-1, 1, 1, 1)
    query = torch.arange(queries, device=device).view(1, 1, -1, 1)
    key = torch.arange(max(contexts), device=device)
    hidden = key > length - queries + query
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
