"""One sequence of the emoji world to learn, whose pictures are scenes until they are rendered."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import Tensor

from unitok.emoji.scenes import Scene
from unitok.training.sequences import PaintedImage, TrainingSequence
from unitok_engine import Branch, Embeddings


@dataclass
class Sample:
    """Token ids, and scenes with their places.

    Attributes:
        ids: Token ids. Placeholders stand where pictures will be.
        target: For each id, whether it is to be predicted from those before it.
        input_pictures: (start, scene) of each picture whose embeddings stand at start.
        target_pictures: (start, scene) of each picture whose image tokens stand at start.
    """

    ids: list[int]
    target: list[bool]
    input_pictures: list[tuple[int, Scene]] = field(default_factory=list)
    target_pictures: list[tuple[int, Scene]] = field(default_factory=list)

    @property
    def input_scenes(self) -> list[Scene]:
        """The scenes that are read."""
        return [scene for _, scene in self.input_pictures]

    @property
    def target_scenes(self) -> list[Scene]:
        """The scenes that are drawn."""
        return [scene for _, scene in self.target_pictures]

    def sequence(
        self, read: Iterable[Embeddings], drawn: Iterable[Tensor], image_ids: tuple[int, ...]
    ) -> TrainingSequence:
        """What is learned.

        Args:
            read: The embeddings of `input_scenes`; their places are the sample's.
            drawn: The pixels [3, S, S] in [0, 1] of `target_scenes`.
            image_ids: What stands in a drawing's place until its image tokens are known.
        """
        ids, painted = list(self.ids), list[PaintedImage]()
        for (start, _), pixels in zip(self.target_pictures, drawn, strict=True):
            places = range(start, start + len(image_ids))
            ids[start : places.stop] = image_ids
            painted.append(PaintedImage(tuple(places), lambda pixels=pixels: pixels))
        starts = (start for start, _ in self.input_pictures)
        placed = tuple(replace(e, start=s) for s, e in zip(starts, read, strict=True))
        branch = Branch(tuple(ids), embeddings=placed)
        return TrainingSequence(branch, tuple(self.target), tuple(painted))
