"""Choose eight emoji that the embedded model never saw, to fine-tune it on, and render them.

    python scripts/choose_new_objects.py --font NotoColorEmoji.ttf

Candidates are the emoji whose Unicode name is one word that the world does not have. They are taken
in the order of a hash of their names, so that nobody picks the easy ones. One that looks much like
another object, or like a plain background, is passed over, since the checker could not tell them
apart. The names go to unitok/emoji/data/new_objects.txt, the pictures to new_sprites/.
"""

import argparse
import hashlib
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import ImageFont
from torch import Tensor

from scripts.render_sprites import BITMAP_SIZE, DEBIAN_FONT, render
from unitok.emoji.scenes import BACKGROUNDS
from unitok.emoji.sprites import DATA, NAMES, SIZES, glyphs, scaled, sprites

BLOCKS = ((0x2600, 0x27BF), (0x1F300, 0x1F6FF), (0x1F900, 0x1FAFF))
COUNT = 8
LONGEST = 10  # letters of a name
ALIKE = 0.028  # the mean squared error between the two sprites of the world that are most alike


def candidates(font: ImageFont.FreeTypeFont) -> list[tuple[str, str]]:
    """(name, character) of the emoji that may be chosen, in the order of their hashes."""
    found = [(unicodedata.name(c, "").lower(), c) for c in characters()]
    known = {*NAMES, *glyphs().values()}
    fit = [pair for pair in found if is_plain(pair[0]) and not known & set(pair)]
    drawn = [pair for pair in fit if has_picture(pair[1], font)]
    return sorted(drawn, key=lambda pair: hashlib.sha256(pair[0].encode()).digest())


def characters() -> Iterator[str]:
    """The characters among which emoji lie."""
    for first, last in BLOCKS:
        yield from map(chr, range(first, last + 1))


def is_plain(name: str) -> bool:
    """Whether a name is one short word whose plural ends in an "s" more."""
    return name.isalpha() and len(name) <= LONGEST and not name.endswith("s")


def has_picture(glyph: str, font: ImageFont.FreeTypeFont) -> bool:
    """Whether the font has a picture of a character."""
    try:
        render(glyph, font)
    except ValueError:
        return False
    return True


def looks(sprite: Tensor) -> Tensor:
    """A sprite [4, s, s] on each background, [6, 3, s, s]."""
    palette = torch.tensor(list(BACKGROUNDS.values()))[:, :, None, None] / 255
    return sprite[:3] + (1 - sprite[3:]) * palette


def differs(sprite: Tensor, others: list[Tensor]) -> bool:
    """Whether a sprite looks unlike others, and unlike nothing at all, on every background."""
    own, plain = looks(sprite), looks(torch.zeros_like(sprite))
    errors = [(own - look).square().mean((1, 2, 3)).min() for look in [plain, *map(looks, others)]]
    return min(map(float, errors)) >= ALIKE


def main() -> None:
    """Choose, and write the pictures and the list."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--font", type=Path, default=DEBIAN_FONT)
    parser.add_argument("--out", type=Path, default=DATA)
    args = parser.parse_args()
    font = ImageFont.truetype(str(args.font), BITMAP_SIZE)
    kept = {size: list(sprites(size)) for size in SIZES}
    chosen: dict[str, str] = {}
    (args.out / "new_sprites").mkdir(parents=True, exist_ok=True)
    for name, glyph in candidates(font):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sprite.png"
            render(glyph, font).save(path, optimize=True)
            made = {size: scaled(path, size) for size in SIZES}
            if not all(differs(made[size], kept[size]) for size in SIZES):
                continue
            (args.out / "new_sprites" / f"{name}.png").write_bytes(path.read_bytes())
        chosen[name] = glyph
        for size in SIZES:
            kept[size].append(made[size])
        if len(chosen) == COUNT:
            break
    lines = "".join(f"{name} {glyph}\n" for name, glyph in chosen.items())
    (args.out / "new_objects.txt").write_text(lines, encoding="utf-8")
    print("\n".join(chosen))


if __name__ == "__main__":
    main()
