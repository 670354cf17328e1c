"""Random scenes of the emoji world, of one split.

In the manner of GenEval (https://arxiv.org/abs/2310.11513): one object, two objects, counts,
positions, colours.
"""

import random
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from unitok.emoji import split as splits
from unitok.emoji.scenes import COLOURS, COUNTS, KINDS, WHITE, Item, Scene
from unitok.emoji.sprites import LARGE, NAMES, SMALL

Split = Literal["train", "heldout", "any"]


class SceneSampler:
    """Random scenes of one split.

    "train" scenes hold no held-out combination. In a "heldout" scene the combination its kind is
    about is held out and the rest is free; single objects are all seen. "any" has no rule.
    """

    def __init__(self, seed: int, split: Split = "train") -> None:
        """Start a stream of scenes.

        Raises:
            ValueError: There is no such split.
        """
        if split not in ("train", "heldout", "any"):
            raise ValueError(f"no split {split!r}; splits are train, heldout, any")
        self.split = split
        self._random = random.Random(f"{split} {seed}")
        self._cores = {kind: _cores(kind, split) for kind in KINDS}
        self._kinds, self._shares = list(KINDS), list(KINDS.values())

    def sample(self, kind: str | None = None) -> Scene:
        """One scene, of `kind` or of a random kind.

        Raises:
            ValueError: There is no such kind.
        """
        if kind is None:
            kind = self._random.choices(self._kinds, self._shares)[0]
        if kind not in KINDS:
            raise ValueError(f"no kind {kind!r}; kinds are {', '.join(KINDS)}")
        while True:
            core = self._random.choice(self._cores[kind])
            scene = _MAKERS[kind](self._random, *core)
            # Reject the whole scene: a core may have no allowed completion at all.
            if self.split != "train" or not splits.is_heldout(scene):
                return scene

    def batch(self, n: int, kind: str | None = None) -> list[Scene]:
        """n scenes, as `sample` gives them."""
        return [self.sample(kind) for _ in range(n)]

    def state_dict(self) -> dict[str, Any]:
        """Where the random stream stands, in plain lists and numbers."""
        version, words, gauss = self._random.getstate()
        return {"version": version, "words": list(words), "gauss": gauss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self._random.setstate((state["version"], tuple(state["words"]), state["gauss"]))


@cache
def _cores(kind: str, split: Split) -> list[tuple]:
    """What a kind is about: every choice whose combination belongs to the split."""
    if kind == "single":
        return [(name,) for name in NAMES]
    choices: list[tuple]
    match kind:
        case "colour":
            choices = [(name, colour) for name in NAMES for colour in COLOURS]
        case "two":
            choices = [(a, b) for a in NAMES for b in NAMES if a < b]
        case "count":
            choices = [(name, count) for name in NAMES for count in COUNTS]
        case _:
            choices = [
                (a, word, b)
                for a in NAMES
                for b in NAMES
                if a != b
                for word in ("left of", "above")
            ]
    if split == "any":
        return choices
    combine = {
        "colour": splits.on_colour,
        "two": splits.pair,
        "count": splits.counted,
        "position": splits.related,
    }[kind]
    return [c for c in choices if splits.heldout(combine(*c)) == (split == "heldout")]


def _single(rng: random.Random, name: str) -> Scene:
    return Scene("single", WHITE, (_anywhere(rng, name),))


def _colour(rng: random.Random, name: str, colour: str) -> Scene:
    return Scene("colour", colour, (_anywhere(rng, name),))


def _two(rng: random.Random, first: str, second: str) -> Scene:
    if rng.random() < 0.5:
        first, second = second, first
    word = rng.choice(("left of", "above"))
    return Scene("two", _any_background(rng), _related_items(rng, first, word, second))


def _position(rng: random.Random, first: str, word: str, second: str) -> Scene:
    return Scene("position", _any_background(rng), _related_items(rng, first, word, second))


def _count(rng: random.Random, name: str, count: int) -> Scene:
    quadrants = rng.sample(range(4), count)
    items = tuple(_in_quadrant(rng, name, *divmod(quadrant, 2)) for quadrant in sorted(quadrants))
    return Scene("count", _any_background(rng), items)


_MAKERS: dict[str, Callable[..., Scene]] = {
    "single": _single,
    "colour": _colour,
    "two": _two,
    "count": _count,
    "position": _position,
}


def make_scene(rng: random.Random, kind: str, *core: Any) -> Scene:
    """A random scene of a kind about given things, such as ("count", "cat", 3)."""
    return _MAKERS[kind](rng, *core)


def _any_background(rng: random.Random) -> str:
    return WHITE if rng.random() < 0.5 else rng.choice(COLOURS)


def _anywhere(rng: random.Random, name: str) -> Item:
    if rng.random() < 0.5:
        return Item(name, LARGE, rng.randrange(4), rng.randrange(4))
    return _in_quadrant(rng, name, rng.randrange(2), rng.randrange(2))


def _in_quadrant(rng: random.Random, name: str, row: int, column: int) -> Item:
    return Item(name, SMALL, 4 * row + rng.randrange(2), 4 * column + rng.randrange(2))


def _related_items(rng: random.Random, first: str, word: str, second: str) -> tuple[Item, Item]:
    across = rng.randrange(2)
    here, there = ((across, 0), (across, 1)) if word == "left of" else ((0, across), (1, across))
    return _in_quadrant(rng, first, *here), _in_quadrant(rng, second, *there)
