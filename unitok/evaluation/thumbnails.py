"""Pictures within a page, small and few enough that the file can be sent around."""

from __future__ import annotations

import base64
from io import BytesIO

from PIL import Image

from unitok.evaluation.markup import Markup, element
from unitok.pictures import PictureLike, open_picture
from unitok.terminal import one_line

SIDE = 256  # pixels, at most
SMALL = 96  # pixels: up to here a picture is enlarged with hard edges, and stored as it is
BUDGET = 6_000_000  # bytes of all pictures of a page; base64 makes 8 MB of them
QUALITY = 85  # of a JPEG
MOST_WORDS = 300  # characters that stand for a picture


class Thumbnails:
    """Makes the pictures of one page, as long as there is room.

    Attributes:
        left: How many more bytes there is room for.
        left_out: How many pictures found no room.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        """Begin a page."""
        self.left, self.left_out = budget, 0

    def picture(self, source: PictureLike, words: str) -> Markup:
        """A picture as an element, or a note in its place.

        Args:
            source: The picture.
            words: What it is, for those who cannot see it.
        """
        if self.left <= 0:
            self.left_out += 1
            return element("p", "(left out: the page is full)", class_="soft")
        try:
            image = open_picture(source)
        except (ValueError, OSError) as error:
            return element("p", f"({one_line(error)})", class_="soft")
        data, kind = encoded(image)
        self.left -= len(data)
        address = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        small = "small" if max(image.size) <= SMALL else "large"
        return element("img", src=address, alt=words[:MOST_WORDS], class_=small)


def encoded(image: Image.Image) -> tuple[bytes, str]:
    """The bytes of a small picture, and their format."""
    file = BytesIO()
    if max(image.size) <= SMALL:
        image.save(file, "PNG", optimize=True)
        return file.getvalue(), "png"
    image = image.copy()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue(), "jpeg"
