"""What a finished picture shows: objects, places and background, found by matching sprites.

Every sprite of either size is compared with the picture at every whole-tile position, by squared
error against the sprite on its card on the found background. Placements are then taken greedily,
the one that explains most first, and what is left over must look like plain background.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unitok.emoji.captions import Claim, claim
from unitok.emoji.rendering import STYLE, Style, patches, render
from unitok.emoji.scenes import BACKGROUNDS, CANVAS, GRID, Item, Scene, stands
from unitok.emoji.sprites import ALL_NAMES, SIZES, TILE

# Mean squared errors over pixels in [0, 1]. The two sprites most alike are 0.028 apart, noise of
# standard deviation 0.05 adds 0.0025, a slight blur up to 0.006.
FLAT = 0.012  # a tile this near one palette colour may be background
ALIKE = 0.016  # a patch this near a sprite may show it, if no other sprite nor plain background
DISTINCT = 0.7  # ... comes nearly as near: error / next error
STRANGE = 0.03  # a tile this far from what was found there is unexplained
TOLERATED = 1 / GRID**2  # the share of unexplained tiles a picture may have


@dataclass(frozen=True)
class Found:
    """What a picture shows.

    Attributes:
        background: The name of its colour.
        items: The objects and their places.
        unexplained: The share of tiles, in [0, 1], that look unlike what was found.
    """

    background: str
    items: tuple[Item, ...]
    unexplained: float


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows what is wanted, and the reason in words."""

    ok: bool
    reason: str


def find(image: Tensor | Image.Image, style: Style = STYLE) -> Found:
    """Find what a picture shows.

    Args:
        image: A picture [3, 64, 64] in [0, 1], or an image of 64 x 64 pixels.
        style: What lies under the sprites.

    Raises:
        ValueError: The picture has another size.
    """
    picture = _pixels(image)
    background = _background(picture)
    items = _items(picture, background, style)
    error = (picture - _redraw(background, items, style)).square().mean(0)
    strange = F.avg_pool2d(error[None], TILE) > STRANGE
    return Found(background, items, strange.float().mean().item())


def check(image: Tensor | Image.Image, wanted: Scene | Claim, style: Style = STYLE) -> Verdict:
    """Whether a picture shows what is wanted and nothing else.

    Args:
        image: A picture [3, 64, 64] in [0, 1], or an image of 64 x 64 pixels.
        wanted: A scene requires its objects, counts, background and relation, at any place; a
            claim, such as `captions.parse(prompt)`, requires what it says, and it allows any
            relation if it states none.
        style: What lies under the sprites.

    Raises:
        ValueError: The picture has another size.
    """
    return judge(find(image, style), wanted)


def judge(found: Found, wanted: Scene | Claim) -> Verdict:
    """As `check`, of what was found in a picture."""
    wanted = claim(wanted) if isinstance(wanted, Scene) else wanted
    seen = Scene("found", found.background, found.items)
    if found.unexplained > TOLERATED:
        return Verdict(False, f"{found.unexplained:.0%} of the picture shows nothing known")
    if found.background != wanted.background:
        return Verdict(False, f"the background is {found.background}, not {wanted.background}")
    if tuple(sorted(seen.counts.items())) != wanted.objects:
        return Verdict(
            False, f"it shows {_listing(seen.counts)}, not {_listing(dict(wanted.objects))}"
        )
    if wanted.relation is not None and not _related(found.items, *wanted.relation):
        return Verdict(False, f"not true: {' '.join(wanted.relation)}")
    return Verdict(True, "as wanted")


def _listing(counts: Mapping[str, int]) -> str:
    parts = [f"{count} x {name}" for name, count in sorted(counts.items())]
    return " and ".join(parts) or "nothing"


def _related(items: tuple[Item, ...], first: str, word: str, second: str) -> bool:
    place = {item.name: item for item in items}
    return stands(place[first], word, place[second])


def _pixels(image: Tensor | Image.Image) -> Tensor:
    if isinstance(image, Image.Image):
        pixels = np.array(image.convert("RGB"), dtype=np.float32) / 255
        image = torch.from_numpy(pixels).permute(2, 0, 1)
    if image.shape != (3, CANVAS, CANVAS):
        raise ValueError(f"a picture is [3, {CANVAS}, {CANVAS}], not {list(image.shape)}")
    return image.detach().float().cpu().clamp(0, 1)


def _background(picture: Tensor) -> str:
    """The palette colour of most flat tiles; cards leave more tiles free than they show white."""
    palette = torch.tensor(list(BACKGROUNDS.values())) / 255  # [6, 3]
    error = (picture - palette[:, :, None, None]).square().mean(1)  # [6, H, W]
    tiles = F.avg_pool2d(error, TILE).flatten(1)
    near = (FLAT - tiles).clamp(min=0).sum(1)  # counts tiles, flatter ones more: no ties
    best = near.argmax() if near.any() else tiles.mean(1).argmin()
    return list(BACKGROUNDS)[int(best)]


def _items(picture: Tensor, background: str, style: Style) -> tuple[Item, ...]:
    """Placements that do not overlap, the one that explains most first."""
    candidates = [
        placement for size in SIZES for placement in _placements(picture, size, background, style)
    ]
    free = torch.ones(GRID, GRID, dtype=torch.bool)
    taken = []
    for _, item in sorted(candidates, key=lambda candidate: -candidate[0]):
        tiles = free[item.row : item.row + item.size, item.column : item.column + item.size]
        if tiles.all():
            tiles[:] = False
            taken.append(item)
    return tuple(sorted(taken, key=lambda item: (item.row, item.column)))


def _placements(
    picture: Tensor, size: int, background: str, style: Style
) -> list[tuple[float, Item]]:
    """(squared error saved over plain background, item) wherever a sprite of `size` may be seen."""
    windows = F.unfold(picture[None], size * TILE, stride=TILE)[0].T  # [positions, 3 s s]
    templates = _templates(size, background, style)  # [N + 1, 3 s s], the last one plain
    error = torch.cdist(windows, templates).square() / windows.shape[1]
    (best, other), index = (two.T for two in error.topk(2, largest=False))
    seen = (index[0] < len(ALL_NAMES)) & (best < ALIKE) & (best < DISTINCT * other)
    saved = (error[:, -1] - best) * windows.shape[1]
    across = GRID - size + 1
    return [
        (saved[p].item(), Item(ALL_NAMES[index[0][p]], size, *divmod(p, across)))
        for p in seen.nonzero()[:, 0].tolist()
    ]


@cache
def _templates(size: int, background: str, style: Style) -> Tensor:
    """Each sprite as it looks on the background, and the background: [N + 1, 3 * s * s]."""
    colour = torch.tensor(BACKGROUNDS[background])[:, None, None] / 255
    patch = patches(size, style, "cpu").permute(0, 3, 1, 2)
    looks = patch[:, :3] + (1 - patch[:, 3:]) * colour
    return torch.cat([looks, colour.expand_as(looks[:1])]).flatten(1)


def _redraw(background: str, items: tuple[Item, ...], style: Style) -> Tensor:
    return render([Scene("found", background, items)], style=style)[0]
