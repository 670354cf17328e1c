"""Guesses the tokens of pictures from what lies to the left and above."""

from collections.abc import Iterable, Sequence
from itertools import islice

from unitok_engine.draft_table import DraftTable
from unitok_engine.draft_width import DraftWidth
from unitok_engine.drafter import agreeing
from unitok_engine.plans import GridPlan
from unitok_engine.request import Request

PROBE_EVERY = 4  # tokens of a picture, where steps are too narrow for guesses


class GridDrafter:
    """Drafts the pictures that follow a `GridPlan`, and learns from them.

    Other plans have no drafts. Nor has a request of one branch: alone in a step, it is a single row
    of the model's products, which may round otherwise than several rows do.

    Args:
        table: What is known of the model's pictures; it goes on learning. None knows nothing yet.
        width: Decides on the width of steps.
    """

    def __init__(self, table: DraftTable | None = None, width: DraftWidth | None = None) -> None:
        self.table = DraftTable() if table is None else table
        self._width = width or DraftWidth()

    def begin(self, request: Request) -> "PictureDrafter | None":
        """See `Drafter.begin`."""
        plan = request.plan
        if not isinstance(plan, GridPlan) or len(request.branches) < 2:
            return None
        if request.sampling.repetition_penalty != 1:  # such a sequence takes no drafts
            return None
        return PictureDrafter(plan, self.table, self._width)

    def width(self, drafted: int, others: int) -> int:
        """See `Drafter.width`."""
        return self._width.choose(drafted, others)


class PictureDrafter:
    """Guesses the tokens of one picture.

    A cell's guess is what a step sampled there before, if the guesses to the left and above are
    still those of that step (a fixed-point iteration, https://arxiv.org/abs/2305.10427); else what
    the table has between these neighbours; else the picture's most frequent token.

    Args:
        plan: The picture's.
        table: Is asked, and learns what is emitted.
        width: Is told how guesses turned out.
    """

    def __init__(self, plan: GridPlan, table: DraftTable, width: DraftWidth) -> None:
        self._plan, self._table, self._width = plan, table, width
        self._columns, self._size = plan.columns, plan.rows * plan.columns
        self._cells: list[int] = []  # those of what is emitted, as far as it was looked at
        self._looked_at = 0
        self._counts: dict[int, int] = {}
        self._usual: int | None = None  # the most frequent one
        self._memory: dict[int, tuple[int | None, int | None, int]] = {}  # cell: neighbours, token
        self._guesses: list[int] = []

    def propose(self, emitted: Sequence[int], most: int) -> list[int]:
        """See `SampleDrafter.propose`.

        Where no guess may run, one is made now and then all the same, to see how good it is.
        """
        if most <= 0 and len(emitted) % PROBE_EVERY:
            return []
        self._look_at(emitted)
        cells, start, usual = self._cells, len(self._cells), self._usual
        self._guesses = []
        if usual is not None:
            for cell in self._places(start, max(most, 1)):
                self._fill(cell)
                known = self._known(cell)
                cells.append(usual if known is None else known)
                self._guesses.append(cells[-1])
        del cells[start:]
        return self._guesses[: max(most, 0)]

    def sampled(
        self, emitted: Sequence[int], guesses: Sequence[int], tokens: Sequence[int]
    ) -> None:
        """See `SampleDrafter.sampled`."""
        self._note(tokens)
        self._look_at(emitted)
        cells, start = self._cells, len(self._cells)
        right = agreeing(guesses, tokens)
        places = self._places(start, len(tokens))
        for number, (cell, token) in enumerate(zip(places, tokens, strict=True)):
            self._fill(cell)
            left, above = self._neighbours(cell)
            if number <= right:
                self._table.learn(left, above, token)
            else:
                self._memory[cell] = (left, above, token)
            cells += guesses[number : number + 1]
        del cells[start:]

    def _look_at(self, emitted: Sequence[int]) -> None:
        """Note the cells of what was emitted since it was last looked at."""
        if len(emitted) == self._looked_at:
            return
        if len(emitted) < self._looked_at:  # a step broke off, and some of it is sampled again
            self._cells, self._looked_at, self._counts = [], 0, {}
        counts = self._counts
        for id in self._plan.image_ids(emitted, self._looked_at):
            self._cells.append(id)
            counts[id] = counts.get(id, 0) + 1
            if self._usual is None or counts[id] > counts.get(self._usual, 0):
                self._usual = id
        self._looked_at = len(emitted)

    def _note(self, tokens: Sequence[int]) -> None:
        """Tell the width how the guesses turned out whose places were sampled in this step."""
        if not self._guesses:
            return
        right = agreeing(self._guesses, tokens)
        self._width.note(min(right + 1, len(self._guesses), len(tokens)), right)
        self._guesses = []

    def _places(self, start: int, count: int) -> Iterable[int]:
        """The next cells that are not known, as many as asked for, or as there are."""
        if not self._plan.known:
            return range(start, min(start + count, self._size))
        free = (cell for cell in range(start, self._size) if self._plan.known_in(cell) is None)
        return list(islice(free, count))

    def _fill(self, stop: int) -> None:
        """Add the known cells that lie before another one."""
        if self._plan.known:
            here = self._plan.known[len(self._cells) : stop]
            self._cells += [id for id in here if id is not None]

    def _known(self, cell: int) -> int | None:
        """What memory or the table has for a cell, all before it being known."""
        left, above = self._neighbours(cell)
        old = self._memory.get(cell)
        if old is not None and old[0] == left and old[1] == above:
            return old[2]
        return self._table.get(left, above)

    def _neighbours(self, cell: int) -> tuple[int | None, int | None]:
        """The tokens to the left of a cell and above it; None at the picture's edge."""
        cells, columns = self._cells, self._columns
        left = cells[cell - 1] if cell % columns else None
        return left, cells[cell - columns] if cell >= columns else None
