"""Causal attention in plain torch: gather each line's blocks, then scaled dot products."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unitok_engine.attention.layout import Layout, block_table
from unitok_engine.batch import Batch


class GatherGroup:
    """Rows of one query length, `first` to `first + count` of the batch."""

    def __init__(self, layout: Layout, batch: Batch, rows: slice, first: int, count: int) -> None:
        self.rows = rows
        self._layout = layout
        self._count = count
        contexts = batch.context_lengths[first : first + count]
        self._queries = batch.query_lengths[first]
        self._length = max(contexts)
        # A first chunk sees nothing but itself, which is at hand.
        self._own = min(contexts) == self._length == self._queries
        dtype, device = layout.keys.dtype, layout.keys.device
        if not self._own:
            tables = batch.block_tables[first : first + count]
            self._table = block_table(layout, tables, self._length)
        plain = self._own or (self._queries == 1 and min(contexts) == self._length)
        self._mask = None if plain else _causal_mask(contexts, self._queries, dtype, device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [n, heads, head_dim] of this group's rows, and their own k, v -> [n, heads, head_dim].

        k and v are already in the cache.
        """
        q = self._per_row(q)
        if self._own:
            k, v = self._per_row(k), self._per_row(v)
        else:
            k, v = (x[:, :, : self._length] for x in self._layout.lines(layer, self._table))
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
        return x.unflatten(0, (self._count, self._queries)).transpose(1, 2)


def _causal_mask(
    contexts: Sequence[int], queries: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[rows, 1, queries, longest context], 0 or -inf; a row's last query sees its whole context."""
    length = torch.tensor(contexts, device=device).view(-1, 1, 1, 1)
    query = torch.arange(queries, device=device).view(1, 1, -1, 1)
    key = torch.arange(max(contexts), device=device)
    hidden = key > length - queries + query
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
