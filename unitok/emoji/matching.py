"""Which of ten captions is true of a picture: one is, the others are of scenes that are alike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitok.emoji import captions
from unitok.emoji.evaluation import count_and_seed, held_out_scenes
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.scenes import Scene
from unitok.evaluation.matching import Match
from unitok.evaluation.metrics import rate
from unitok.evaluation.suite import Item, Judgement, SuiteOptions, Summary, judgement
from unitok.evaluation.tallies import shares
from unitok.results import Result, TextResult

CHOICES = 10
POOL = 100  # scenes of each kind, of whose captions the wrong ones are


class EmojiMatchingSuite:
    """A held-out picture and ten captions, for models that score texts. It is a `Suite`."""

    name = "emoji-matching"

    def __init__(self, options: SuiteOptions) -> None:
        """Keep the number of scenes of each kind, and their seed."""
        self.scenes, self.seed = count_and_seed(options)

    @property
    def settings(self) -> dict[str, Any]:
        """See `Suite`."""
        return {"limit": self.scenes, "seed": self.seed}

    def items(self) -> list[Item]:
        """A picture with its captions for each scene, the true one at a random place."""
        scenes, rng = held_out_scenes(self.scenes, self.seed), random.Random(f"match {self.seed}")
        pool = held_out_scenes(POOL, self.seed + 1)
        items = []
        for number, (scene, pixels) in enumerate(zip(scenes, render(scenes), strict=True)):
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

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """There is no format of others for it."""


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
