"""Plans: what a request may emit, token by token.

A plan is a small deterministic state machine over the tokens emitted so far. It allows a range of
ids, forces one id, or stops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from unitok_engine.ids import IdRange

# "timeout" is for those who abort a request because of its time.
FinishReason = Literal["stop", "length", "complete", "abort", "error", "timeout"]


@dataclass(frozen=True, eq=False)
class Allow:
    """The next token is sampled from a range of ids.

    Attributes:
        id_range: The ids, which one head of the model must have.
        mask: Bool [id_range.size], True where allowed; None allows the whole range.
        given: A token that is taken without sampling, so that its log-probability is told. Tokens
            that are given one after another run in one step. None samples.
    """

    id_range: IdRange
    mask: Tensor | None = None
    given: int | None = None

    def __post_init__(self) -> None:
        if self.given is not None and self.given not in self.id_range:
            raise ValueError(f"the given id {self.given} lies outside the id range")
        if self.mask is None:
            return
        if self.mask.shape != (self.id_range.size,):
            raise ValueError(f"mask must be [{self.id_range.size}], not {list(self.mask.shape)}")
        if self.mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool, not {self.mask.dtype}")
        if not self.mask.any():
            raise ValueError("mask allows no id at all")

    def allows(self, id: int) -> bool:
        """Whether the next token may be this one."""
        if self.given is not None:
            return id == self.given
        if self.mask is None or id not in self.id_range:
            return id in self.id_range
        return bool(self._host_mask[id - self.id_range.start])

    @cached_property
    def _host_mask(self) -> Tensor:  # the mask, where reading one element waits for no device
        assert self.mask is not None
        return self.mask.cpu()


@dataclass(frozen=True)
class Force:
    """The next token is this one; nothing is sampled, and it takes no step of its own."""

    id: int


@dataclass(frozen=True)
class Stop:
    """The sequence ends.

    Attributes:
        reason: How it ended.
        drop: 1 if the last token (a stop token) is not part of the output, else 0. Those before it
            have been told already.
    """

    reason: FinishReason
    drop: int = 0

    def __post_init__(self) -> None:
        if self.reason not in get_args(FinishReason):
            raise ValueError(f"a sequence cannot end with the reason {self.reason!r}")
        if self.drop not in (0, 1):
            raise ValueError(f"only the last token can be dropped, not the last {self.drop}")


class Plan(Protocol):
    """What a request may emit: a deterministic function of the tokens emitted so far.

    The engine calls `next` once per emitted token, with the whole list, which it must not change.
    After a step that broke off it asks again. With drafts it asks ahead, about tokens that may come
    to be emitted.
    """

    @property
    def max_length(self) -> int:
        """No more tokens than this are ever emitted, forced and dropped ones counted."""
        ...

    @property
    def exact(self) -> bool:
        """Whether exactly `max_length` tokens are emitted, so that room is reserved for all."""
        ...

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        """What may follow on the tokens emitted so far."""
        ...


@dataclass(frozen=True, eq=False)
class FreePlan:
    """Tokens from a range until a stop token ("stop", dropped) or `max_tokens` of them ("length").

    Attributes:
        id_range: The ids that may be sampled.
        stop_ids: Those of them that end the sequence.
        max_tokens: The most tokens that are emitted, a stop token included.
        mask: Bool [id_range.size], True where allowed; None allows the whole range.
    """

    id_range: IdRange
    stop_ids: frozenset[int]
    max_tokens: int
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if index(self.max_tokens) < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")
        outside = [id for id in self.stop_ids if id not in self.id_range]
        if outside:
            raise ValueError(f"stop id {outside[0]} lies outside the plan's id range")
        _ = self.allow  # which checks the mask

    @cached_property
    def allow(self) -> Allow:
        """What every step allows."""
        return Allow(self.id_range, self.mask)

    @property
    def max_length(self) -> int:
        """See `Plan.max_length`."""
        return self.max_tokens

    @property
    def exact(self) -> bool:
        """See `Plan.exact`."""
        return False

    def next(self, emitted: Sequence[int]) -> Allow | Stop:
        """See `Plan.next`."""
        if emitted and emitted[-1] in self.stop_ids:
            return Stop("stop", drop=1)
        if len(emitted) >= self.max_tokens:
            return Stop("length")
        return self.allow


@dataclass(frozen=True)
class FixedPlan:
    """Exactly `length` tokens from a range ("complete")."""

    id_range: IdRange
    length: int

    def __post_init__(self) -> None:
        if index(self.length) < 1:
            raise ValueError(f"length must be at least 1, not {self.length}")

    @property
    def max_length(self) -> int:
        """See `Plan.max_length`."""
        return self.length

    @property
    def exact(self) -> bool:
        """See `Plan.exact`."""
        return True

    def next(self, emitted: Sequence[int]) -> Allow | Stop:
        """See `Plan.next`."""
        return Stop("complete") if len(emitted) >= self.length else self._allow

    @cached_property
    def _allow(self) -> Allow:  # one for all: it is asked for at every step
        return Allow(self.id_range)


@dataclass(frozen=True)
class GridPlan:
    """A picture: rows of image ids, row by row ("complete").

    Attributes:
        id_range: The image ids.
        rows: How many rows there are.
        columns: How many image ids are in a row.
        row_end: The token that is forced behind each row; None if rows follow on each other.
        closing: The tokens that are forced behind the last row.
        known: The image id of each cell, row by row, and None where it is sampled; () samples all.
            Known cells are forced.
        scored: Whether the known cells behind the first that is sampled have log-probabilities:
            they tell how well what was sampled goes with them.
    """

    id_range: IdRange
    rows: int
    columns: int
    row_end: int | None = None
    closing: tuple[int, ...] = ()
    known: tuple[int | None, ...] = ()
    scored: bool = False

    def __post_init__(self) -> None:
        if index(self.rows) < 1 or index(self.columns) < 1:
            raise ValueError(f"a grid needs rows and columns, not {self.rows} x {self.columns}")
        if self.known and len(self.known) != self.cells:
            raise ValueError(f"{len(self.known)} known cells are not one for each of {self.cells}")
        outside = [id for id in self.known if id is not None and id not in self.id_range]
        if outside:
            raise ValueError(f"known id {outside[0]} lies outside the plan's id range")

    @property
    def cells(self) -> int:
        """How many image ids a picture has."""
        return self.rows * self.columns

    @property
    def max_length(self) -> int:
        """See `Plan.max_length`."""
        return self._grid_length + len(self.closing)

    @property
    def exact(self) -> bool:
        """See `Plan.exact`."""
        return True

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        """See `Plan.next`."""
        behind = len(emitted) - self._grid_length
        if behind >= len(self.closing):
            return Stop("complete")
        if behind >= 0:
            return Force(self.closing[behind])
        if self.row_end is not None and len(emitted) % self.row_length == self.columns:
            return Force(self.row_end)
        return self._in_cell(len(emitted)) if self.known else self._allow

    def known_in(self, cell: int) -> int | None:
        """The image id of a cell, if it is known."""
        return self.known[cell] if self.known else None

    def is_known(self, place: int) -> bool:
        """Whether the token at a place of what is emitted is a cell's that is known."""
        row, column = divmod(place, self.row_length)
        inside = row < self.rows and column < self.columns
        return inside and self.known_in(row * self.columns + column) is not None

    def is_forced(self, cell: int) -> bool:
        """Whether a cell's image id is forced, so that the model says nothing of it."""
        return self.known_in(cell) is not None and not (self.scored and cell > self._first_free)

    @property
    def goes_on(self) -> bool:
        """Whether any cell that is known lies behind one that is sampled."""
        return any(id is not None for id in self.known[self._first_free :])

    def image_ids(self, emitted: Sequence[int], start: int = 0) -> list[int]:
        """The image ids of a picture, row by row.

        Args:
            emitted: What the plan emitted.
            start: The index of the first token that is looked at.
        """
        if self.row_end is None:
            return list(emitted[start : self._grid_length])
        stop, length, columns = self._grid_length, self.row_length, self.columns
        return [emitted[i] for i in range(start, min(len(emitted), stop)) if i % length < columns]

    def finished_rows(self, length: int) -> int:
        """How many rows of image ids are complete once so many tokens are emitted."""
        behind_a_row = self.row_length - self.columns
        return min((length + behind_a_row) // self.row_length, self.rows)

    def _in_cell(self, place: int) -> Allow | Force:
        """What may be emitted at a place that is a cell's."""
        row, column = divmod(place, self.row_length)
        cell = row * self.columns + column
        id = self.known[cell]
        if id is None:
            return self._allow
        return Force(id) if self.is_forced(cell) else Allow(self.id_range, given=id)

    @cached_property
    def _first_free(self) -> int:
        """The first cell that is sampled; if none is, behind all of them."""
        return self.known.index(None) if None in self.known else self.cells

    @property
    def row_length(self) -> int:
        """Tokens of a row and its end."""
        return self.columns + (self.row_end is not None)

    @cached_property
    def _grid_length(self) -> int:
        """Tokens of all rows and their ends."""
        return self.rows * self.row_length

    @cached_property
    def _allow(self) -> Allow:  # one for all: it is asked for at every step
        return Allow(self.id_range)
