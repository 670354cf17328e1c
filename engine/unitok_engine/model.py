"""The model that the engine runs, as a Protocol."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unitok_engine.adapters import AdapterRows
from unitok_engine.attention.base import CacheView
from unitok_engine.attention.kv_layout import KVShape
from unitok_engine.ids import IdRange


class Model(Protocol):
    """A decoder of one space of token ids; it picks embedding and head by id range.

    The engine reads the properties once, when it is made, and calls the methods from the thread
    that steps.
    """

    @property
    def kv_shape(self) -> KVShape:
        """The shape of its keys and values."""
        ...

    @property
    def hidden_size(self) -> int:
        """The width d of its embeddings and hidden states."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type it computes in, and that of its keys and values."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def id_ranges(self) -> Sequence[IdRange]:
        """The ids it can embed, as the ranges of its heads: each head gives logits of one."""
        ...

    def embed(self, ids: Tensor, /) -> Tensor:
        """Token ids [n] int64 -> embeddings [n, d], which the engine may overwrite."""
        ...

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView, /) -> Tensor:
        """Embeddings [n, d] at positions [n] int64 -> final-normed hidden states [n, d].

        Attention goes through the cache, once per layer.
        """
        ...

    def logits(self, hidden: Tensor, id_range: IdRange, /) -> Tensor:
        """Hidden states [m, d] -> logits [m, id_range.size]."""
        ...


@runtime_checkable
class AdaptableModel(Model, Protocol):
    """A model with adapters, such as low-rank ones, of which each request may choose one.

    Adapters change neither what `embed` gives nor the embeddings of requests.
    """

    @property
    def adapters(self) -> Iterable[str]:
        """The names of its adapters, which may change between steps."""
        ...

    def forward(
        self,
        hidden: Tensor,
        positions: Tensor,
        cache: CacheView,
        adapters: AdapterRows | None = None,
        /,
    ) -> Tensor:
        """As `Model.forward`, with adapters for some of the n rows."""
        ...

    def logits(
        self, hidden: Tensor, id_range: IdRange, adapters: AdapterRows | None = None, /
    ) -> Tensor:
        """As `Model.logits`, with adapters for some of the m rows."""
        ...
