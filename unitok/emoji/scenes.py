"""Scenes: what a picture of the emoji world holds, drawn at random and rendered in batches.

A canvas has 8 x 8 tiles of 8 pixels. Objects lie on whole tiles, because a tile that mixes sprite
and background at many offsets needs many more picture codes. In the manner of GenEval
(https://arxiv.org/abs/2310.11513): one object, two objects, counts, positions, colours.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from unitok.emoji import split as splits
from unitok.emoji.sprites import INDEX, LARGE, NAMES, SIZES, SMALL, TILE, sprites

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

Style = Literal["blended", "card", "square"]
Split = Literal["train", "heldout", "any"]
STYLE: Style = "blended"
CARD_RADIUS = {LARGE: 7.0, SMALL: 5.0}  # pixels


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


def render(
    scenes: Sequence[Scene],
    device: torch.device | str = "cpu",
    style: Style = STYLE,
    backing: Tensor | None = None,
) -> Tensor:
    """Pictures of the scenes: float32 [B, 3, 64, 64] in [0, 1] on `device`.

    Args:
        scenes: What the pictures show.
        device: Where they are made.
        style: What lies under each sprite: the background itself ("blended"), or a white card that
            fills the item's tiles, with rounded ("card") or square ("square") corners.
        backing: Colours [B, 4, 3] in [0, 1] of a square card under each item, instead of a style.
    """
    colours = torch.tensor([BACKGROUNDS[scene.background] for scene in scenes]).reshape(-1, 3) / 255
    canvas = colours.to(device)[:, :, None, None].repeat(1, 1, CANVAS, CANVAS)
    pixels = canvas.permute(0, 2, 3, 1)  # a view: pasting writes to the canvas
    for size in SIZES:
        placed = [
            (picture, slot, INDEX[item.name], item.row, item.column)
            for picture, scene in enumerate(scenes)
            for slot, item in enumerate(scene.items)
            if item.size == size
        ]
        if placed:
            _paste(pixels, torch.tensor(placed).to(device), size, style, backing)
    return canvas


def _paste(canvas: Tensor, placed: Tensor, size: int, style: Style, backing: Tensor | None) -> None:
    """Put all items of one size onto the canvas [B, H, W, 3] at once; they do not overlap."""
    picture, slot, name, row, column = placed.T
    steps = torch.arange(size * TILE, device=canvas.device)
    rows = (row * TILE)[:, None, None] + steps[:, None]  # [n, s, 1]
    columns = (column * TILE)[:, None, None] + steps  # [n, 1, s]
    where = (picture[:, None, None], rows, columns)
    if backing is None:
        patch, under = patches(size, style, str(canvas.device))[name], canvas[where]
    else:
        patch = patches(size, "blended", str(canvas.device))[name]
        under = backing.to(canvas)[picture, slot][:, None, None, :]
    canvas[where] = patch[..., :3] + (1 - patch[..., 3:]) * under


@cache
def patches(size: int, style: Style, device: str) -> Tensor:
    """Sprites with the card under them, premultiplied by alpha, [N, s, s, 4].

    The tensor is shared: do not write to it.
    """
    sprite = sprites(size).permute(0, 2, 3, 1)
    if style != "blended":
        card = _card(size, CARD_RADIUS[size] if style == "card" else 0.0)  # white, premultiplied
        sprite = sprite + (1 - sprite[..., 3:]) * card[..., None]
    return sprite.to(device)


def _card(size: int, radius: float) -> Tensor:
    """Coverage of a card by pixel, [s, s], its corners antialiased by 4 x 4 samples."""
    side, samples = size * TILE, 4
    centre = (torch.arange(side * samples) + 0.5) / samples - side / 2
    beyond = (centre.abs() - (side / 2 - radius)).clamp(min=0)
    inside = (beyond[:, None] ** 2 + beyond[None, :] ** 2 <= radius**2) | (
        (beyond[:, None] == 0) | (beyond[None, :] == 0)
    )
    return inside.float().reshape(side, samples, side, samples).mean((1, 3))


def to_pil(picture: Tensor) -> Image.Image:
    """A picture [3, H, W] in [0, 1] as an 8-bit RGB image."""
    pixels = picture.detach().float().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
