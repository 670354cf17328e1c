"""After steps that raised: how much a step may run, and whose fault it seems to be."""

from collections.abc import Iterable
from collections.abc import Sequence as Seq

from unitok_engine.scheduler import Chunk, rows_of
from unitok_engine.sequence import Sequence

_PATIENCE = 256  # steps that pass before more is tried


class Caution:
    """Halves what a step runs as long as steps raise, until it is one sequence's smallest step.

    Those that took part in such a step are suspects, the last ones first, until they emit a token.
    So it takes few steps to find a sequence that makes each of its steps raise, and one that is
    merely large gets through in small parts.

    Args:
        most: Tokens that a step hardly exceeds; a limit so high is none.
    """

    def __init__(self, most: int) -> None:
        self.limit: int | None = None
        self._most = most
        self._passed = 0  # steps under this limit
        self._suspects: dict[Sequence, bool] = {}  # whether its smallest step has raised
        self._blamed = False  # the last failure was a sequence's own: it was no matter of size

    @property
    def suspects(self) -> list[Sequence]:
        """Those to be tried before all others."""
        return [sequence for sequence in self._suspects if not sequence.finished]

    def failed(self, chunks: Seq[Chunk]) -> Sequence | None:
        """Note a step that raised.

        Returns:
            The sequence to blame, once its smallest step raised twice; else None.
        """
        sequences = dict.fromkeys(chunk.sequence for chunk in chunks)
        if not sequences:
            return None
        rows = rows_of(chunks)
        self.limit, self._passed = max(rows // 2, 1), 0
        first = next(iter(sequences))
        alone = len(sequences) == 1 and rows <= len(first.branches)
        guilty = alone and self._suspects.get(first, False)
        earlier = {s: raised for s, raised in self._suspects.items() if not s.finished}
        tried = {s: earlier.pop(s, False) or alone for s in sequences}
        self._suspects = tried | earlier
        self._blamed = guilty
        return first if guilty else None

    def passed(self, emitted: Iterable[Sequence]) -> None:
        """Note a step that went well, and the sequences that emitted a token in it."""
        if self.limit is None:
            return
        for sequence in emitted:
            self._suspects.pop(sequence, None)
        self._passed += 1
        if self._passed >= (1 if self._blamed else _PATIENCE):
            self.limit, self._passed = 2 * self.limit, 0
            if self.limit >= self._most:
                self.limit, self._suspects = None, {}
