"""What Chameleon does to a picture before its VQGAN sees it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from unitok.families.common.preprocessing import (
    LANCZOS,
    check_pixels,
    read_colours,
    read_pixels,
    read_scale,
    read_side,
)

# transformers' ChameleonImageProcessor rounds 2/255 down; we do what Meta's code does.
SCALES = (2 / 255, 0.0078)


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
