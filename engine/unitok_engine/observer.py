"""What each step ran, for those who watch an engine."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepRecord:
    """One forward of the model.

    Attributes:
        query_lengths: Of its rows, which are runs of tokens of one branch.
        context_lengths: Of its rows; a context includes the run itself.
        sequences: How many sequences the rows belong to.
        prefill_tokens: Tokens of sequences that emitted none since they were admitted.
        emitted: How many sequences emitted a token.
        copied_blocks: K/V blocks that were copied first, for branches that begin as others do.
    """

    query_lengths: tuple[int, ...]
    context_lengths: tuple[int, ...]
    sequences: int
    prefill_tokens: int
    emitted: int
    copied_blocks: int

    @property
    def rows(self) -> int:
        """How many rows ran."""
        return len(self.query_lengths)

    @property
    def tokens(self) -> int:
        """How many tokens ran."""
        return sum(self.query_lengths)


class Observer(Protocol):
    """Watches an engine."""

    def stepped(self, record: StepRecord, /) -> None:
        """Called after each forward, in the thread that steps. What it raises, the step raises."""
        ...
