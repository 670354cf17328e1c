"""The model the engine runs, as a Protocol, and the one place that calls its forward."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from unitok_engine.attention.kv_cache import CacheView, KVCache
from unitok_engine.batch import Batch, EmbeddingRows
from unitok_engine.config import KVShape
from unitok_engine.graphs import Recorder
from unitok_engine.ids import IdRange
from unitok_engine.transfer import send


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
    """Runs batches; `forwards` counts them.

    cuda_graphs: decode steps run as `StaticStep`s, one for each padded shape, where the cache has
    static views. They record the model: it must not be exchanged afterwards.
    """

    def __init__(self, model: Model, cache: KVCache, cuda_graphs: bool = False) -> None:
        self.model = model
        self.cache = cache
        self.forwards = 0
        self._recorder = Recorder(self._trunk, cache) if cuda_graphs and cache.static else None

    def run(self, batch: Batch) -> list[Tensor]:
        """One forward of the model; the logits [m, id_range.size] of each of the batch's groups.

        On CUDA it returns before the device is done.
        """
        self.forwards += 1
        if self._recorder is not None and batch.decodes:
            hidden = self._recorder.step(batch)(batch)
        else:
            batch = batch.to(self.cache.device)
            hidden = self._trunk(
                batch.ids, batch.positions, self.cache.view(batch), batch.embeddings
            )
        return [
            self.model.logits(hidden[send(g.rows, hidden.device)], g.id_range) for g in batch.groups
        ]

    def _trunk(
        self,
        ids: Tensor,
        positions: Tensor,
        view: CacheView,
        features: Sequence[EmbeddingRows] = (),
    ) -> Tensor:
        hidden = self.model.embed(ids)
        for part in features:
            hidden[part.start : part.start + len(part.vectors)] = part.vectors.to(hidden)
        return self.model.forward(hidden, positions, view)
