"""Which of ten captions is true of a picture: one is, the others are of scenes that are alike."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from torch import Tensor

from unitok.emoji import captions
from unitok.emoji.evaluation import SEED, held_out_scenes
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.scenes import KINDS, Scene
from unitok.evaluation.metrics import rate

CHOICES = 10
POOL = 100  # scenes of each kind, of whose captions the wrong ones are


class Matcher(Protocol):
    """What `ImageTextScorer` has that matching needs."""

    def image_features(self, images: Sequence[Image.Image]) -> Tensor:
        """Embeddings of unit length [n, d] of pictures."""
        ...

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of unit length [m, d] of texts."""
        ...


@dataclass(frozen=True)
class Choice:
    """A picture, the caption that is true of it, and nine that are not.

    Attributes:
        scene: What the picture shows.
        captions: The true one is the first.
    """

    scene: Scene
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Matched:
    """What was chosen.

    Attributes:
        kind: Of the scene.
        right: The true caption.
        chosen: The one that was thought to match best.
        image: The picture.
    """

    kind: str
    right: str
    chosen: str
    image: Image.Image

    @property
    def ok(self) -> bool:
        """Whether the true one was chosen."""
        return self.chosen == self.right


def choices(count: int = 100, seed: int = SEED) -> list[Choice]:
    """Held-out scenes, `count` of each kind, each with nine captions of other ones.

    The nine are chosen at random from those of 500 scenes that share an object with the scene, and,
    where these are too few, from those that share its background. None of them is true of it.
    """
    others, rng = held_out_scenes(POOL, seed + 1), random.Random(f"choices {seed}")
    scenes = held_out_scenes(count, seed)
    return [Choice(s, (captions.caption(s), *_wrong(s, others, rng))) for s in scenes]


def _wrong(scene: Scene, pool: Sequence[Scene], rng: random.Random) -> list[str]:
    known = captions.claim(scene)
    others = [other for other in pool if captions.claim(other) != known]
    others = rng.sample(others, len(others))
    others.sort(key=lambda other: _distance(other, scene))
    return list(dict.fromkeys(map(captions.caption, others)))[: CHOICES - 1]


def _distance(other: Scene, scene: Scene) -> int:
    """0 if an object is the same, 1 if the background is, else 2."""
    if other.counts.keys() & scene.counts.keys():
        return 0
    return 1 if other.background == scene.background else 2


def match(matcher: Matcher, asked: Sequence[Choice]) -> list[Matched]:
    """Let a model choose among the captions of each picture; where two match equally, the later."""
    images = [to_pil(pixels) for pixels in render([choice.scene for choice in asked])]
    texts = list(dict.fromkeys(text for choice in asked for text in choice.captions))
    place = {text: index for index, text in enumerate(texts)}
    similarity = matcher.image_features(images) @ matcher.text_features(texts).T
    found = []
    for row, choice, image in zip(similarity, asked, images, strict=True):
        # A model to which all texts are alike must not be right by their order.
        best = max(reversed(choice.captions), key=lambda text, row=row: float(row[place[text]]))
        found.append(Matched(choice.scene.kind, choice.captions[0], best, image))
    return found


def matching_scores(matched: Sequence[Matched]) -> dict[str, float]:
    """The share of right choices, and of each kind."""
    kinds = {kind: [m.ok for m in matched if m.kind == kind] for kind in KINDS}
    by_kind = {f"matching_{kind}": rate(right) for kind, right in kinds.items() if right}
    return {"matching": rate([m.ok for m in matched]), **by_kind}
