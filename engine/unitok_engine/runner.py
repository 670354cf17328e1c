"""The one place that calls a model's forward."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from unitok_engine.adapters import AdapterRows
from unitok_engine.attention.base import AttentionBackend, CacheView, StaticBackend
from unitok_engine.batch import Batch, EmbeddingRows, LogitsGroup
from unitok_engine.graphs import Recorder
from unitok_engine.model import AdaptableModel, Model
from unitok_engine.transfer import send


class Runner:
    """Runs a model over batches.

    Args:
        model: The model to run.
        attention: The backend that keeps its keys and values.
        cuda_graphs: Run decode steps as `StaticStep`s, one for each padded shape, if the backend
            has static views. These record the model: it must not be exchanged afterwards. A step
            in which a row has an adapter is not recorded.

    Attributes:
        model: The model it runs.
        attention: The backend that keeps the model's keys and values.
        forwards: How many batches have been run.
    """

    def __init__(
        self, model: Model, attention: AttentionBackend, cuda_graphs: bool = False
    ) -> None:
        self.model = model
        self.forwards = 0
        self._cuda_graphs = cuda_graphs
        self.attach(attention)

    def attach(self, attention: AttentionBackend) -> None:
        """Let another backend keep the keys and values; what was recorded is dropped."""
        self.attention = attention
        self._recorder: Recorder | None = None
        if self._cuda_graphs and isinstance(attention, StaticBackend):
            self._recorder = Recorder(self._trunk, attention)

    def run(self, batch: Batch) -> list[Tensor]:
        """Run the model once over a batch. On CUDA it returns before the device is done.

        Returns:
            The logits [m, id_range.size] of each of the batch's groups.
        """
        self.forwards += 1
        step = None
        if self._recorder is not None and batch.can_be_recorded:
            step = self._recorder.step(batch)
        if step is not None:
            hidden = step(batch)
        else:
            batch = batch.to(self.attention.device)
            view = self.attention.view(batch.attention)
            hidden = self._trunk(batch.ids, batch.positions, view, batch.embeddings, batch.adapters)
        return [self._logits(hidden, group) for group in batch.groups]

    def _logits(self, hidden: Tensor, group: LogitsGroup) -> Tensor:
        wanted = hidden[send(group.rows, hidden.device)]
        adapters = group.adapters and group.adapters.to(hidden.device)
        return self._adaptable.logits(wanted, group.id_range, *_given(adapters))

    @property
    def _adaptable(self) -> AdaptableModel:
        # A model that is none never gets adapters: `Engine.check` lets no request with one through.
        return cast(AdaptableModel, self.model)

    def _trunk(
        self,
        ids: Tensor,
        positions: Tensor,
        view: CacheView,
        embeddings: Sequence[EmbeddingRows] = (),
        adapters: AdapterRows | None = None,
    ) -> Tensor:
        """Hidden states [n, d] of ids [n] at positions [n], some of which embeddings replace."""
        hidden = self.model.embed(ids)
        for part in embeddings:
            hidden[part.start : part.start + len(part.vectors)] = part.vectors.to(hidden)
        return self._adaptable.forward(hidden, positions, view, *_given(adapters))


def _given(adapters: AdapterRows | None) -> tuple[AdapterRows, ...]:
    """What a model with adapters is given beside all else, if there is anything."""
    return () if adapters is None else (adapters,)
