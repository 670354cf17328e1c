"""Pictures in the terminal that change while they are drawn, above a progress bar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import Progress
from rich.segment import Segment
from rich.style import Style

from unitok.terminal import HALF_BLOCK, Colour, colour_pairs

MOST = 16  # pictures that are shown; of more of them little could be seen
LINES_BELOW = 3  # of the terminal: the bar, and what is printed beside it
GAP = 2  # pixels between pictures
UNDRAWN = "dimgray"  # where a picture has no preview yet


class PictureProgress(Progress):
    """A progress bar, with pictures above it where there are some."""

    _pictures: HalfBlocks | None = None

    def show(self, images: Sequence[Image.Image | None], begin: bool) -> None:
        """Show pictures from now on.

        Args:
            images: As `HalfBlocks` takes them.
            begin: Whether they are shown though no pictures were shown before.
        """
        if begin or self._pictures is not None:
            self._pictures = HalfBlocks(images)
            self.refresh()

    def get_renderables(self) -> Iterable[RenderableType]:
        """The pictures and the bar."""
        if self._pictures is not None:
            yield self._pictures
        yield self.make_tasks_table(self.tasks)


class HalfBlocks:
    """Pictures in half blocks, as large as the terminal allows. Without colours nothing is shown.

    Attributes:
        images: The pictures, all of one size; None for one that has no pixels yet.
    """

    def __init__(self, images: Sequence[Image.Image | None]) -> None:
        """Show the first of these pictures, once one of them has pixels."""
        self.images = tuple(images[:MOST])
        self._segments: list[Segment] = []
        self._room = (0, 0)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Half blocks for the room that there is now."""
        if console.color_system is None or not any(self.images):
            return
        room = (options.max_width, max(1, console.height - LINES_BELOW))
        if room != self._room:
            self._segments, self._room = segments(arranged(self.images, *room)), room
        yield from self._segments


def segments(image: Image.Image) -> list[Segment]:
    """A picture as rich prints it. Neighbours of equal colours are one segment."""
    made = []
    for row in colour_pairs(image):
        for (upper, lower), same in groupby(row):
            style = Style(color=colour(upper), bgcolor=colour(lower))
            made.append(Segment(HALF_BLOCK * len(list(same)), style))
        made.append(Segment.line())
    return made


def colour(value: Colour) -> Color:
    """A colour as rich knows it."""
    return Color.from_rgb(*value)


def arranged(images: Sequence[Image.Image | None], columns: int, lines: int) -> Image.Image:
    """Pictures side by side on one, which fits into a part of the terminal.

    Args:
        images: The pictures, all of one size; None for one that has no pixels yet.
        columns: The most characters in a line.
        lines: The most lines, each of two rows of pixels.

    Returns:
        An RGB picture of an even number of rows. No picture on it is larger than it was.
    """
    size = next(image.size for image in images if image is not None)
    choices = [
        (scale(size, across, -(-len(images) // across), columns, 2 * lines), across)
        for across in range(1, len(images) + 1)
    ]
    factor, across = max(choices)
    width, height = (max(1, int(side * factor)) for side in size)
    down = -(-len(images) // across)
    rows = down * (height + GAP) - GAP
    whole = Image.new("RGB", (across * (width + GAP) - GAP, rows + rows % 2), "black")
    for i, image in enumerate(images):
        tile = Image.new("RGB", (width, height), UNDRAWN) if image is None else image
        tile = tile.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        whole.paste(tile, (i % across * (width + GAP), i // across * (height + GAP)))
    return whole


def scale(size: tuple[int, int], across: int, down: int, width: int, height: int) -> float:
    """How large pictures of a size can be, in rows and columns; at most 1.

    Args:
        size: Width and height of each.
        across: How many stand side by side.
        down: How many stand one below the other.
        width: The most pixels that all take, with the gaps between them.
        height: The same, from top to bottom.
    """
    room = (width - GAP * (across - 1)) / across, (height - GAP * (down - 1)) / down
    return min(1.0, *(space / side for space, side in zip(room, size, strict=True)))
