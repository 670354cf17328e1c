"""Decode steps of few fixed shapes, recorded once and replayed as CUDA graphs.

A step of a small model is hundreds of short kernels: launching them one by one takes longer than
running them. What changes from step to step lies in tensors that stay in place and are filled
before each replay. Shapes are padded, so that few graphs serve all batches.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unitok_engine.attention.base import StaticBackend, StaticView
from unitok_engine.batch import Batch
from unitok_engine.transfer import fill

Trunk = Callable[[Tensor, Tensor, StaticView], Tensor]
"""A model's embedding and layers: ids [n], positions [n] and the view -> hidden states [n, d]."""


class StaticStep:
    """A model's trunk over decode rows of a fixed shape.

    A batch with fewer rows is padded. A padding row feeds id 0 at position 0, writes its K/V to the
    backend's scratch block, and attends to that alone. Nothing that a branch reads is touched.

    Args:
        trunk: What is recorded.
        attention: The backend that the trunk attends through.
        rows: The most rows a batch may have.
        context: The most tokens a row may see.
        pool: The graph memory of `record`.
    """

    # torch's name for the type of a pool is private, hence Any.
    def __init__(
        self, trunk: Trunk, attention: StaticBackend, rows: int, context: int, pool: Any
    ) -> None:
        self._trunk = trunk
        self._pool = pool
        self._scratch_block = attention.scratch_block
        self._scratch_slot = attention.scratch_block * attention.layout.block_size
        # ids, positions, slots and contexts: one transfer for all.
        self._numbers = torch.zeros(4, rows, dtype=torch.int64, device=attention.device)
        self._view = attention.static_view(self._numbers[2], context)
        self._replay: Callable[[], Tensor] | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Hidden states [n, d] of a batch's n rows; the next step overwrites them."""
        self._fill(batch)
        if self._replay is None:
            self._replay = record(self._run, self._pool)
        return self._replay()[: len(batch.ids)]

    def _fill(self, batch: Batch) -> None:
        numbers = torch.zeros(self._numbers.shape, dtype=torch.int64)
        count, metadata = len(batch.ids), batch.attention
        numbers[0, :count] = batch.ids
        numbers[1, :count] = batch.positions
        numbers[2, :count], numbers[2, count:] = metadata.slot_mapping, self._scratch_slot
        numbers[3, :count], numbers[3, count:] = torch.tensor(metadata.context_lengths), 1
        fill(self._numbers, numbers)
        padding = [(self._scratch_block,)] * (numbers.shape[1] - count)
        self._view.fill_tables([*metadata.block_tables, *padding])

    def _run(self) -> Tensor:
        ids, positions, _, contexts = self._numbers
        self._view.contexts.copy_(contexts)
        return self._trunk(ids, positions, self._view)


class Recorder:
    """The static steps of a runner, each made when a batch first needs its shape.

    Args:
        trunk: What is recorded.
        attention: The backend that the trunk attends through.
    """

    def __init__(self, trunk: Trunk, attention: StaticBackend) -> None:
        self._trunk = trunk
        self._attention = attention
        self._steps: dict[tuple[int, int], StaticStep] = {}
        # One pool of memory for all graphs: they never run at the same time.
        on_cuda = attention.device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if on_cuda else None

    def step(self, batch: Batch) -> StaticStep:
        """The step for a batch of decode rows."""
        longest = max(batch.attention.context_lengths)
        shape = self._attention.static_shape(len(batch.ids), longest)
        if shape not in self._steps:
            self._steps[shape] = StaticStep(self._trunk, self._attention, *shape, self._pool)
        return self._steps[shape]


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
