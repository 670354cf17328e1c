"""The contract of attention backends: what one step tells them, and what a model sees of them.

For each step the engine's thread calls `copy` and `clear` of the backend, then `view` once. The
model then calls `attend` of that view once per layer. Nobody else touches keys and values: the
scheduler and the block pool know blocks by number only.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unitok_engine.attention.kv_layout import KVLayout
from unitok_engine.transfer import send


@dataclass(frozen=True, eq=False)
class RowGroup:
    """Rows of a step that attend in one call.

    Attributes:
        tokens: Where their tokens lie among the step's.
        query_lengths: One per row, as in `AttentionMetadata`, and so the other two.
        context_lengths: One per row.
        block_tables: One per row.
    """

    tokens: slice
    query_lengths: tuple[int, ...]
    context_lengths: tuple[int, ...]
    block_tables: tuple[Sequence[int], ...]


@dataclass(frozen=True, eq=False)
class AttentionMetadata:
    """One step's rows as attention needs them, filled in by `batch.py`.

    A row is a run of tokens of one branch, and its context is the branch up to the end of that run.
    Rows are ordered by their length, so that rows of one length are one slice.

    Attributes:
        slot_mapping: [n] int64, where each token's K/V goes: block * block_size + offset. It lies
            on the backend's device when a view is made.
        query_lengths: Tokens of each row, never decreasing; their sum is n.
        context_lengths: Tokens each row's last token sees, itself included.
        block_tables: The blocks of each row's context, in order; more blocks may follow.
    """

    slot_mapping: Tensor
    query_lengths: tuple[int, ...]
    context_lengths: tuple[int, ...]
    block_tables: tuple[Sequence[int], ...]

    def to(self, device: torch.device) -> "AttentionMetadata":
        """The same with the slot mapping on a device; on CUDA the transfer is only queued."""
        return replace(self, slot_mapping=send(self.slot_mapping, device))

    def groups(self, longest: int | None = None) -> list[RowGroup]:
        """The rows as groups of one query length each, in order.

        Args:
            longest: Rows of more tokens than this form one group together, whatever their lengths.
        """
        groups: list[RowGroup] = []
        first = start = 0
        lengths, count = self.query_lengths, len(self.query_lengths)
        while first < count:
            queries = lengths[first]
            together = longest is not None and queries > longest
            last = count if together else bisect_right(lengths, queries, first)
            rows = slice(first, last)
            stop = start + sum(lengths[rows])
            contexts, tables = self.context_lengths[rows], self.block_tables[rows]
            groups.append(RowGroup(slice(start, stop), lengths[rows], contexts, tables))
            first, start = last, stop
        return groups


class CacheView(Protocol):
    """What a model's attention layers see of the keys and values during one step."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store this step's keys and values, then attend causally within each branch.

        The model calls it once per layer. Each token sees its own branch up to itself. The inputs
        are flat over the step's tokens and already rotated.

        Args:
            layer: The layer, from 0.
            q: [n, heads, head_dim]; heads are a multiple of kv_heads.
            k: [n, kv_heads, head_dim].
            v: [n, kv_heads, head_dim].

        Returns:
            [n, heads, head_dim].
        """
        ...


class AttentionBackend(Protocol):
    """Paged keys and values of all layers, and causal attention over them.

    Paging follows PagedAttention (https://arxiv.org/abs/2309.06180). A backend belongs to one
    engine, and only the thread that steps that engine may call it.
    """

    @property
    def device(self) -> torch.device:
        """Where the keys and values are."""
        ...

    @property
    def layout(self) -> KVLayout:
        """How the keys and values lie in memory."""
        ...

    @staticmethod
    def preferred_block_size(dtype: torch.dtype, device: torch.device) -> int:
        """Tokens per block that suit this backend best; may be asked before there is one."""
        ...

    def view(self, metadata: AttentionMetadata) -> CacheView:
        """Prepare one step's attention, once for all layers.

        The view is valid until the next call of `view`, `copy`, `clear` or `reset`.
        """
        ...

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks (copy-on-write), each pair from source to target, before a step's view.

        All sources are read before any target is written.
        """
        ...

    def clear(self, blocks: Sequence[int]) -> None:
        """Zero blocks that a step is about to write for the first time, before its view."""
        ...

    def reset(self) -> None:
        """Drop what is kept from one step for the next, after a step that broke off.

        The keys and values themselves stay.
        """
        ...


@dataclass(frozen=True)
class StaticShape:
    """A shape of decode steps.

    Attributes:
        rows: Rows of a step.
        width: Tokens of each row.
        context: The longest context of a row.
    """

    rows: int
    width: int
    context: int

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return self.rows * self.width


class StaticView(CacheView, Protocol):
    """A view of decode rows of a fixed shape, in tensors that stay in place from step to step.

    Before each step, fill the slot mapping it was made with, `contexts` and the block tables.

    Attributes:
        contexts: [rows] int32 on the device, how many tokens each row sees.
    """

    contexts: Tensor

    def fill_tables(self, tables: Sequence[Sequence[int]]) -> None:
        """Set the block table of each row; on CUDA the transfer is only queued."""
        ...


@runtime_checkable
class StaticBackend(AttentionBackend, Protocol):
    """A backend whose decode steps can be recorded, because it has static views.

    Attributes:
        scratch_block: A block that no branch has: padding rows write to it and read it.
    """

    scratch_block: int

    def static_shape(self, rows: int, width: int, context: int) -> StaticShape | None:
        """The shape of the static view that serves so many decode rows of up to so many tokens.

        Shorter rows get tokens at their end up to the shape's width. The context is the longest one
        with such tokens up to `width`.

        Returns:
            A shape that is no smaller; None if there is no view of rows that wide.
        """
        ...

    def static_view(self, slot_mapping: Tensor, shape: StaticShape) -> StaticView:
        """A view of decode rows.

        Args:
            slot_mapping: [rows * width] int64 on the device; it is read anew in every step.
            shape: As `static_shape` gives it.
        """
        ...
