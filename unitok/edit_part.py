"""Which part of a picture an edit paints anew: the picture with its margin, and a mask of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unitok.pictures import MAX_PIXELS, PictureLike, open_picture
from unitok.requests import Edit
from unitok.results import pixels_of
from unitok.shown import shown

WHITE = 128  # and above, a value of a mask is white


@dataclass(frozen=True)
class EditPart:
    """A picture, and the part of it that is painted anew.

    Attributes:
        image: The picture in RGB, with its margin. The margin goes on with the picture's edge.
        mask: In RGB and of the same size: white where it is painted anew, else black.
        has_margin: Whether there is a margin.
    """

    image: Image.Image
    mask: Image.Image
    has_margin: bool = False


def part_of(asked: Edit) -> EditPart:
    """The part of a picture that an edit asks for.

    Raises:
        FileNotFoundError, ValueError, TypeError: A picture cannot be opened, the mask has another
            size, the box lies outside, or nothing or all of the picture is to be painted.
    """
    image = open_picture(asked.image)
    is_white = _white_of(asked, image)
    if asked.margin is None:
        _check_some(asked, is_white)
        return EditPart(image, _picture_of(is_white))
    sides = tuple(asked.margin)
    _check_margin(image, sides)
    left, top, right, bottom = sides
    around = ((top, bottom), (left, right))
    wider = np.pad(np.asarray(image), (*around, (0, 0)), mode="edge")
    is_white = np.pad(is_white, around, constant_values=True)
    return EditPart(Image.fromarray(wider), _picture_of(is_white), has_margin=True)


def mask_of(source: PictureLike, image: Image.Image) -> Image.Image:
    """A mask in shades of grey.

    Args:
        source: The mask.
        image: What it is a mask of.

    Raises:
        FileNotFoundError, ValueError, TypeError: It cannot be opened, or has another size.
    """
    mask = open_picture(source)
    if mask.size != image.size:
        raise ValueError(f"the mask has {pixels_of(mask)}, and its picture {pixels_of(image)}")
    return mask.convert("L")


def _white_of(asked: Edit, image: Image.Image) -> np.ndarray:
    """Bool [H, W]: what is painted anew of a picture without its margin."""
    if asked.mask is not None:
        return np.asarray(mask_of(asked.mask, image)) >= WHITE
    # Without any of them, a strength is of the whole picture.
    everything = asked.box is None and asked.margin is None
    is_white = np.full((image.height, image.width), everything)
    if asked.box is not None:
        left, top, right, bottom = _checked_box(asked.box, image)
        is_white[top:bottom, left:right] = True
    return is_white


def _checked_box(box: Sequence[int], image: Image.Image) -> Sequence[int]:
    left, top, right, bottom = box
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise ValueError(
            f"box is left, top, right and bottom within {pixels_of(image)}, with left below right "
            f"and top below bottom, not {shown(tuple(box))}"
        )
    return box


def _check_some(asked: Edit, is_white: np.ndarray) -> None:
    """Raise ValueError if a mask or a box names nothing of a picture, or all of it."""
    name = "mask" if asked.mask is not None else "box" if asked.box is not None else "strength"
    if not is_white.any():
        raise ValueError("the mask is empty: nothing in it is white, so nothing is painted anew")
    if is_white.all() and asked.strength in (None, 1):
        raise ValueError(f"the {name} leaves nothing of the picture: use draw for a new one")


def _check_margin(image: Image.Image, sides: Sequence[int]) -> None:
    left, top, right, bottom = sides
    pixels = (image.width + left + right) * (image.height + top + bottom)
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"margin {shown(tuple(sides))} makes more than {MAX_PIXELS:,} pixels of the picture"
        )


def _picture_of(is_white: np.ndarray) -> Image.Image:
    return Image.fromarray(is_white.astype(np.uint8) * 255).convert("RGB")
