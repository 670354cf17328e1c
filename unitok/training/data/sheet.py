"""Samples of a data set in one picture: what is shown, what is said, what is painted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, ImageFont, ImageOps

from unitok.training.data.conversations import Conversation, ConversationTurn

SIDE, GAP, COLUMNS = 192, 12, 4  # pixels, pixels, pictures in a row
BODY = 13  # pixels of a letter
MOST_LINES = 8  # below a picture
LONGEST = 600  # characters of a turn that are looked at
INK, GREY = "#202020", "#707070"


@dataclass(frozen=True)
class Tile:
    """A sample.

    Attributes:
        image: Its picture; None if it has none.
        notes: What stands below, each with its colour.
    """

    image: Image.Image | None
    notes: tuple[tuple[str, str], ...]


def sample_sheet(conversations: Sequence[Conversation]) -> Image.Image:
    """Samples in rows, each a picture with what is said below it.

    Args:
        conversations: At least one, whose pictures can be read.
    """
    font = ImageFont.load_default(BODY)
    tiles = [tile_of(side) for conversation in conversations for side in shown_sides(conversation)]
    rows = [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    drawn = [row_picture(row, font) for row in rows]
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, sum(r.height for r in drawn)), "white")
    top = 0
    for row in drawn:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def shown_sides(conversation: Conversation) -> Iterator[Conversation]:
    """A conversation; of a pair of answers one with each, whose name says which it is."""
    if conversation.rejected is None:
        yield conversation
        return
    for side, what in zip(conversation.sides, ("chosen", "rejected"), strict=True):
        yield replace(side, name=f"{side.name} {what}")


def tile_of(conversation: Conversation) -> Tile:
    """A conversation as a tile: its first picture, and all that is said."""
    pictures = (p for turn in conversation.turns for p, _ in turn.pictures)
    first = next(pictures, None)
    image = None
    if first is not None:
        image = ImageOps.contain(first.open(), (SIDE, SIDE), Image.Resampling.LANCZOS)
    notes = tuple((said(turn), INK if any(turn.learned) else GREY) for turn in conversation.turns)
    return Tile(image, ((conversation.name, GREY), *notes))


def said(turn: ConversationTurn) -> str:
    """A turn in words. A picture is one in brackets."""
    parts = (p if isinstance(p, str) else "[picture]" for p in turn.parts)
    return f"{turn.role}: {' '.join(' '.join(parts)[:LONGEST].split())}"


def row_picture(tiles: Sequence[Tile], font: ImageFont.FreeTypeFont | ImageFont.ImageFont):
    """Tiles side by side."""
    lines = [list(lines_of(tile, font)) for tile in tiles]
    step = round(BODY * 1.35)
    height = GAP + SIDE + GAP // 2 + step * max(map(len, lines)) + GAP // 2
    row = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, height), "white")
    pen = ImageDraw.Draw(row)
    for column, (tile, notes) in enumerate(zip(tiles, lines, strict=True)):
        x = GAP + column * (SIDE + GAP)
        pen.rectangle((x - 1, GAP - 1, x + SIDE, GAP + SIDE), outline="#cccccc")
        if tile.image is not None:
            left, top = (SIDE - tile.image.width) // 2, (SIDE - tile.image.height) // 2
            row.paste(tile.image, (x + left, GAP + top))
        for number, (text, colour) in enumerate(notes):
            pen.text((x, GAP + SIDE + GAP // 2 + number * step), text, colour, font)
    return row


def lines_of(
    tile: Tile, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Iterator[tuple[str, str]]:
    """The lines below a tile, as wide as it, and not too many."""
    pairs = ((line, colour) for text, colour in tile.notes for line in wrapped(text, font))
    for number, (line, colour) in enumerate(pairs):
        if number == MOST_LINES:
            yield "...", colour
            return
        yield line, colour


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Iterator[str]:
    """The lines of a text. A word that is wider than a line is parted."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= SIDE:
            line = longer
            continue
        if line:
            yield line
        line = ""
        for letter in word:
            if font.getlength(line + letter) > SIDE:
                yield line
                line = ""
            line += letter
    if line:
        yield line
