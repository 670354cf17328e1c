"""The targets of a batch by their kind: text tokens and image tokens have heads of their own."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from unitok.families import Family
from unitok.training.packing import PackedBatch
from unitok.vocabulary import Vocabulary
from unitok_engine import Allow, IdRange


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets of one kind.

    Attributes:
        kind: "image" or "text".
        chosen: Which of the rows that were asked about they are, [m].
        id_range: The ids whose logits compete.
    """

    kind: str
    chosen: Tensor
    id_range: IdRange


def targets_by_kind(
    batch: PackedBatch, rows: Tensor, vocabulary: Vocabulary, text_range: IdRange
) -> Iterator[Targets]:
    """The targets at rows [n] of a batch, image tokens first; only the kinds that there are.

    Args:
        batch: The batch.
        rows: Where the targets stand, on the CPU.
        vocabulary: Tells image tokens.
        text_range: The ids that an answer of text is made of.

    Raises:
        ValueError: A target is neither an image token nor in the range of text.
    """
    ids = batch.ids[rows]
    is_image = vocabulary.is_image(ids)
    outside = ~is_image & ((ids < text_range.start) | (ids >= text_range.stop))
    if outside.any():
        i = int(outside.nonzero()[0])
        raise ValueError(
            f"{batch.name_at(int(rows[i]))}: the id {int(ids[i])} cannot be a target: it is no "
            f"image token, and text has the ids {text_range.start} to {text_range.stop - 1}"
        )
    kinds = ("image", is_image, vocabulary.image_range), ("text", ~is_image, text_range)
    for kind, mask, id_range in kinds:
        if mask.any():
            yield Targets(kind, mask.nonzero()[:, 0], id_range)


def text_range_of(family: Family) -> IdRange:
    """The ids that a family's answers of text are sampled from."""
    step = family.text_plan(1).next([])
    assert isinstance(step, Allow)  # an answer begins with a token that is sampled
    return step.id_range
