"""Looks through a data set: what is wrong, how much there is, and how long the sequences are."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from unitok.training.data.conversations import Conversation, DataError
from unitok.training.data.order import hashed
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.data.sources import Source
from unitok.training.sequences import TrainingSequence

MOST_ERRORS = 20  # that are kept, with the places of what is too long; all are counted
FIRST_BIN = 16  # tokens of the shortest sequences in a histogram


@dataclass
class DataReport:
    """What is in a data set.

    Attributes:
        conversations: Those that are right.
        pairs: Those of them that have two answers, of which one is better.
        turns: In them.
        pictures_read: Pictures of users.
        pictures_painted: Pictures of the assistant.
        text_tokens: Text tokens that are learned.
        image_tokens: Image tokens that are learned.
        too_long: Answers and painted pictures that do not fit, or not as a whole.
        wrong: How many records are wrong.
        errors: What is wrong with the first of them.
        long: The names of the first conversations that are too long.
        lengths: How many sequences there are of each length in tokens.
    """

    conversations: int = 0
    pairs: int = 0
    turns: int = 0
    pictures_read: int = 0
    pictures_painted: int = 0
    text_tokens: int = 0
    image_tokens: int = 0
    too_long: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    long: list[str] = field(default_factory=list)
    lengths: Counter[int] = field(default_factory=Counter)

    @property
    def sequences(self) -> int:
        """How many sequences there are."""
        return self.lengths.total()

    def add(self, conversation: Conversation, sequences: Sequence[TrainingSequence]) -> None:
        """Count a conversation that is right."""
        self.conversations += 1
        self.turns += len(conversation.turns)
        rejected = conversation.rejected
        self.pairs += rejected is not None
        for turn in (*conversation.turns, *([rejected] if rejected else [])):
            count = len(turn.pictures)
            self.pictures_read += count if turn.role == "user" else 0
            self.pictures_painted += count if turn.role == "assistant" else 0
        for sequence in sequences:
            self.lengths[len(sequence)] += 1
            targets = sum(sequence.targets)
            self.image_tokens += targets if sequence.painted else 0
            self.text_tokens += 0 if sequence.painted else targets

    def add_error(self, error: DataError) -> None:
        """Count a record that is wrong."""
        self.wrong += 1
        if len(self.errors) < MOST_ERRORS:
            self.errors.append(str(error))

    def add_long(self, name: str, count: int) -> None:
        """Count what is too long in a conversation."""
        self.too_long += count
        if count and len(self.long) < MOST_ERRORS:
            self.long.append(name)

    def quantile(self, share: float) -> int:
        """The length that this share of the sequences does not exceed; 0 if there are none."""
        left = ceil(share * self.sequences)
        for length in sorted(self.lengths):
            left -= self.lengths[length]
            if left <= 0:
                return length
        return 0

    def histogram(self) -> list[tuple[int, int]]:
        """The longest length of each bin, and how many sequences are in it.

        Each bin is twice as wide as the one before.
        """
        bins: Counter[int] = Counter()
        for length, count in self.lengths.items():
            bins[max(FIRST_BIN, 1 << (length - 1).bit_length())] += count
        if not bins:
            return []
        widths = range(min(bins).bit_length() - 1, max(bins).bit_length())
        return [(1 << width, bins[1 << width]) for width in widths]

    def to_json(self) -> dict[str, Any]:
        """What programs are told."""
        names = ("conversations", "pairs", "turns", "pictures_read", "pictures_painted")
        names += ("text_tokens", "image_tokens", "sequences", "too_long", "wrong", "errors")
        lengths = {
            "median": self.quantile(0.5),
            "longest": self.quantile(1),
            "total": sum(length * count for length, count in self.lengths.items()),
            "histogram": [{"up_to": bound, "count": count} for bound, count in self.histogram()],
        }
        return {name: getattr(self, name) for name in names} | {"lengths": lengths}


class Samples:
    """Some conversations of a data set, chosen by a hash of their names alone.

    Attributes:
        most: How many are kept.
    """

    def __init__(self, most: int) -> None:
        """Keep none yet."""
        self.most = most
        self._heap: list[tuple[int, int, Conversation]] = []
        self._count = 0

    def add(self, conversation: Conversation) -> None:
        """Look at a conversation, and keep it perhaps."""
        self._count += 1
        rank = hashed("sample", conversation.name, self._count)
        entry = (-rank, -self._count, conversation)
        if len(self._heap) < self.most:
            heapq.heappush(self._heap, entry)
        elif self._heap:
            heapq.heappushpop(self._heap, entry)

    @property
    def conversations(self) -> list[Conversation]:
        """Those that were kept, in the order of the data set."""
        return [c for _, _, c in sorted(self._heap, key=lambda entry: -entry[1])]


def check_source(
    source: Source, maker: SequenceMaker, report: DataReport, samples: Samples
) -> Iterator[None]:
    """Look through a data set. All its pictures are opened.

    Args:
        source: The data set.
        maker: Makes its sequences, and raises if something is wrong.
        report: Is filled.
        samples: Are chosen of the conversations that are right.

    Yields:
        After each record.
    """
    for reference in source.references(None):
        try:
            _check_one(source.conversation(reference), maker, report, samples)
        except DataError as error:
            report.add_error(error)
        yield


def _check_one(
    conversation: Conversation, maker: SequenceMaker, report: DataReport, samples: Samples
) -> None:
    """Look at a conversation; DataError if it is wrong."""
    left_out = maker.left_out
    before = left_out.dropped + left_out.cut
    sequences = [sequence for side in conversation.sides for sequence in maker(side)]
    report.add(conversation, sequences)
    report.add_long(conversation.name, left_out.dropped + left_out.cut - before)
    samples.add(conversation)


def histogram_lines(bins: Iterable[tuple[int, int]], width: int = 40) -> Iterator[str]:
    """A histogram for a terminal.

    Args:
        bins: Of each bin, its longest length and how many there are.
        width: The characters of the longest bar.
    """
    known = list(bins)
    most = max((count for _, count in known), default=0)
    for bound, count in known:
        bar = "█" * max(round(width * count / most), 1 if count else 0)
        yield f"{bound:>9,} | {bar}{' ' if bar else ''}{count:,}"
