"""Whether data sets hold a pair of answers, which a run that learns from pairs needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from unitok.training.data.conversations import Conversation, DataError
from unitok.training.data.sources import Source


def check_pairs(sources: Sequence[Source]) -> None:
    """Check that there is a pair of answers. The data sets are read in turns, up to the first one.

    A record that is wrong is passed over. Learning meets it, and says so.

    Args:
        sources: The data sets of a run.

    Raises:
        ValueError: None of them holds a pair.
    """
    if not any(conversation.rejected is not None for conversation in _in_turns(sources)):
        names = ", ".join(source.name for source in sources)
        raise ValueError(
            f"{names}: [dpo] learns from pairs of answers, and there is none: give lines with "
            '"chosen" and "rejected", as `unitok data pairs` makes them, or leave [dpo] out'
        )


def _in_turns(sources: Sequence[Source]) -> Iterator[Conversation]:
    """The conversations of all data sets, one of each after the other."""
    left = [_readable(source) for source in sources]
    while left:
        for conversations in tuple(left):
            if (conversation := next(conversations, None)) is None:
                left.remove(conversations)
            else:
                yield conversation


def _readable(source: Source) -> Iterator[Conversation]:
    """The conversations of a data set that can be read, in the order in which they are stored."""
    for reference in source.references(None):
        with suppress(DataError):
            yield source.conversation(reference)
