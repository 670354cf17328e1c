"""Train the default model: drawings, readings and conversations of the emoji world, together.

    python scripts/pretrain.py --out runs/default --image-tokenizer runs/tokenizer/checkpoint.pt

The same command goes on from OUT/checkpoint.pt exactly where it stopped, uses a GPU if there is
one, and writes OUT/log.jsonl, OUT/curves.png and OUT/held_out.png on the way. At the end, and at
each checkpoint, OUT/model is a folder that `unitok.load` opens. --minutes stops a run early; the
learning rate follows --steps.
"""

import argparse
import dataclasses
import math
import sys
from pathlib import Path

import torch

from unitok.emoji.pretraining import Inputs, PretrainRun, pretrain
from unitok.training.loop import LoopOptions

ASSETS = Path(__file__).parent.parent / "unitok" / "assets" / "default"


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is written")
    parser.add_argument("--image-tokenizer", type=Path, required=True, help="its checkpoint.pt")
    parser.add_argument("--text-tokenizer", type=Path, default=ASSETS, help="folder or file")
    for name in ("steps", "drawings", "readings", "accumulate", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(PretrainRun, name))
    parser.add_argument("--lr", type=float, default=PretrainRun.lr)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--every", type=int, default=250, help="steps between evaluations")
    parser.add_argument("--prompts", type=int, default=20, help="held-out prompts per category")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    """Train, or go on."""
    args = parse()
    names = {field.name for field in dataclasses.fields(PretrainRun)}
    run = PretrainRun(**{name: value for name, value in vars(args).items() if name in names})
    inputs = Inputs(args.image_tokenizer, args.text_tokenizer)
    options = LoopOptions(args.out, args.steps, args.minutes, save_every=args.every)
    try:
        pretrain(run, inputs, options, args.prompts)
    except (ValueError, OSError) as error:
        sys.exit(f"pretrain: {error}")


if __name__ == "__main__":
    main()
