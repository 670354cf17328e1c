"""A sheet of pictures that shows which of them are right."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

Judged = tuple[Image.Image, bool]
GAP, BAR = 3, 3  # pixels


def picture_grid(rows: Sequence[Sequence[Judged]], scale: int = 2) -> Image.Image:
    """Rows of pictures of one size, each with a bar below it: green if it is right, else red.

    Args:
        rows: Each row's pictures, and whether each is right. There is at least one picture.
        scale: How many times a picture is enlarged.
    """
    side = next(image.width for row in rows for image, _ in row) * scale
    columns = max(map(len, rows))
    width, height = side + 2 * GAP, side + 2 * GAP + 2 * BAR
    grid = Image.new("RGB", (columns * width, len(rows) * height), "white")
    pen = ImageDraw.Draw(grid)
    for row, judged in enumerate(rows):
        for column, (image, right) in enumerate(judged):
            x, y = column * width + GAP, row * height + GAP
            grid.paste(image.resize((side, side), Image.Resampling.NEAREST), (x, y))
            pen.rectangle((x, y, x + side - 1, y + side - 1), outline="gray")
            bar = (x, y + side + GAP - 1, x + side - 1, y + side + GAP + BAR - 1)
            pen.rectangle(bar, fill="green" if right else "red")
    return grid
