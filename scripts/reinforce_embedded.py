"""Tune the embedded model by rewards: the data, and the scores of before and after.

    python scripts/reinforce_embedded.py data
    unitok train recipes/embedded/both_orders.toml
    unitok train recipes/embedded/places.toml
    unitok train recipes/embedded/settle.toml
    unitok train recipes/embedded/grpo.toml
    python scripts/reinforce_embedded.py score --out runs/embedded/before.jsonl
    python scripts/reinforce_embedded.py score --model runs/embedded/grpo/model \\
        --out runs/embedded/after.jsonl
    python scripts/reinforce_embedded.py compare runs/embedded/before.jsonl \\
        runs/embedded/after.jsonl
    python scripts/reinforce_embedded.py grid --model runs/embedded/grpo/model --out grid.png

`data` writes prompts and conversations of the training split. `score` asks 300 prompts of each kind
for each of two seeds of held-out scenes; a run that was stopped goes on. A file with scores of
another model is refused. `compare` prints means, paired bootstrap intervals and the bars, and ends
with exit code 1 if a bar is missed. `grid` draws held-out prompts of each kind, green where the
checker agrees.

DPO on the model's own drawings:

    unitok data pairs runs/embedded/draw.jsonl --reward emoji --guidance 1.5 \\
        --out runs/embedded/pairs.jsonl
    unitok train recipes/embedded/dpo.toml
"""

import argparse
import sys
from pathlib import Path

import unitok
from unitok.batch.identity import identity_of_load
from unitok.emoji.evaluation import GRID_COLUMNS, EmojiSuite, drawing_grid, judge_all
from unitok.emoji.held_out import SEED
from unitok.emoji.tuning_data import TuningSizes, write_tuning_data
from unitok.emoji.tuning_scores import (
    PROMPTS,
    SEEDS,
    changes,
    everything,
    read_scores,
    score_model,
    table_of,
)
from unitok.evaluation.suite import SuiteOptions
from unitok.requests import Draw
from unitok.saving import save_whole
from unitok.screen import counted

MISSED = 1  # the exit code if a bar is missed


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="write prompts and conversations")
    data.add_argument("--out", type=Path, default=Path("runs/embedded"))
    data.add_argument("--seed", type=int, default=0)
    for name, size in vars(TuningSizes()).items():
        data.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
    score = commands.add_parser("score", help="append scores to a file")
    score.add_argument("--model", default=None, help="folder; default: the embedded model")
    score.add_argument("--adapter", default=None, help="folder of an adapter")
    score.add_argument("--prompts", type=int, default=PROMPTS, help="of each kind and seed")
    score.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of the scenes")
    score.add_argument("--out", type=Path, required=True, help="JSON lines")
    compare = commands.add_parser("compare", help="print what changed")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    grid = commands.add_parser("grid", help="draw held-out prompts of each kind")
    grid.add_argument("--model", default=None, help="folder; default: the embedded model")
    grid.add_argument("--prompts", type=int, default=GRID_COLUMNS, help="of each kind")
    grid.add_argument("--seed", type=int, default=SEED, help="of the scenes")
    grid.add_argument("--out", type=Path, required=True, help="a picture")
    return parser.parse_args()


def main() -> None:
    """Write the data, score a model, or compare two."""
    args = parse()
    try:
        if args.command == "data":
            sizes = TuningSizes(**{name: getattr(args, name) for name in vars(TuningSizes())})
            write_tuning_data(args.out, sizes, args.seed)
        elif args.command == "score":
            score(args)
        elif args.command == "grid":
            draw_grid(args)
        else:
            compare(args)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"reinforce_embedded: {error}")


def score(args: argparse.Namespace) -> None:
    """Score a model into a file."""
    total = len(everything(args.prompts, args.seeds))
    identity = identity_of_load(args.model, {"adapter": args.adapter})
    with unitok.load(args.model, adapter=args.adapter) as model:
        found = score_model(model, args.out, identity, args.prompts, args.seeds)
        for _ in counted(found, total, "requests", sys.stderr.isatty()):
            pass


def draw_grid(args: argparse.Namespace) -> None:
    """Draw held-out prompts, and save them in one picture."""
    suite = EmojiSuite(SuiteOptions(limit=args.prompts, seed=args.seed))
    items = [item for item in suite.items() if isinstance(item.request, Draw)]
    with unitok.load(args.model) as model:
        save_whole(drawing_grid(judge_all(model, suite, items)), args.out)


def compare(args: argparse.Namespace) -> None:
    """Print a table of what changed; exit code 1 if a bar is missed."""
    found = changes(read_scores(args.before), read_scores(args.after))
    print(table_of(found))
    if not all(change.ok for change in found):
        sys.exit(MISSED)


if __name__ == "__main__":
    main()
