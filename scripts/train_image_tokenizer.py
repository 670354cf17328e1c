"""Train the default model's image tokenizer on scenes of the emoji world.

    python scripts/train_image_tokenizer.py --out runs/tokenizer --steps 6000
    python scripts/train_image_tokenizer.py --out runs/conv --encoder conv   # VQ-16's own encoder

The run writes OUT/checkpoint.pt, from which the same command goes on exactly, OUT/log.jsonl,
OUT/curves.png and OUT/samples.png (above: held-out scenes; below: what is left of them).
"""

import argparse
import math
import sys
from pathlib import Path

import torch

from unitok.emoji.image_tokenizer import TokenizerRun, train
from unitok.training.loop import LoopOptions


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and log")
    parser.add_argument("--encoder", choices=("patch", "conv"), default="patch")
    parser.add_argument(
        "--style", choices=("blended", "card", "square"), default=TokenizerRun.style
    )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=TokenizerRun.batch)
    parser.add_argument("--lr", type=float, default=TokenizerRun.lr)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop early after so long")
    parser.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default_device)
    return parser.parse_args()


def main() -> None:
    """Train, or go on."""
    args = parse()
    run = TokenizerRun(
        steps=args.steps,
        batch=args.batch,
        lr=args.lr,
        style=args.style,
        seed=args.seed,
        device=args.device,
    )
    options = LoopOptions(args.out, args.steps, args.minutes, save_every=args.every)
    try:
        train(run, args.encoder, options)
    except (ValueError, OSError) as error:
        sys.exit(f"train_image_tokenizer: {error}")


if __name__ == "__main__":
    main()
