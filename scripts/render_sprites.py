"""Render the sprites of the emoji world from Noto Color Emoji.

python scripts/render_sprites.py --font NotoColorEmoji.ttf --out unitok/emoji/data/sprites

Each object of unitok/emoji/data/objects.txt becomes one trimmed RGBA picture, NAME.png. The font
must hold bitmaps (the CBDT build, as in Debian's fonts-noto-color-emoji).
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from unitok.emoji.sprites import DATA, glyphs

DEBIAN_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
BITMAP_SIZE = 109  # the one size the font holds


def render(glyph: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The glyph on a transparent ground, trimmed to its bounding box.

    Raises:
        ValueError: The font does not have it.
    """
    canvas = Image.new("RGBA", (2 * BITMAP_SIZE, 2 * BITMAP_SIZE))
    ImageDraw.Draw(canvas).text((20, 20), glyph, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font has no picture of {glyph}")
    return canvas.crop(box)


def main() -> None:
    """Render all objects of the world."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--font", type=Path, default=DEBIAN_FONT)
    parser.add_argument("--out", type=Path, default=DATA / "sprites")
    arguments = parser.parse_args()
    font = ImageFont.truetype(str(arguments.font), BITMAP_SIZE)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, glyph in glyphs().items():
        render(glyph, font).save(arguments.out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
