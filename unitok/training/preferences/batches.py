"""The batches of an update that learns from pairs of answers and from conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unitok.training.data.conversations import Conversation
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.packing import pack_rows
from unitok.training.preferences.pairs import AnswerPair, make_pair
from unitok.training.preferences.reference import Reference, Scores
from unitok.training.ranks import Ranks
from unitok.training.sequences import TrainingSequence
from unitok.training.updates import own_conversations, sequence_of_nothing

KINDS = ("pairs", "chosen", "text", "image")


@dataclass(frozen=True, eq=False)
class PreferenceBatch:
    """Pairs and conversations that are computed at once.

    Attributes:
        pairs: Pairs of answers.
        references: The log-probabilities of the answers of each by the weights at the start.
        plain: Sequences of conversations.
        weights: Of the loss of one pair ("pairs"), of one token of a chosen answer ("chosen"), and
            of one text and one image token of the conversations ("text", "image").
    """

    pairs: tuple[AnswerPair, ...]
    references: tuple[Scores, ...]
    plain: tuple[TrainingSequence, ...]
    weights: Mapping[str, float]

    @property
    def sequences(self) -> list[TrainingSequence]:
        """All sequences: the conversations, then the pairs one by one."""
        return [*self.plain, *(s for pair in self.pairs for s in pair.sequences)]

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many ids each sequence has."""
        return tuple(map(len, self.sequences))

    @property
    def names(self) -> tuple[str, ...]:
        """Where the conversations and the pairs come from."""
        return tuple(each.name for each in (*self.plain, *self.pairs))

    def __len__(self) -> int:
        """The number of ids."""
        return sum(self.lengths)

    def counts(self) -> dict[str, int]:
        """Of how many pairs and of how many tokens it is, by the names of the weights."""
        counted = dict.fromkeys(KINDS, 0) | {"pairs": len(self.pairs)}
        counted["chosen"] = sum(sum(s.targets) for pair in self.pairs for s in pair.chosen)
        for sequence in self.plain:
            counted[kind_of(sequence)] += sum(sequence.targets)
        return counted


def kind_of(sequence: TrainingSequence) -> str:
    """What the targets of a sequence of a conversation are, "text" or "image"."""
    return "image" if sequence.painted else "text"


class PreferenceBatchMaker:
    """Makes this rank's batches of conversations and pairs that all ranks learn together."""

    def __init__(
        self,
        maker: SequenceMaker,
        ranks: Ranks,
        reference: Reference,
        max_tokens: int,
        weights: Mapping[str, float],
    ) -> None:
        """Keep the parts.

        Args:
            maker: Makes sequences.
            ranks: Who shares the work.
            reference: Knows how likely answers were at the start.
            max_tokens: The most tokens of a batch.
            weights: Of the mean loss of an update, by the names of `PreferenceBatch.weights`.
        """
        self.maker, self.ranks, self.reference = maker, ranks, reference
        self.max_tokens, self.weights = max_tokens, weights

    def batches(self, conversations: Sequence[Conversation]) -> list[PreferenceBatch]:
        """This rank's batches, as many as every rank's; none if there is nothing to learn.

        Raises:
            DataError: A conversation is wrong, and the maker raises.
        """
        made = list(self._packed(own_conversations(self.maker, self.ranks, conversations)))
        counted = [batch.counts() for batch in made]
        here = [sum(counts[kind] for counts in counted) for kind in KINDS]
        everywhere = self.ranks.gather([*here, len(made)])
        totals = [sum(column) for column in zip(*everywhere, strict=True)][:-1]
        weights = {k: self.weights[k] / max(1, n) for k, n in zip(KINDS, totals, strict=True)}
        idle = int(max(row[-1] for row in everywhere)) - len(made)
        nothing = sequence_of_nothing(self.maker.family)
        empty = PreferenceBatch((), (), (nothing,), dict.fromkeys(KINDS, 0.0))
        weighted = [PreferenceBatch(b.pairs, b.references, b.plain, weights) for b in made]
        return weighted + [empty] * idle

    def _packed(self, conversations: Sequence[Conversation]) -> list[PreferenceBatch]:
        """Batches without weights."""
        plain = [s for c in conversations if c.rejected is None for s in self.maker(c)]
        maker, most = self.maker.without_dropout(), self.max_tokens
        made = (make_pair(maker, c, most) for c in conversations if c.rejected is not None)
        pairs = [pair for pair in made if pair is not None]
        scores = dict(zip(map(id, pairs), self.reference(pairs), strict=True))
        found: list[PreferenceBatch] = []
        for row in pack_rows([*plain, *pairs], most):
            own = tuple(each for each in row if isinstance(each, AnswerPair))
            rest = tuple(each for each in row if isinstance(each, TrainingSequence))
            found.append(PreferenceBatch(own, tuple(scores[id(pair)] for pair in own), rest, {}))
        return found
