"""Measure a default-type model on held-out scenes of the emoji world.

    python scripts/evaluate.py              # the embedded model, 100 prompts per category
    python scripts/evaluate.py --model runs/default/model --prompts 40
    python scripts/evaluate.py --sweep      # which sampling draws best

It prints one JSON object. --grid FILE also saves a picture of drawings, and --failures lists the
drawings that are wrong.
"""

import argparse
import json
import sys
from pathlib import Path

import unitok
from unitok.emoji.evaluation import SEED, report, sweep


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, default=None, help="folder; default: the embedded model"
    )
    parser.add_argument("--prompts", type=int, default=100, help="per category")
    parser.add_argument(
        "--grid", type=Path, default=None, help="where to save a picture of drawings"
    )
    parser.add_argument("--failures", action="store_true", help="list the drawings that are wrong")
    parser.add_argument("--sweep", action="store_true", help="drawings only, at many samplings")
    parser.add_argument(
        "--seed", type=int, default=SEED, help="of the scenes: a new one, new scenes"
    )
    parser.add_argument("--device", default=None)
    return parser.parse_args()


def main() -> None:
    """Evaluate and print."""
    args = parse()
    try:
        model = unitok.load(args.model, device=args.device)
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate: {error}")
    if args.sweep:
        sweep(model, args.prompts, args.seed)
        return
    result = report(model, args.prompts, args.seed)
    print(json.dumps(result.scores, indent=2))
    if args.grid:
        result.grid.save(args.grid)
    if args.failures:
        for drawing in result.drawn:
            if not drawing.ok:
                print(f"{drawing.kind}: {drawing.prompt!r}: {drawing.reason}")


if __name__ == "__main__":
    main()
