"""Paged keys and values, and causal attention over them.

Paging follows PagedAttention (https://arxiv.org/abs/2309.06180). A backend turns a batch into
groups of rows once per step; each layer then attends group by group. A group's rows are one
slice of the batch, because a batch is ordered by query length.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor

from unitok_engine.attention import cpu, layout, xformers
from unitok_engine.attention.cpu import BagGroup
from unitok_engine.attention.gather import GatherGroup
from unitok_engine.attention.layout import BagMajor, Layout, TokenMajor
from unitok_engine.attention.xformers import StaticView, padded_context, padded_rows
from unitok_engine.batch import Batch
from unitok_engine.config import Backend, KVShape


class CacheView(Protocol):
    """What a model's attention layers see of the cache during one step."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write k, v [n, kv_heads, head_dim] of this step; attend with q [n, heads, head_dim].

        All are flat over the step's rows and already rotated. Each id sees its own line up to
        itself. Query heads are a multiple of K/V heads. Returns [n, heads, head_dim].
        """
        ...


class Group(Protocol):
    """Rows that attend in one call: the flat ids at `rows`."""

    rows: slice

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


class KVCache:
    """K/V of `num_blocks` blocks, laid out as the backend wants them.

    backend: "torch-gather" copies each line's K/V and attends, anywhere; "torch" reads them in
    place where rows are short, on a CPU; "xformers" does on CUDA. None picks what fits best.
    scratch_block: where `static` ones have rows of nobody write; no line reads it.
    """

    def __init__(
        self,
        shape: KVShape,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
        backend: Backend | None = None,
    ) -> None:
        self.backend = backend or _pick_backend(shape, block_size, dtype, device)
        make_layout, self._groups = _BACKENDS[self.backend]
        self.device = device
        self.static = self.backend == "xformers"  # it has static views
        self.scratch_block = num_blocks
        blocks = num_blocks + (1 if self.static else 0)
        self.layout: Layout = make_layout(shape, blocks, block_size, dtype, device)

    def reset(self) -> None:
        """Drop what is kept from one step for the next, which a step that broke off may spoil."""
        if isinstance(self.layout, BagMajor):
            self.layout.bag_index = None

    def clear(self, blocks: Sequence[int]) -> None:
        """Zero blocks that are about to be used."""
        layout.clear(self.layout, blocks)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks, each pair from source to target; all are read before any is written."""
        layout.copy(self.layout, pairs)

    def view(self, batch: Batch) -> CacheView:
        """The cache as one step's attention layers see it."""
        return _StepView(self.layout, batch, self._groups(self.layout, batch))

    def static_shape(self, rows: int, context: int) -> tuple[int, int]:
        """The rows and the context of the static view that serves so many decode rows."""
        return padded_rows(rows), padded_context(context)

    def static_view(self, slots: Tensor, context: int) -> StaticView:
        """The cache as len(slots) decode rows of up to `context` ids see it, step after step."""
        assert isinstance(self.layout, TokenMajor)
        return StaticView(self.layout, slots, context)


class _StepView:
    def __init__(self, layout: Layout, batch: Batch, groups: Sequence[Group]) -> None:
        self._layout = layout
        self._places = layout.places(batch.slots)
        self._groups = groups

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self._layout.write(layer, self._places, k, v)
        if len(self._groups) == 1:
            return self._groups[0].attend(layer, q, k, v)
        parts = [
            group.attend(layer, q[group.rows], k[group.rows], v[group.rows])
            for group in self._groups
        ]
        return torch.cat(parts)


def _by_query_length(make: Callable[..., Group], layout: Layout, batch: Batch) -> list[Group]:
    """`make(layout, batch, rows, first, count)` for each run of rows of one query length."""
    groups = []
    first = start = 0
    for queries, run in groupby(batch.query_lengths):
        count = len(list(run))
        stop = start + queries * count
        groups.append(make(layout, batch, slice(start, stop), first, count))
        first, start = first + count, stop
    return groups


def _gather_groups(layout: Layout, batch: Batch) -> list[Group]:
    return _by_query_length(GatherGroup, layout, batch)


def _bag_groups(layout: Layout, batch: Batch) -> list[Group]:
    return _by_query_length(_bag_or_gather, layout, batch)


def _bag_or_gather(layout: BagMajor, batch: Batch, rows: slice, first: int, count: int) -> Group:
    short = batch.query_lengths[first] <= cpu.MAX_QUERIES
    return (BagGroup if short else GatherGroup)(layout, batch, rows, first, count)


_BACKENDS: dict[Backend, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "torch": (BagMajor, _bag_groups),
    "torch-gather": (TokenMajor, _gather_groups),
    "xformers": (TokenMajor, xformers.xformers_groups),
}


def _pick_backend(
    shape: KVShape, block_size: int, dtype: torch.dtype, device: torch.device
) -> Backend:
    if device.type == "cpu":
        return "torch"
    fits = (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and shape.head_dim in xformers.HEAD_DIMS
        and block_size % xformers.PAGE == 0
    )
    return "xformers" if fits and find_spec("xformers") else "torch-gather"
