"""Decode steps of few fixed shapes, recorded once and replayed as CUDA graphs.

A step of a small model is hundreds of short kernels: launching them one by one takes longer than
running them. What changes from step to step lies in tensors that stay in place and are filled
before each replay. Shapes are padded, so that few graphs serve all batches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unitok_engine.attention.base import StaticBackend, StaticShape, StaticView
from unitok_engine.batch import Batch
from unitok_engine.transfer import fill, send

CHEAP = 128  # tokens that a device computes while it reads the weights, more or less

Trunk = Callable[[Tensor, Tensor, StaticView], Tensor]
"""A model's embedding and layers: ids [n], positions [n] and the view -> hidden states [n, d]."""


class StaticStep:
    """A model's trunk over decode rows of a fixed shape.

    A batch with fewer or shorter rows is padded. A padding token is id 0 at position 0, and its K/V
    go to the backend's scratch block. A padding row sees that block alone. A short row gets padding
    tokens behind its own, which therefore do not see them. Nothing that a branch reads is touched.

    Args:
        trunk: What is recorded.
        attention: The backend that the trunk attends through.
        shape: The most rows of a batch, the most tokens of a row, and the most that one may see.
        pool: The graph memory of `record`.
    """

    # torch's name for the type of a pool is private, hence Any.
    def __init__(
        self, trunk: Trunk, attention: StaticBackend, shape: StaticShape, pool: Any
    ) -> None:
        self._trunk = trunk
        self._pool = pool
        self._shape = shape
        self._scratch_block = attention.scratch_block
        self._block_size = attention.layout.block_size
        # ids, positions and slots of all tokens, contexts of all rows: one transfer for all.
        size = 3 * shape.tokens + shape.rows
        self._numbers = torch.zeros(size, dtype=torch.int64, device=attention.device)
        (ids, positions, slots), contexts = self._parts(self._numbers)
        self._ids, self._positions, self._contexts = ids, positions, contexts
        self._view = attention.static_view(slots, shape)
        self._replay: Callable[[], Tensor] | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Hidden states [n, d] of a batch's n tokens; the next step overwrites them."""
        places = self._places(batch)
        self._fill(batch, places)
        if self._replay is None:
            self._replay = record(self._run, self._pool)
        hidden = self._replay()
        if isinstance(places, slice):
            return hidden[places]
        return hidden.index_select(0, send(places, hidden.device))

    def _parts(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """[3, tokens] and [rows] of the numbers that are sent together."""
        split = 3 * self._shape.tokens
        return numbers[:split].view(3, -1), numbers[split:]

    def _places(self, batch: Batch) -> slice | Tensor:
        """Where the batch's tokens lie among those of the padded rows."""
        lengths, width = batch.attention.query_lengths, self._shape.width
        if lengths[0] == width:
            return slice(len(batch.ids))
        starts = enumerate(lengths)
        return torch.tensor([row * width + i for row, length in starts for i in range(length)])

    def _fill(self, batch: Batch, places: slice | Tensor) -> None:
        numbers = torch.zeros(self._numbers.shape, dtype=torch.int64)
        tokens, contexts = self._parts(numbers)
        slots = batch.attention.slot_mapping
        tokens[2] = self._scratch_block * self._block_size
        tokens[:, places] = torch.stack([batch.ids, batch.positions, slots])
        seen, tables = self._padded_rows(batch)
        contexts.fill_(self._shape.width)
        contexts[: len(seen)] = torch.tensor(seen)
        fill(self._numbers, numbers)
        padding = [(self._scratch_block,)] * (len(contexts) - len(seen))
        self._view.fill_tables([*tables, *padding])

    def _padded_rows(self, batch: Batch) -> tuple[list[int], list[Sequence[int]]]:
        """The context and the blocks of each row, its padding tokens included."""
        rows, width = batch.attention, self._shape.width
        seen = [
            context + width - length
            for context, length in zip(rows.context_lengths, rows.query_lengths, strict=True)
        ]
        tables = [
            table if context <= len(table) * self._block_size else [*table, self._scratch_block]
            for context, table in zip(seen, rows.block_tables, strict=True)
        ]
        return seen, tables

    def _run(self) -> Tensor:
        self._view.contexts.copy_(self._contexts)
        return self._trunk(self._ids, self._positions, self._view)


class Recorder:
    """The static steps of a runner, each made when a batch first needs its shape.

    Args:
        trunk: What is recorded.
        attention: The backend that the trunk attends through.
    """

    def __init__(self, trunk: Trunk, attention: StaticBackend) -> None:
        self._trunk = trunk
        self._attention = attention
        self._steps: dict[StaticShape, StaticStep] = {}
        # One pool of memory for all graphs: they never run at the same time.
        on_cuda = attention.device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if on_cuda else None

    def step(self, batch: Batch) -> StaticStep | None:
        """The step for a batch of decode rows; None if padding would cost more than it saves."""
        shape = self._shape(batch)
        if shape is None or shape.tokens > max(CHEAP, 2 * len(batch.ids)):
            return None
        if shape not in self._steps:
            self._steps[shape] = StaticStep(self._trunk, self._attention, shape, self._pool)
        return self._steps[shape]

    def _shape(self, batch: Batch) -> StaticShape | None:
        contexts, lengths = batch.attention.context_lengths, batch.attention.query_lengths
        width = lengths[-1]
        longest = max(c + width - n for c, n in zip(contexts, lengths, strict=True))
        return self._attention.static_shape(len(lengths), width, longest)


def record(run: Callable[[], Tensor], pool: Any) -> Callable[[], Tensor]:
    """Record what `run` launches as a CUDA graph.

    Args:
        run: What to record. It is called twice.
        pool: Graph memory; None, on a CPU, records nothing and returns `run` itself.

    Returns:
        The replay: each call gives the same tensor, filled anew.

    Raises:
        RuntimeError: It cannot be recorded, as when it waits for the device.
    """
    if pool is None:
        return run
    run()  # compiles kernels and sets libraries up, which cannot be recorded
    graph = torch.cuda.CUDAGraph()
    try:
        # Only this thread is watched: others may decode pictures meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            output = run()
    except RuntimeError as error:
        raise RuntimeError(
            "the model's decode step cannot be recorded as a CUDA graph; "
            f"EngineConfig(cuda_graphs=False) runs it without: {error}"
        ) from error

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay
