"""Scenes of more things than evaluations ask for, so that pairs are not learned by heart.

A model that sees a thousand pairs and nothing else draws those, and other things for a pair that it
never saw. There are so many triples that each thing has to be drawn for its own word.
"""

import random
from itertools import combinations

from unitok.emoji import captions, split
from unitok.emoji.sampler import any_background, in_quadrant
from unitok.emoji.scenes import Item, Scene, canonical, stands
from unitok.emoji.sprites import NAMES

PARTS = ((1, 1, 1), (1, 1, 1), (2, 1), (3, 1), (2, 2), (1, 1, 1, 1), (2, 1, 1))
"""How often each thing of a scene occurs; there is room for four."""
WITH_RELATION = 0.5  # the share of prompts that say how two of the things stand


def crowd(rng: random.Random) -> Scene:
    """A scene of two to four different things, three or four items in all, of the training split.

    No two of them stand as a held-out relation has it, though no text may say so.
    """
    while True:
        parts = rng.choice(PARTS)
        names = rng.sample(NAMES, len(parts))
        things = [name for name, count in zip(names, parts, strict=True) for _ in range(count)]
        rng.shuffle(things)
        quadrants = sorted(rng.sample(range(4), len(things)))  # captions list as one reads
        items = [
            in_quadrant(rng, name, *divmod(quadrant, 2))
            for name, quadrant in zip(things, quadrants, strict=True)
        ]
        scene = Scene("crowd", any_background(rng), tuple(items))
        if not split.is_heldout(scene) and not any(map(_heldout, _relations(scene))):
            return scene


def crowd_prompt(scene: Scene, rng: random.Random) -> str:
    """A request to draw a crowd. It may say how two things stand, of which there is one each."""
    stated = [
        (first, word, second)
        for first, word, second in _relations(scene, strict=True)
        if scene.counts[first] == scene.counts[second] == 1
    ]
    if not stated or rng.random() >= WITH_RELATION:
        return captions.prompt(scene, rng)
    first, word, second = rng.choice(stated)
    if rng.random() < 0.5:
        first, word, second = second, captions.OPPOSITE[word], first
    phrase = rng.choice(captions.RELATION_PHRASES[word])
    others = [
        captions.counted(name, count)
        for name, count in scene.counts.items()
        if name not in (first, second)
    ]
    rng.shuffle(others)
    pair = f"{captions.article(first)} {phrase} {captions.article(second)}"
    return captions.framed(" and ".join((pair, *others)), scene.background, rng)


def _relations(scene: Scene, strict: bool = False) -> list[tuple[str, str, str]]:
    """How any two different things of a scene stand.

    Args:
        scene: The scene.
        strict: Only those that stand side by side, and not across.
    """
    return [
        (first.name, word, second.name)
        for one, other in combinations(scene.items, 2)
        for first, second in ((one, other), (other, one))
        for word in ("left of", "above")
        if first.name != second.name and stands(first, word, second)
        if not strict or _beside(first, second)
    ]


def _beside(first: Item, second: Item) -> bool:
    """Whether two items are in one row or one column of quadrants."""
    return first.row // 4 == second.row // 4 or first.column // 4 == second.column // 4


def _heldout(relation: tuple[str, str, str]) -> bool:
    return split.heldout(split.related(*canonical(*relation)))
