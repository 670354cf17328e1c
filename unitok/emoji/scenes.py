"""Scenes: what a picture of the emoji world holds.

A canvas has 8 x 8 tiles of 8 pixels. Objects lie on whole tiles, because a tile that mixes sprite
and background at many offsets needs many more picture codes.
"""

from collections import Counter
from dataclasses import dataclass

from unitok.emoji.sprites import TILE

GRID = 8  # tiles
CANVAS = GRID * TILE  # pixels
WHITE = "white"
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    WHITE: (255, 255, 255),
    "blue": (120, 170, 250),
    "green": (130, 205, 140),
    "yellow": (253, 226, 110),
    "pink": (255, 170, 205),
    "purple": (175, 140, 230),
}
COLOURS: tuple[str, ...] = tuple(name for name in BACKGROUNDS if name != WHITE)
COUNTS = (2, 3, 4)
RELATIONS = ("left of", "right of", "above", "below")
KINDS: dict[str, float] = {  # kind -> share in a random batch
    "single": 0.12,
    "colour": 0.20,
    "two": 0.20,
    "count": 0.24,
    "position": 0.24,
}
SLOTS = 4  # the most items a scene holds


@dataclass(frozen=True, slots=True)
class Item:
    """One object: its size, and the row and column of its upper left corner, in tiles."""

    name: str
    size: int
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A background and one to four items that do not overlap."""

    kind: str
    background: str
    items: tuple[Item, ...]

    @property
    def counts(self) -> Counter[str]:
        """How often each object occurs, by name."""
        return Counter(item.name for item in self.items)

    def relation(self) -> tuple[str, str, str] | None:
        """(first, "left of" or "above", second) of two different objects, else None.

        When both words hold (exactly diagonal), it is "left of".
        """
        if len(self.items) != 2 or self.items[0].name == self.items[1].name:
            return None
        here, there = self.items
        for first, second in ((here, there), (there, here)):
            if stands(first, "left of", second):
                return first.name, "left of", second.name
        for first, second in ((here, there), (there, here)):
            if stands(first, "above", second):
                return first.name, "above", second.name
        return None


def canonical(first: str, word: str, second: str) -> tuple[str, str, str]:
    """The same relation, said with "left of" or "above".

    Raises:
        ValueError: There is no such relation.
    """
    match word:
        case "left of" | "above":
            return first, word, second
        case "right of":
            return second, "left of", first
        case "below":
            return second, "above", first
    raise ValueError(f"no relation {word!r}; relations are {RELATIONS}")


def stands(first: Item, word: str, second: Item) -> bool:
    """Whether `first` is `word` `second`.

    The centres must differ in that direction, and at least as much as they differ across it.
    """
    right = (2 * second.column + second.size) - (2 * first.column + first.size)
    down = (2 * second.row + second.size) - (2 * first.row + first.size)
    along, across = {
        "left of": (right, down),
        "right of": (-right, down),
        "above": (down, right),
        "below": (-down, right),
    }[word]
    return along > 0 and along >= abs(across)
