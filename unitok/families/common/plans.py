"""Plans of pictures that are a grid of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from unitok_engine import Allow, Force, IdRange, Stop


@dataclass(frozen=True)
class GridPlan:
    """Rows of token ids from a range, each closed by a forced id; then more forced ids.

    Attributes:
        id_range: The ids of the grid.
        rows: How many rows there are.
        columns: How many ids of the range a row has.
        row_end: What closes each row; None for nothing.
        closing: What follows the last row.
    """

    id_range: IdRange
    rows: int
    columns: int
    row_end: int | None = None
    closing: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"a grid needs rows and columns, not {self.rows} x {self.columns}")

    @property
    def max_length(self) -> int:
        """How many ids are emitted."""
        return self._grid_length + len(self.closing)

    @property
    def exact(self) -> bool:
        """Exactly `max_length` ids are emitted."""
        return True

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        """What may follow the ids that were emitted."""
        behind = len(emitted) - self._grid_length
        if behind >= len(self.closing):
            return Stop("complete")
        if behind >= 0:
            return Force(self.closing[behind])
        if self.row_end is not None and len(emitted) % self._row_length == self.columns:
            return Force(self.row_end)
        return self._allow

    def image_ids(self, emitted: Sequence[int]) -> list[int]:
        """What the plan emitted, row by row, without row ends and closing ids."""
        grid = emitted[: self._grid_length]
        starts = range(0, self._grid_length, self._row_length)
        return [id for start in starts for id in grid[start : start + self.columns]]

    @property
    def _row_length(self) -> int:
        return self.columns + (self.row_end is not None)

    @property
    def _grid_length(self) -> int:
        return self.rows * self._row_length

    @cached_property
    def _allow(self) -> Allow:  # one for all: it is asked for at every step
        return Allow(self.id_range)
