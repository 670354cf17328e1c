"""The model the engine runs, as a Protocol, and the one place that calls its forward."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from unitok_engine.batch import Batch
from unitok_engine.config import KVShape
from unitok_engine.kv_cache import CacheView, KVCache
from unitok_engine.request import IdRange


class Model(Protocol):
    """A decoder of one id space; it picks embedding and head by id range."""

    @property
    def kv_shape(self) -> KVShape: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def id_ranges(self) -> Sequence[IdRange]:
        """The ids it can embed, as the ranges of its heads: each head gives logits of one."""
        ...

    def embed(self, ids: Tensor, /) -> Tensor:
        """[n] int64 -> [n, d]."""
        ...

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView, /) -> Tensor:
        """[n, d] and [n] int64 -> [n, d], final-normed; attention goes through the cache."""
        ...

    def logits(self, hidden: Tensor, id_range: IdRange, /) -> Tensor:
        """[m, d] -> [m, id_range.size]."""
        ...


class Runner:
    """Runs batches; `forwards` counts them."""

    def __init__(self, model: Model, cache: KVCache) -> None:
        self.model = model
        self.cache = cache
        self.forwards = 0

    def run(self, batch: Batch) -> list[Tensor]:
        """One forward of the model; the logits [m, id_range.size] of each of the batch's groups."""
        hidden = self.model.embed(batch.ids)
        for features in batch.features:
            stop = features.start + len(features.vectors)
            hidden[features.start : stop] = features.vectors.to(hidden)
        self.forwards += 1
        hidden = self.model.forward(hidden, batch.positions, self.cache.view(batch))
        return [self.model.logits(hidden[g.rows], g.id_range) for g in batch.groups]
