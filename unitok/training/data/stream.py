"""The order in which conversations are learned: the same for any number of ranks, resumed exactly.

Every rank reads the same stream, which opens no picture, and makes sequences of its own share.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from math import isfinite
from typing import Any, Literal

from unitok.training.data.conversations import Conversation, DataChangedError, DataError
from unitok.training.data.order import hashed
from unitok.training.data.sources import Source

logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]


class Cursor:
    """A place in the passes over one data set.

    Attributes:
        source: The data set.
        epoch: How many passes are over.
        position: How many records of this pass were taken.
        skipped: How many of these were wrong, and left out.
        drawn: How many conversations came of all passes.
    """

    def __init__(self, source: Source, seed: int | None, epochs: int | None) -> None:
        """Begin at the first pass.

        Args:
            source: The data set.
            seed: Decides the orders of all passes; None for the stored order.
            epochs: The number of passes; None for no end.
        """
        self.source, self._seed, self._epochs = source, seed, epochs
        self.epoch = self.position = self.skipped = self.drawn = 0
        self._references: Iterator[Any] | None = None

    @property
    def over(self) -> bool:
        """Whether all passes are over."""
        return self._epochs is not None and self.epoch >= self._epochs

    def take(self) -> Conversation | None:
        """The next conversation; None if the pass is over.

        Raises:
            DataError: The record is wrong. The next call goes on behind it.
            ValueError: A whole pass had nothing but wrong records.
        """
        if self._references is None:
            seed = None if self._seed is None else hashed(self._seed, self.epoch)
            self._references = islice(self.source.references(seed), self.position, None)
        for reference in self._references:
            self.position += 1
            conversation = self.source.conversation(reference)
            self.drawn += 1
            return replace(conversation, epoch=self.epoch)
        self._end_pass()
        return None

    def _end_pass(self) -> None:
        if self.skipped == self.position:
            why = "all are wrong" if self.position else "it is empty"
            raise ValueError(f"{self.source.name} has no conversation that can be read: {why}")
        self.epoch, self.position, self.skipped, self._references = self.epoch + 1, 0, 0, None

    def state_dict(self) -> dict[str, Any]:
        """The place, in plain values."""
        names = ("epoch", "position", "skipped", "drawn")
        return {name: getattr(self, name) for name in names} | {"identity": self.source.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a place.

        Raises:
            ValueError: It is a place in another data set.
        """
        if state["identity"] != self.source.identity:
            raise ValueError(
                f"{self.source.name} has changed since the checkpoint was written: it had "
                f"{state['identity']}, and has {self.source.identity}"
            )
        self.epoch, self.position = state["epoch"], state["position"]
        self.skipped, self.drawn = state["skipped"], state["drawn"]
        self._references = None


class ConversationStream:
    """Conversations of data sets, mixed by weight, one pass after the other.

    The data set comes next that is furthest behind its share of what was drawn. So the mixture is
    right at every moment, and not only on the whole.

    Attributes:
        skipped: How many records were wrong, and left out.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float] | None = None,
        seed: int = 0,
        epochs: int | None = None,
        shuffle: bool = True,
        on_error: OnError = "raise",
    ) -> None:
        """Begin at the first conversation.

        Args:
            sources: The data sets.
            weights: Of each, its part of the mixture; None for equal parts.
            seed: Decides the order.
            epochs: How often each data set is passed; None for no end.
            shuffle: Whether the order is random.
            on_error: Whether a wrong record raises, or is left out, logged and counted.

        Raises:
            ValueError: There is no data set, or the weights are not one above 0 for each.
        """
        weights = [1.0] * len(sources) if weights is None else weights
        if not sources:
            raise ValueError("there is no data set to learn from")
        if len(weights) != len(sources) or not all(isfinite(w) and w > 0 for w in weights):
            raise ValueError(f"{len(sources)} data sets need a weight above 0 each, not {weights}")
        self._weights, self._on_error = tuple(weights), on_error
        self._cursors = [
            Cursor(source, hashed(seed, i) if shuffle else None, epochs)
            for i, source in enumerate(sources)
        ]
        self.skipped = 0

    @property
    def passes(self) -> int:
        """How often all data sets were passed."""
        return min(cursor.epoch for cursor in self._cursors)

    def next_update(self, batch: int) -> list[Conversation]:
        """The conversations of an update, those of all ranks together.

        Args:
            batch: How many.

        Returns:
            Fewer at the end of the last pass, and none after it.

        Raises:
            DataError: A record is wrong, and `on_error` is "raise".
            ValueError: A data set has no conversation that can be read.
        """
        return list(islice(self, batch))

    def __iter__(self) -> Iterator[Conversation]:
        """The conversations from here on."""
        while (cursor := self._next_cursor()) is not None:
            if (conversation := self._take(cursor)) is not None:
                yield conversation

    def _next_cursor(self) -> Cursor | None:
        pairs = zip(self._cursors, self._weights, strict=True)
        shares = [((c.drawn + 1) / weight, c) for c, weight in pairs if not c.over]
        return min(shares, key=lambda share: share[0])[1] if shares else None

    def _take(self, cursor: Cursor) -> Conversation | None:
        try:
            return cursor.take()
        except DataError as error:
            if self._on_error == "raise" or isinstance(error, DataChangedError):
                raise
            cursor.skipped += 1
            self.skipped += 1
            logger.warning("left out: %s", error)
            return None

    def state_dict(self) -> dict[str, Any]:
        """The place in the order, in plain values."""
        cursors = [cursor.state_dict() for cursor in self._cursors]
        return {"sources": cursors, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on from a place in the order.

        Raises:
            ValueError: The data sets are others than those of the place.
        """
        if len(state["sources"]) != len(self._cursors):
            raise ValueError(
                f"the checkpoint is of {len(state['sources'])} data sets, not {len(self._cursors)}"
            )
        for cursor, place in zip(self._cursors, state["sources"], strict=True):
            cursor.load_state_dict(place)
        self.skipped = state["skipped"]
