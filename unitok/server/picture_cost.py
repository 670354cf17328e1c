"""Refuses pictures that are small to send and large to read, before any pixel is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from unitok.messages import ParsedPicture
from unitok.picture_sources import Refused
from unitok.pictures import header_size
from unitok.requests import Edit
from unitok.server.errors import of_picture

# Photos have 2 to 20 pixels a byte, and screenshots up to 40. Files that are made to be large when
# they are read have hundreds.
PIXELS_PER_BYTE = 50
FEW_PIXELS = 2_000_000  # that all pictures of a request may have, however small their files are


def check_cost(pictures: Sequence[ParsedPicture], times: int = 1) -> None:
    """Refuse pictures that have too many pixels for the bytes of their files, taken together.

    A mask has few bytes, and so may have the pixels that those of its picture allow.

    Args:
        pictures: All pictures of a request, which are data URLs or bytes. The library refuses those
            that cannot be read.
        times: How often each is read, as every answer reads them.

    Raises:
        Refused: They have. The error names the first that is too much.
    """
    sizes = [_size(picture) for picture in pictures]
    total = sum(size for _, size in sizes)
    most, sum_of_pixels = FEW_PIXELS // times + PIXELS_PER_BYTE * total, 0
    for picture, (pixels, _) in zip(pictures, sizes, strict=True):
        sum_of_pixels += pixels
        if sum_of_pixels > most:
            told = (
                f"{picture.where}: {sum_of_pixels:,} pixels in files of {total:,} bytes; at most "
                f"{most:,} are read{f' for {times} answers' if times > 1 else ''}: "
                f"shrink the picture first{', or ask for fewer' if times > 1 else ''}"
            )
            raise Refused(told, "pixels", picture.where)


async def check_cost_aside(pictures: Sequence[ParsedPicture], times: int = 1) -> None:
    """Check pictures as `check_cost` does, beside the event loop.

    Raises:
        ApiError: They have too many pixels for their files.
    """
    if pictures:
        try:
            await asyncio.to_thread(check_cost, pictures, times)
        except Refused as error:
            raise of_picture(error, None) from None


def pictures_of(edit: Edit) -> list[ParsedPicture]:
    """The picture and the mask of an edit."""
    pictures = {"image": edit.image, "mask": edit.mask}
    return [ParsedPicture(one, name) for name, one in pictures.items() if one is not None]


def _size(picture: ParsedPicture) -> tuple[int, int]:
    """The pixels and the bytes of a picture; none of one that cannot be read."""
    try:
        return header_size(picture.source)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError):
        return 0, 0
