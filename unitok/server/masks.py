"""Masks of OpenAI's wire, which are transparent where a picture is to be painted anew."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from unitok.openai_wire.body import WireError
from unitok.picture_sources import Refused
from unitok.pictures import opened_file

MASK = "mask"
MASK_NAME = "the mask"  # in messages


def white_mask(data: bytes) -> bytes:
    """A mask that is white where another is transparent, as PNG.

    Args:
        data: The other one, as PNG.

    Raises:
        Refused: It cannot be read, or is no PNG.
        WireError: It has no transparent pixel.
    """
    with opened_file(BytesIO(data), MASK_NAME) as image:
        if image.format != "PNG":
            raise Refused(f"{MASK_NAME} must be a PNG, not {image.format}", "format")
        image.load()
        alpha = _alpha(image)
    if alpha is None or alpha.getextrema()[0] != 0:
        raise WireError(
            f"{MASK_NAME} has no transparent pixel: make transparent what is to be painted anew",
            MASK,
        )
    file = BytesIO()
    alpha.point([255] + [0] * 255).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _alpha(image: Image.Image) -> Image.Image | None:
    """How opaque each pixel is, from 0 to 255; None if all are."""
    if image.mode in ("RGBA", "LA"):
        return image.getchannel("A")
    if "transparency" in image.info or image.mode == "PA":
        return image.convert("RGBA").getchannel("A")
    return None
