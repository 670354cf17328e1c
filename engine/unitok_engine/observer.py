"""What each step ran, for those who watch an engine."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepRecord:
    """One forward of the model.

    query_lengths, context_lengths: of its rows, which are runs of ids of one branch; a context
    includes the run itself. sequences: how many they belong to. prefill_ids: those among the ids
    that belong to sequences which have not emitted any since they were admitted. emitted: sequences
    that got their next id. copied_blocks: K/V blocks that were copied first, for branches that begin
    as others do.
    """

    query_lengths: tuple[int, ...]
    context_lengths: tuple[int, ...]
    sequences: int
    prefill_ids: int
    emitted: int
    copied_blocks: int

    @property
    def rows(self) -> int:
        return len(self.query_lengths)

    @property
    def ids(self) -> int:
        return sum(self.query_lengths)


class Observer(Protocol):
    def stepped(self, record: StepRecord, /) -> None:
        """Called after each forward, in the thread that steps. What it raises, the step raises."""
        ...
