"""The batches of each update of a fine-tuning run, made of a stream of conversations.

All ranks read the same stream. Each makes sequences of its own share of an update's conversations,
and they tell each other only how many targets and batches they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Generic, Protocol

from unitok.families import Family
from unitok.training.data.conversations import Conversation, DataError
from unitok.training.data.sequence_maker import SequenceMaker
from unitok.training.data.shares import balanced_shares
from unitok.training.data.stream import ConversationStream
from unitok.training.packing import PackedBatch, pack, pack_rows
from unitok.training.ranks import Ranks
from unitok.training.sequences import TrainingSequence
from unitok.training.targets import text_range_of
from unitok.training.trainer import Batch, BatchOut
from unitok.vocabulary import Vocabulary
from unitok_engine import Branch

KINDS = ("text", "image")


class BatchMaker:
    """Makes this rank's batches of conversations that all ranks learn together."""

    def __init__(
        self,
        maker: SequenceMaker,
        ranks: Ranks,
        vocabulary: Vocabulary,
        max_tokens: int,
        weights: Mapping[str, float],
    ) -> None:
        """Keep the parts.

        Args:
            maker: Makes sequences of a conversation.
            ranks: Who shares the work.
            vocabulary: Tells text and image tokens apart.
            max_tokens: The most tokens of a batch.
            weights: Of the mean loss of a "text" and of an "image" token in an update.
        """
        self.maker, self.ranks, self.vocabulary = maker, ranks, vocabulary
        self.max_tokens, self.weights = max_tokens, weights
        self._nothing = sequence_of_nothing(maker.family)

    def batches(self, conversations: Sequence[Conversation]) -> list[PackedBatch]:
        """This rank's batches, as many as every rank's; none if there is nothing to learn.

        Raises:
            DataError: A conversation is wrong, and the maker raises; or it is a pair of answers.
        """
        check_no_pairs(conversations)
        own = own_conversations(self.maker, self.ranks, conversations)
        sequences = [s for each in own for s in self.maker(each)]
        packed = [pack(row, {}) for row in pack_rows(sequences, self.max_tokens)]
        counted = [batch.counts(self.vocabulary) for batch in packed]
        here = [sum(counts[kind] for counts in counted) for kind in KINDS]
        everywhere = self.ranks.gather([*here, len(packed)])
        totals = [sum(column) for column in zip(*everywhere, strict=True)]
        most = int(max(row[-1] for row in everywhere))
        weights = {
            kind: self.weights[kind] / max(1, total)
            for kind, total in zip(KINDS, totals, strict=False)
        }
        nothing = pack([self._nothing], dict.fromkeys(KINDS, 0.0))
        weighted = [replace(batch, weights=weights) for batch in packed]
        return weighted + [nothing] * (most - len(packed))


def own_conversations(
    maker: SequenceMaker, ranks: Ranks, conversations: Sequence[Conversation]
) -> list[Conversation]:
    """This rank's share of the conversations that all ranks learn together."""
    lengths = [maker.estimate(each) for each in conversations]
    own = balanced_shares(lengths, ranks.count)[ranks.index]
    return [conversations[i] for i in own]


def sequence_of_nothing(family: Family) -> TrainingSequence:
    """What a rank with less to do computes with weight 0, so that all make as many batches."""
    text = text_range_of(family).start
    return TrainingSequence(Branch((text, text)), (False, True))


def check_no_pairs(conversations: Sequence[Conversation]) -> None:
    """Raise DataError for a pair of answers, of which a run without [dpo] would learn one side."""
    pair = next((each for each in conversations if each.rejected is not None), None)
    if pair is not None:
        raise DataError(
            f"{pair.name}: it has chosen and rejected, which a recipe with [dpo] learns from"
        )


class Batches(Protocol[BatchOut]):
    """Makes batches of conversations, for one rank.

    Attributes:
        maker: Makes their sequences, and counts what it leaves out.
        ranks: Who shares the work.
    """

    maker: SequenceMaker
    ranks: Ranks

    def batches(self, conversations: Sequence[Conversation]) -> Sequence[BatchOut]:
        """This rank's batches, as many as every rank's; none if there is nothing to learn.

        Raises:
            DataError: A conversation is wrong.
        """
        ...


class ConversationUpdates(Generic[Batch]):
    """Updates of so many conversations each. The state resumes exactly, on any number of ranks."""

    def __init__(
        self, stream: ConversationStream, batches: Batches[Batch], conversations: int
    ) -> None:
        """Begin where the stream stands.

        Args:
            stream: The conversations in their order.
            batches: Makes batches of them.
            conversations: How many an update has, of all ranks together.
        """
        self.stream, self.make, self.conversations = stream, batches, conversations
        self._left_out_before: dict[str, int] = {}

    def __next__(self) -> Sequence[Batch]:
        """This rank's batches of the next update that has something to learn.

        Raises:
            StopIteration: The last pass over the data is over.
            DataError: A conversation is wrong, and the run does not skip such.
            ValueError: A whole pass over the data had nothing to learn.
        """
        before = self.stream.passes
        while conversations := self.stream.next_update(self.conversations):
            if batches := self.make.batches(conversations):
                return batches
            if self.stream.passes > before + 1:
                raise ValueError(
                    f"there is nothing to learn in these data: {self._what_was_left()}"
                )
        raise StopIteration

    def _what_was_left(self) -> str:
        """What was left out so far, for people."""
        found = [f"{count:,} {what}" for what, count in self.left_out().items() if count]
        return ", ".join(found) or "no sequence has a target"

    def left_out(self) -> dict[str, int]:
        """How much was "dropped" or "cut" as too long, and "skipped" as wrong, on all ranks."""
        here = asdict(self.make.maker.left_out)
        everywhere = self.make.ranks.gather(list(map(float, here.values())))
        found = {
            name: int(sum(column)) + self._left_out_before.get(name, 0)
            for name, column in zip(here, zip(*everywhere, strict=True), strict=True)
        }
        # All ranks read the same stream, so that what it skips counts once.
        return found | {"skipped": found["skipped"] + self.stream.skipped}

    def state_dict(self) -> dict[str, Any]:
        """Where the data stand, in plain values. All ranks call it."""
        counts = self.left_out()
        counts["skipped"] -= self.stream.skipped
        return {"stream": self.stream.state_dict(), "left_out": counts}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            ValueError: The data are others.
        """
        self.stream.load_state_dict(state["stream"])
        self._left_out_before = dict(state["left_out"])
