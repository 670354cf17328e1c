"""Measure a default-type model on held-out scenes of the emoji world.

    python scripts/evaluate.py              # the embedded model, 100 prompts per category
    python scripts/evaluate.py --model runs/default/model --prompts 40
    python scripts/evaluate.py --sweep      # which sampling draws best

Prints one JSON object; --grid FILE also saves a picture of drawings, --failures lists the drawings
that were refused.
"""

import argparse
import json
from pathlib import Path

import unitok
from unitok.emoji.scenes import KINDS
from unitok.evaluation.emoji import SEED, Drawn, draw_held_out, rate, report

SWEEP = [(t, g) for g in (1.0, 1.5, 2.0, 3.0) for t in (0.0, 0.4, 0.7, 1.0)]


def parse() -> argparse.Namespace:
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
    parser.add_argument(
        "--failures", action="store_true", help="list the drawings that were refused"
    )
    parser.add_argument("--sweep", action="store_true", help="drawings only, at many samplings")
    parser.add_argument(
        "--seed", type=int, default=SEED, help="of the scenes: a new one, new scenes"
    )
    parser.add_argument("--device", default=None)
    return parser.parse_args()


def main() -> None:
    args = parse()
    model = unitok.load(args.model, device=args.device)
    if args.sweep:
        for temperature, guidance in SWEEP:
            drawn = draw_held_out(
                model, args.prompts, args.seed, temperature=temperature, guidance=guidance
            )
            print(f"temperature {temperature} guidance {guidance}: {summary(drawn)}", flush=True)
        return
    result = report(model, args.prompts, args.seed)
    print(json.dumps(result.scores, indent=2))
    if args.grid:
        result.grid.save(args.grid)
    if args.failures:
        for d in result.drawn:
            if not d.ok:
                print(f"{d.kind}: {d.prompt!r}: {d.reason}")


def summary(drawn: list[Drawn]) -> str:
    scores = {kind: rate([d.ok for d in drawn if d.kind == kind]) for kind in KINDS}
    mean = sum(scores.values()) / len(scores)
    return " ".join(f"{kind} {score:.2f}" for kind, score in scores.items()) + f"; mean {mean:.3f}"


if __name__ == "__main__":
    main()
