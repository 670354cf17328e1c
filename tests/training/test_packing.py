"""Sequences as flat rows: what stands where, and which sequences share a batch."""

from random import Random

import pytest
import torch

from unitok.training.packing import pack, pack_rows
from unitok.training.sequences import PaintedImage, TrainingSequence
from unitok.vocabulary import Vocabulary
from unitok_engine import Branch, Embeddings

WEIGHTS = {"text": 0.5, "image": 0.25}


def vectors(start: int, length: int) -> Embeddings:
    return Embeddings(start, length, f"{start}", lambda: torch.zeros(length, 4))


def sequence(
    ids: list[int],
    targets: list[int] | None = None,
    first: int = 0,
    embeddings: tuple[Embeddings, ...] = (),
    painted: tuple[PaintedImage, ...] = (),
    name: str = "",
) -> TrainingSequence:
    """Of ids, of which those at the indices `targets` are learned."""
    flags = tuple(i in (targets or ()) for i in range(len(ids)))
    branch = Branch(tuple(ids), embeddings=embeddings, first_position=first)
    return TrainingSequence(branch, flags, painted, name)


def of_length(length: int) -> TrainingSequence:
    return sequence([1] * length, [length - 1], name=f"of {length}")


def test_sequences_lie_one_behind_the_other_and_keep_their_own_positions():
    codes = torch.tensor([[3]])
    image = PaintedImage((1,), lambda: torch.zeros(3, 8, 8), codes)
    batch = pack(
        [
            sequence([5, 6, 7], [2], embeddings=(vectors(0, 2),), name="a:1"),
            sequence([8, 9], [1], first=4, painted=(image,), name="a:2"),
            sequence([4, 4, 4], [1, 2], embeddings=(vectors(1, 1),), name="b:1"),
        ],
        WEIGHTS,
    )
    assert batch.ids.tolist() == [5, 6, 7, 8, 9, 4, 4, 4] and len(batch) == 8
    assert batch.positions.tolist() == [0, 1, 2, 4, 5, 0, 1, 2]
    assert batch.targets.nonzero()[:, 0].tolist() == [2, 4, 6, 7]
    assert batch.lengths == (3, 2, 3) and batch.weights == WEIGHTS
    assert [(e.start, e.stop) for e in batch.embeddings] == [(0, 2), (6, 7)]
    assert [image.places for image in batch.painted] == [(4,)]
    assert batch.painted[0].codes is codes
    assert [batch.name_at(row) for row in range(8)] == ["a:1"] * 3 + ["a:2"] * 2 + ["b:1"] * 3


def test_targets_are_counted_by_kind_where_image_ids_lie_inside_the_text():
    batch = pack([sequence([9, 10, 13, 14, 30], [1, 2, 3, 4])], WEIGHTS)
    assert batch.counts(Vocabulary(40, 10, 4)) == {"text": 2, "image": 2}
    assert batch.counts(Vocabulary(14, 14, 20)) == {"text": 2, "image": 2}


def test_what_cannot_be_packed_is_named():
    with pytest.raises(ValueError, match="no sequence"):
        pack([], WEIGHTS)
    with pytest.raises(ValueError, match="c:3: the first id cannot be a target"):
        pack([sequence([1, 2], [0], name="c:3")], WEIGHTS)
    with pytest.raises(ValueError, match="c:4: there is not one target flag"):
        pack([TrainingSequence(Branch((1, 2)), (False,), name="c:4")], WEIGHTS)


def test_the_longest_go_first_and_each_into_the_first_batch_with_room():
    rows = pack_rows([of_length(n) for n in (3, 7, 2, 5, 4, 8)], 10)
    assert [[len(s) for s in row] for row in rows] == [[8, 2], [7, 3], [5, 4]]
    assert pack_rows([], 10) == []
    with pytest.raises(ValueError, match="of 11: 11 ids do not fit into 10"):
        pack_rows([of_length(11)], 10)


def test_every_sequence_is_in_one_batch_that_is_not_too_long():
    random = Random(0)
    for _ in range(50):
        given = [of_length(random.randint(2, 60)) for _ in range(random.randint(1, 40))]
        rows = pack_rows(given, 64)
        assert sorted(id(s) for row in rows for s in row) == sorted(map(id, given))
        sums = [sum(map(len, row)) for row in rows]
        assert max(sums) <= 64
        # Two batches that are half empty would have been one.
        assert sum(size <= 32 for size in sums) <= 1
        assert rows == pack_rows(given, 64)
