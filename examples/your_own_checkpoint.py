"""Save a model as a folder, load that folder, and get the same picture from both.

    python examples/your_own_checkpoint.py                  # saves the embedded model
    python examples/your_own_checkpoint.py FOLDER           # or opens a folder of yours

OUT gets checkpoint/, which `unitok.load` and `unitok --model` open as they open any checkpoint, and
a drawing of each. With FOLDER, or a hub id, that model takes the embedded one's place.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import unitok


def draw(model: unitok.Model, prompt: str, seed: int, file: Path) -> bytes:
    """Draw, save the picture, and return its pixels as bytes."""
    image = model.draw(prompt, seed=seed).image
    image.save(file)
    return image.tobytes()


def main() -> None:
    """Read the command line, save, load, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", help="a checkpoint's folder, or a hub id")
    parser.add_argument(
        "--prompt",
        default="a dog on a green background",
        help="what to draw (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same one draws the same (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/checkpoint"),
        help="a folder for the results (default: %(default)s)",
    )
    args = parser.parse_args()

    copy = args.out / "checkpoint"
    if args.folder is not None and Path(args.folder).resolve() == copy.resolve():
        parser.error(f"{copy} cannot be its own copy; choose another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    with unitok.load(args.folder) as model:
        model.save(copy)
        print(f"{model.name}: {model.info().parameters:,} parameters, saved to {copy}")
        before = draw(model, args.prompt, args.seed, args.out / "original.png")
    with unitok.load(copy) as model:
        after = draw(model, args.prompt, args.seed, args.out / "loaded.png")
    if before != after:
        sys.exit(f"error: {copy} draws another picture than the model it is a copy of")
    print("both draw the same picture")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
