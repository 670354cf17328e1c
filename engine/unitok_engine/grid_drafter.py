"""Guesses the tokens of pictures from what lies to the left and above."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice, takewhile

from unitok_engine.draft_table import DraftTable
from unitok_engine.draft_width import DraftWidth
from unitok_engine.plans import GridPlan
from unitok_engine.request import Request


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
        self._memory: dict[int, tuple[int | None, int | None, int]] = {}  # cell: neighbours, token
        self._guesses: list[int] = []

    def propose(self, emitted: Sequence[int], most: int) -> list[int]:
        """See `SampleDrafter.propose`: at least one guess is made, to see how good it is."""
        cells = self._plan.image_ids(emitted)
        usual = Counter(cells).most_common(1)
        self._guesses = []
        for cell in self._places(len(cells), max(most, 1) if usual else 0):
            self._fill(cells, cell)
            guess = self._guess(cells, cell)
            cells.append(usual[0][0] if guess is None else guess)
            self._guesses.append(cells[-1])
        return self._guesses[: max(most, 0)]

    def sampled(
        self, emitted: Sequence[int], guesses: Sequence[int], tokens: Sequence[int]
    ) -> None:
        """See `SampleDrafter.sampled`."""
        self._note(tokens)
        cells = self._plan.image_ids(emitted)
        places = self._places(len(cells), len(tokens))
        right = _agreeing(guesses, tokens)
        for number, (cell, token) in enumerate(zip(places, tokens, strict=True)):
            self._fill(cells, cell)
            left, above = self._neighbours(cells, cell)
            if number <= right:
                self._table.learn(left, above, token)
            self._memory[cell] = (left, above, token)
            cells += guesses[number : number + 1]

    def _note(self, tokens: Sequence[int]) -> None:
        """Tell the width how the guesses turned out whose places were sampled in this step."""
        right = _agreeing(self._guesses, tokens)
        self._width.note(min(right + 1, len(self._guesses), len(tokens)), right)
        self._guesses = []

    def _places(self, start: int, count: int) -> list[int]:
        """The next cells that are not forced, as many as asked for, or as there are."""
        free = (cell for cell in range(start, self._plan.cells) if not self._plan.is_forced(cell))
        return list(islice(free, count))

    def _fill(self, cells: list[int], stop: int) -> None:
        """Add the forced cells that lie before another one."""
        cells += [id for id in self._plan.known[len(cells) : stop] if id is not None]

    def _guess(self, cells: Sequence[int], cell: int) -> int | None:
        if (known := self._plan.known_in(cell)) is not None:
            return known
        left, above = self._neighbours(cells, cell)
        old_left, old_above, token = self._memory.get(cell, (None, None, None))
        fresh = token is not None and (left, above) == (old_left, old_above)
        return token if fresh else self._table.get(left, above)

    def _neighbours(self, cells: Sequence[int], cell: int) -> tuple[int | None, int | None]:
        """The tokens to the left of a cell and above it; None at the picture's edge."""
        columns = self._plan.columns
        left = cells[cell - 1] if cell % columns else None
        return left, cells[cell - columns] if cell >= columns else None


def _agreeing(guesses: Sequence[int], tokens: Sequence[int]) -> int:
    """How many guesses are what was sampled, up to the first that is not."""
    pairs = zip(guesses, tokens, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
