"""What the backends share: storage in blocks, and a view that attends group by group."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from unitok_engine.attention.base import AttentionMetadata
from unitok_engine.attention.kv_layout import KVLayout

AnyLayout = TypeVar("AnyLayout", bound=KVLayout)


class GroupAttention(Protocol):
    """Attention of one group of a step's rows, which its backend chose the way for.

    Attributes:
        tokens: Where the group's tokens lie among the step's.
    """

    tokens: slice

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend with the group's tokens, whose keys and values have been stored.

        Args:
            layer: The layer, from 0.
            q: [n, heads, head_dim].
            k: [n, kv_heads, head_dim], the group's own keys.
            v: [n, kv_heads, head_dim], the group's own values.

        Returns:
            [n, heads, head_dim].
        """
        ...


class GroupedView:
    """The `CacheView` of a step: it stores keys and values, then each group attends."""

    def __init__(
        self, layout: KVLayout, metadata: AttentionMetadata, groups: Sequence[GroupAttention]
    ) -> None:
        self._layout = layout
        self._index = layout.slot_index(metadata.slot_mapping)
        self._groups = groups

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `CacheView.attend`."""
        self._layout.write(layer, self._index, k, v)
        if len(self._groups) == 1:
            return self._groups[0].attend(layer, q, k, v)
        parts = [
            group.attend(layer, q[group.tokens], k[group.tokens], v[group.tokens])
            for group in self._groups
        ]
        return torch.cat(parts)


class PagedBackend(Generic[AnyLayout]):
    """The part of an `AttentionBackend` that moves whole blocks, in any layout.

    Attributes:
        layout: How the keys and values lie in memory.
        device: Where they are.
    """

    def __init__(self, layout: AnyLayout) -> None:
        self.layout = layout
        self.device = layout.keys.device

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """See `AttentionBackend.copy`."""
        self.layout.copy(pairs)

    def clear(self, blocks: Sequence[int]) -> None:
        """See `AttentionBackend.clear`."""
        self.layout.clear(blocks)

    def reset(self) -> None:
        """See `AttentionBackend.reset`: nothing is kept unless a backend says so."""
