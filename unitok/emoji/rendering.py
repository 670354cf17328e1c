"""Pictures of scenes, rendered in batches."""

from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from unitok.emoji.scenes import BACKGROUNDS, CANVAS, Scene
from unitok.emoji.sprites import ALL_NAMES, INDEX, LARGE, SIZES, SMALL, TILE, sprites

Style = Literal["blended", "card", "square"]
STYLE: Style = "blended"
CARD_RADIUS = {LARGE: 7.0, SMALL: 5.0}  # pixels


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

    N is the number of `ALL_NAMES`. The tensor is shared: do not write to it.
    """
    sprite = sprites(size, ALL_NAMES).permute(0, 2, 3, 1)
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
