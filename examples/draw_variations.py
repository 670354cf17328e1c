"""Draw variations of a prompt: several samples at several strengths of guidance.

    python examples/draw_variations.py "a cat left of a house"
    python examples/draw_variations.py "two apples" --samples 6 --guidance 1 2 4 --seed 3

OUT gets a PNG per picture, named by guidance and sample, and variations.png with all of them: a row
per guidance scale. All are drawn together, in the same steps of the engine. A picture's seed stands
in its PNG; the same seed draws the same picture again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import unitok


def draw_rows(
    model: unitok.Model, prompt: str, scales: Sequence[float], samples: int, seed: int
) -> list[tuple[Image.Image, ...]]:
    """The pictures of each guidance scale. Results come as they finish, each with its index."""
    asked = [unitok.Draw(prompt, guidance=scale, n=samples, seed=seed) for scale in scales]
    rows: list[tuple[Image.Image, ...]] = [()] * len(asked)
    for result in model.run(asked):
        if result.error is not None:
            raise RuntimeError(result.error)
        assert isinstance(result, unitok.DrawResult)
        rows[result.index] = result.images
    return rows


def table_of(rows: Sequence[Sequence[Image.Image]], gap: int = 4) -> Image.Image:
    """All pictures in one, row by row."""
    width, height = (side + gap for side in rows[0][0].size)
    table = Image.new("RGB", (len(rows[0]) * width - gap, len(rows) * height - gap), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            table.paste(image, (x * width, y * height))
    return table


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("prompt", help="what to draw")
    parser.add_argument(
        "--samples", type=int, default=4, help="pictures per row (default: %(default)s)"
    )
    parser.add_argument(
        "--guidance",
        type=float,
        nargs="+",
        default=[1.0, 1.5, 2.0],
        help="scales, a row each (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same one draws the same (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/variations"),
        help="a folder for the results (default: %(default)s)",
    )
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    with unitok.load() as model:
        rows = draw_rows(model, args.prompt, args.guidance, args.samples, args.seed)
    for scale, row in zip(args.guidance, rows, strict=True):
        for number, image in enumerate(row):
            image.save(args.out / f"guidance-{scale:g}-{number}.png")
    table_of(rows).save(args.out / "variations.png")
    print(f"{len(rows)} x {args.samples} pictures in {args.out}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
