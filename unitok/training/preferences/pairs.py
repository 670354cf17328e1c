"""A pair of answers to the same prompt, as the sequences of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from unitok.training.data.conversations import Conversation
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.sequences import TrainingSequence


@dataclass(frozen=True)
class AnswerPair:
    """Two answers, of which one is better.

    The log-probability of an answer is the sum of those of all its targets. An answer of a text and
    a picture has a sequence for each, which do not see each other.

    Attributes:
        chosen: The sequences of the better one.
        rejected: Those of the other.
    """

    chosen: tuple[TrainingSequence, ...]
    rejected: tuple[TrainingSequence, ...]

    @property
    def sequences(self) -> tuple[TrainingSequence, ...]:
        """Those of the better answer, and then those of the other."""
        return (*self.chosen, *self.rejected)

    @property
    def name(self) -> str:
        """Where the pair comes from."""
        return self.chosen[0].name

    @cached_property
    def _length(self) -> int:
        return sum(map(len, self.sequences))

    def __len__(self) -> int:
        """The number of ids."""
        return self._length


def make_pair(
    maker: SequenceMaker, conversation: Conversation, max_tokens: int
) -> AnswerPair | None:
    """Make the sequences of a pair.

    Args:
        maker: Makes those of an answer. It drops no prompt.
        conversation: One with an answer that is rejected.
        max_tokens: The most ids of both answers together, as they are computed at once.

    Returns:
        None if an answer was left out, as it is too long or wrong. The maker has counted it.

    Raises:
        DataError: An answer is wrong, and the maker raises.
    """
    left_out = maker.left_out
    sides: list[tuple[TrainingSequence, ...]] = []
    for side in conversation.sides:
        before = left_out.dropped
        sides.append(tuple(maker(side)))
        if left_out.dropped > before or not sides[-1]:
            return None
    pair = AnswerPair(sides[0], sides[1])
    if len(pair) <= max_tokens:
        return pair
    left_out.dropped += 1
    return None
