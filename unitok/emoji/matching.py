"""Which of ten captions is true of a picture: one is, the others are of scenes that are alike."""

from __future__ import annotations

import random
from collections.abc import Sequence

from unitok.emoji import captions
from unitok.emoji.held_out import HeldOutSuite, held_out_scenes, rendered
from unitok.emoji.rendering import to_pil
from unitok.emoji.scenes import Scene
from unitok.evaluation.matching import Match
from unitok.evaluation.metrics import rate
from unitok.evaluation.suite import Item, Judgement, Summary, judgement
from unitok.evaluation.tallies import shares
from unitok.results import Result, TextResult

CHOICES = 10
POOL = 100  # scenes of each kind, of whose captions the wrong ones are


class EmojiMatchingSuite(HeldOutSuite):
    """A held-out picture and ten captions, for models that score texts. It is a `Suite`."""

    name = "emoji-matching"

    def items(self) -> list[Item]:
        """A picture with its captions for each scene, the true one at a random place."""
        rng = random.Random(f"match {self.seed}")
        pool = held_out_scenes(POOL, self.seed + 1)
        items = []
        for number, (scene, pixels) in enumerate(rendered(self.scenes)):
            true = captions.caption(scene)
            texts = [true, *wrong_captions(scene, pool, rng)]
            asked = Match(to_pil(pixels), tuple(rng.sample(texts, len(texts))))
            key = f"matching-{number:05}-{scene.kind}"
            items.append(Item(key, f"matching_{scene.kind}", asked, true))
        return items

    def judge(self, item: Item, result: Result) -> Judgement:
        """Compare the caption that was chosen with the true one."""
        assert isinstance(result, TextResult)
        return judgement(item, result.text == item.wanted, result.text)

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The share of right choices, and that of each kind of scene."""
        return Summary({"matching": round(rate([bool(j.ok) for j in judged]), 4)} | shares(judged))


def wrong_captions(scene: Scene, pool: Sequence[Scene], rng: random.Random) -> list[str]:
    """Nine captions that are not true of a scene.

    They are drawn from those scenes of the pool that share an object with it, and, where these are
    too few, from those that share its background.
    """
    others = [other for other in pool if captions.claim(other) != captions.claim(scene)]
    others = rng.sample(others, len(others))
    others.sort(key=lambda other: _distance(other, scene))
    return list(dict.fromkeys(map(captions.caption, others)))[: CHOICES - 1]


def _distance(other: Scene, scene: Scene) -> int:
    """0 if an object is the same, 1 if the background is, else 2."""
    if other.counts.keys() & scene.counts.keys():
        return 0
    return 1 if other.background == scene.background else 2
