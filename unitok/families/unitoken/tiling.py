"""AnyRes: a picture cut into tiles, each of which the vision encoder sees at full size.

Source: https://github.com/SxJyJay/UniToken, unitoken/tools/mm_utils.py.
"""

import math
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

# Columns and rows of tiles that a picture may be cut into, in the reference's order.
GRIDS = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1))


@dataclass(frozen=True)
class Tiling:
    """How AnyRes cuts a picture into tiles.

    Attributes:
        size: Width and height of the picture.
        side: Of a tile, in pixels.
    """

    size: tuple[int, int]
    side: int

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows: those that keep most pixels, then those that waste the fewest."""
        width, height = self.size

        def worth(grid: tuple[int, int]) -> tuple[int, int]:
            canvas_width, canvas_height = (n * self.side for n in grid)
            scale = min(canvas_width / width, canvas_height / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - canvas_width * canvas_height

        return max(GRIDS, key=worth)  # of equals the first, as in the reference

    def tiles(self, image: Image.Image) -> list[Image.Image]:
        """The whole picture in one tile, out of shape; then its tiles, row by row."""
        columns, rows = self.grid
        canvas = self.padded(image, columns * self.side, rows * self.side)
        corners = ((x * self.side, y * self.side) for y in range(rows) for x in range(columns))
        parts = [canvas.crop((x, y, x + self.side, y + self.side)) for x, y in corners]
        return [image.resize((self.side, self.side), Image.Resampling.BICUBIC), *parts]

    def padded(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """The picture in the middle of a black canvas, which it fills one way."""
        across, down = width / image.width, height / image.height
        size = (
            (width, min(math.ceil(image.height * across), height))
            if across < down
            else (min(math.ceil(image.width * down), width), height)
        )
        canvas = Image.new("RGB", (width, height))
        corner = (width - size[0]) // 2, (height - size[1]) // 2
        canvas.paste(image.resize(size, Image.Resampling.BICUBIC), corner)
        return canvas

    def unpadded(self, patches: int) -> tuple[slice, slice]:
        """Rows and columns of patches that show the picture and no border, of `patches` a tile."""
        width, height = self.size
        columns, rows = (n * patches for n in self.grid)
        if width / height > columns / rows:
            border = (rows - int(height * (columns / width))) // 2
            return slice(border, rows - border), slice(columns)
        border = (columns - int(width * (rows / height))) // 2
        return slice(rows), slice(border, columns - border)


@dataclass(frozen=True, eq=False)
class TiledPicture:
    """The pixels of the whole and of its tiles, [tiles + 1, 3, S, S] in [-1, 1]."""

    pixels: Tensor
    tiling: Tiling
