"""Is it there? Questions about objects in held-out scenes, in the manner of POPE.

Half of the questions are about an object of the scene. The others are about one that is not there:
any one, or one that looks most like an object of the scene, which is harder.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from unitok.emoji import captions
from unitok.emoji.held_out import HeldOutSuite, rendered
from unitok.emoji.rendering import to_pil
from unitok.emoji.scenes import Scene
from unitok.emoji.sprites import LARGE, NAMES, sprites
from unitok.evaluation.presence import presence_scores, presence_table
from unitok.evaluation.suite import Item, Judgement, Summary, judgement
from unitok.evaluation.words import is_accepted
from unitok.requests import Caption
from unitok.results import Result, TextResult

QUESTION = "is there {}?"
GROUPS = ("random", "alike")  # how the absent object is chosen


class EmojiPresenceSuite(HeldOutSuite):
    """Questions about what is there and what is not. It is a `Suite`."""

    name = "emoji-presence"

    def items(self) -> list[Item]:
        """For each scene and each way to choose, an object that is there and one that is not."""
        rng = random.Random(self.seed)
        items = []
        for number, (scene, pixels) in enumerate(rendered(self.scenes)):
            picture = to_pil(pixels)
            for group in GROUPS:
                names = (rng.choice(sorted(scene.counts)), absent(scene, group, rng))
                for name, answer in zip(names, ("yes", "no"), strict=True):
                    asked = Caption(picture, question=QUESTION.format(captions.article(name)))
                    items.append(Item(f"{group}-{number:05}-{answer}", group, asked, answer))
        return items

    def judge(self, item: Item, result: Result) -> Judgement:
        """Compare the first word of an answer."""
        assert isinstance(result, TextResult)
        return judgement(item, is_accepted(result.text, [item.wanted]), result.text)

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """Accuracy, precision, recall, F1 and the share of yes."""
        return Summary(presence_scores(judged), [presence_table(judged)])


def absent(scene: Scene, group: str, rng: random.Random) -> str:
    """An object that is not in a scene: any, or the one that looks most like one of it."""
    if group == "random":
        return rng.choice([name for name in NAMES if name not in scene.counts])
    name = rng.choice(sorted(scene.counts))
    return next(other for other in alike(name) if other not in scene.counts)


@cache
def alike(name: str) -> tuple[str, ...]:
    """All objects, those that look most like the named one first."""
    pictures = sprites(LARGE, NAMES).flatten(1)
    distance = (pictures - pictures[NAMES.index(name)]).square().mean(1)
    return tuple(NAMES[index] for index in distance.argsort(stable=True).tolist())
