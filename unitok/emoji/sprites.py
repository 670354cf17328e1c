"""The objects of the emoji world: Noto Color Emoji glyphs, stored once, scaled to two sizes.

`data/objects.txt` names those that the embedded model was trained on. `data/new_objects.txt` names
eight that it never saw, for fine-tuning (`unitok.emoji.new_objects`). `scripts/render_sprites.py`
and `scripts/choose_new_objects.py` made their pictures from the font.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

DATA = Path(__file__).parent / "data"
TILE = 8  # pixels; one picture token covers one tile
LARGE, SMALL = 5, 3  # tiles
SIZES = (LARGE, SMALL)
# Pixels left free on each side, so that a sprite never touches the edge of its card.
MARGIN = {LARGE: 2, SMALL: 1}


def glyphs(objects: str = "objects") -> dict[str, str]:
    """The emoji character of each name, in the order of a file in `data`."""
    lines = (DATA / f"{objects}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split() for line in lines)


NAMES: tuple[str, ...] = tuple(glyphs())
NEW_NAMES: tuple[str, ...] = tuple(glyphs("new_objects"))
ALL_NAMES: tuple[str, ...] = NAMES + NEW_NAMES
INDEX: dict[str, int] = {name: index for index, name in enumerate(ALL_NAMES)}


@cache
def sprites(size: int, names: tuple[str, ...] = NAMES) -> Tensor:
    """The sprites of `names` at `size` tiles: float32 [N, 4, s, s] in [0, 1], s = 8 * size.

    Channels are red, green, blue, premultiplied by alpha, and alpha. The tensor is shared: do not
    write to it.

    Raises:
        ValueError: The world has no sprites of that size.
    """
    if size not in SIZES:
        raise ValueError(f"no sprites of {size} tiles; sizes are {SIZES}")
    return torch.stack([_sprite(name, size) for name in names])


def _sprite(name: str, size: int) -> Tensor:
    folder = "new_sprites" if name in NEW_NAMES else "sprites"
    return scaled(DATA / folder / f"{name}.png", size)


def scaled(path: Path, size: int) -> Tensor:
    """A picture of a glyph as a sprite of `size` tiles, [4, s, s], as `sprites` gives them."""
    with Image.open(path) as image:
        glyph = image.convert("RGBA")
    side = size * TILE
    room = side - 2 * MARGIN[size]
    scale = room / max(glyph.size)
    width, height = (max(1, round(scale * length)) for length in glyph.size)
    # Pillow filters RGBA with premultiplied alpha, so transparent pixels do not darken the edges.
    small = glyph.resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(small, ((side - width) // 2, (side - height) // 2))
    straight = torch.from_numpy(np.asarray(canvas, dtype=np.float32) / 255).permute(2, 0, 1)
    colour, alpha = straight[:3], straight[3:]
    return torch.cat([colour * alpha, alpha])
