"""Sequences to learn, packed one behind the other into the flat rows of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from unitok.training.sequences import PaintedImage, TrainingSequence
from unitok.vocabulary import Vocabulary
from unitok_engine import Embeddings


class Packable(Protocol):
    """What has a length in ids."""

    @property
    def name(self) -> str:
        """Where it comes from."""
        ...

    def __len__(self) -> int:
        """How many ids it has."""
        ...


P = TypeVar("P", bound=Packable)


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Sequences without padding between them, of N ids in all, on the CPU.

    Attributes:
        ids: Token ids [N]. Where image ids of painted pictures will stand, any image id.
        positions: The position of each id in its own sequence [N].
        lengths: How many ids each sequence has.
        targets: Whether each id is to be predicted from those before it, bool [N].
        embeddings: Pictures to read, each with `start` in the row of N.
        painted: Pictures whose image ids are filled in, with `places` in the row of N.
        names: Where each sequence comes from.
        weights: The weight of the loss of one token of each kind, "text" and "image".
    """

    ids: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    targets: Tensor
    embeddings: tuple[Embeddings, ...]
    painted: tuple[PaintedImage, ...]
    names: tuple[str, ...]
    weights: Mapping[str, float]

    def __len__(self) -> int:
        """The number of ids."""
        return len(self.ids)

    def counts(self, vocabulary: Vocabulary) -> dict[str, int]:
        """How many targets of each kind there are."""
        targets = self.ids[self.targets]
        images = int(vocabulary.is_image(targets).sum())
        return {"text": len(targets) - images, "image": images}

    def name_at(self, row: int) -> str:
        """The name of the sequence that a row belongs to."""
        ends = accumulate(self.lengths)
        return next(name for name, end in zip(self.names, ends, strict=True) if row < end)


def pack(sequences: Sequence[TrainingSequence], weights: Mapping[str, float]) -> PackedBatch:
    """Put sequences one behind the other.

    Args:
        sequences: At least one.
        weights: The weight of the loss of one token of each kind, "text" and "image".

    Raises:
        ValueError: There is no sequence, or one has not a target flag for each id, or its first id
            is a target.
    """
    if not sequences:
        raise ValueError("there is no sequence to pack")
    for sequence in sequences:
        _check(sequence)
    lengths = tuple(map(len, sequences))
    firsts = [sequence.branch.first_position for sequence in sequences]
    spans = [torch.arange(f, f + n) for f, n in zip(firsts, lengths, strict=True)]
    return PackedBatch(
        ids=_joined((s.branch.token_ids for s in sequences), torch.int64),
        positions=torch.cat(spans),
        lengths=lengths,
        targets=_joined((s.targets for s in sequences), torch.bool),
        embeddings=tuple(_embeddings(sequences)),
        painted=tuple(_painted(sequences)),
        names=tuple(sequence.name for sequence in sequences),
        weights=dict(weights),
    )


def pack_rows(sequences: Sequence[P], max_tokens: int) -> list[list[P]]:
    """Sort sequences, or what is made of some, into few batches of at most `max_tokens` ids.

    Each goes, from the longest to the shortest, into the first batch with room for it
    (first-fit decreasing, https://en.wikipedia.org/wiki/First-fit-decreasing_bin_packing).

    Raises:
        ValueError: A sequence alone is longer.
    """
    rows: list[list[P]] = []
    room: list[int] = []
    for sequence in sorted(sequences, key=len, reverse=True):
        size = len(sequence)
        if size > max_tokens:
            raise ValueError(f"{sequence.name}: {size} ids do not fit into {max_tokens}")
        at = next((i for i, free in enumerate(room) if size <= free), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(max_tokens)
        rows[at].append(sequence)
        room[at] -= size
    return rows


def _check(sequence: TrainingSequence) -> None:
    if len(sequence.targets) != len(sequence.branch.token_ids):
        raise ValueError(f"{sequence.name}: there is not one target flag for each token id")
    if sequence.targets[0]:
        raise ValueError(f"{sequence.name}: the first id cannot be a target: nothing predicts it")


def _joined(parts: Iterable[Sequence[int]], dtype: torch.dtype) -> Tensor:
    return torch.tensor(list(chain.from_iterable(parts)), dtype=dtype)


def _placed(sequences: Sequence[TrainingSequence]) -> Iterator[tuple[int, TrainingSequence]]:
    """Each sequence with the row of its first id."""
    starts = accumulate(map(len, sequences), initial=0)
    return zip(starts, sequences, strict=False)


def _embeddings(sequences: Sequence[TrainingSequence]) -> Iterator[Embeddings]:
    for start, sequence in _placed(sequences):
        for embeddings in sequence.branch.embeddings:
            yield replace(embeddings, start=start + embeddings.start)


def _painted(sequences: Sequence[TrainingSequence]) -> Iterator[PaintedImage]:
    for start, sequence in _placed(sequences):
        for image in sequence.painted:
            yield replace(image, places=tuple(start + place for place in image.places))
