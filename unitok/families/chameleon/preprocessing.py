"""What Chameleon does to a picture before its VQGAN sees it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from unitok.families.common.preprocessing import (
    LANCZOS,
    check_pixels,
    read_colours,
    read_pixels,
    read_scale,
    read_side,
)

LONGEST = 64  # times as long as wide; of more, the ends are cut off before it grows, for memory
# transformers' ChameleonImageProcessor rounds 2/255 down; we do what Meta's code does.
SCALES = (2 / 255, 0.0078)


def centre_square(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Bring the shorter side to `size` pixels and cut out the middle.

    Source: facebookresearch/chameleon, chameleon/inference/image_tokenizer.py.
    """
    shorter = min(image.size)
    image = middle(image, *(min(side, LONGEST * shorter) for side in image.size))
    scale = size / shorter
    fitted = round(scale * image.width), round(scale * image.height)
    return middle(image.resize(fitted, resample), size, size)


def middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of a picture."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def check_preprocessor(
    folder: Path, size: int, strict: bool, resample: Sequence[int] = (LANCZOS,)
) -> None:
    """Check that a folder asks for the middle of its pictures in [-1, 1], if for anything.

    Args:
        folder: The checkpoint's.
        size: The side of that square in pixels.
        strict: Whether an unknown setting is an error.
        resample: The filters that it may name.

    Raises:
        ValueError: It asks for something else.
    """
    pixels = read_pixels(folder, strict, optional=True)
    if not pixels.data:
        return
    required = {"do_center_crop": (None, True), "resample": (None, *resample)}
    check_pixels(pixels, ("size", "crop_size"), required)
    shortest = pixels.data.get("size")
    if isinstance(shortest, Mapping) and "shortest_edge" in shortest:
        shortest = shortest["shortest_edge"]
    stated = (shortest, pixels.data.get("crop_size"))
    sides = [read_side(side, pixels.where) for side in stated if side is not None]
    if any(side != size for side in sides):
        raise ValueError(f"{pixels.where} asks for pictures of {sides} pixels, not {size}")
    mean, std = read_colours(pixels)
    byte = read_scale(pixels)
    is_known = any(all(math.isclose(byte / s, scale) for s in std) for scale in SCALES)
    if not is_known or not all(math.isclose(m, s) for m, s in zip(mean, std, strict=True)):
        raise ValueError(f"{pixels.where}: its pixels do not lie in [-1, 1], as Chameleon's do")
