"""Tune the embedded model by rewards: the data, and the scores of before and after.

    python scripts/reinforce_embedded.py data
    unitok train recipes/embedded/both_orders.toml
    unitok train recipes/embedded/places.toml
    unitok train recipes/embedded/settle.toml
    unitok data pairs runs/embedded/draw.jsonl --reward emoji --guidance 1.5 \\
        --out runs/embedded/pairs.jsonl
    unitok train recipes/embedded/dpo.toml
    python scripts/reinforce_embedded.py blend unitok/assets/default=-1 runs/embedded/dpo/model=1 \\
        runs/embedded/both_orders/model=0.4 runs/embedded/settle/model=0.6 --out runs/embedded/blend
    unitok train recipes/embedded/grpo.toml
    python scripts/reinforce_embedded.py blend unitok/assets/default=0 \\
        runs/embedded/grpo/model=0.8 runs/embedded/dpo/model=0.2 --out runs/embedded/rewarded
    python scripts/reinforce_embedded.py data --seed 1 --draw 6000 --ask 2500 \\
        --out runs/embedded/second
    unitok train recipes/embedded/grpo_guided.toml
    unitok train recipes/embedded/grpo_guided.toml --set model=runs/embedded/grpo_guided/model \\
        --set out=runs/embedded/grpo_again --set steps=50 --set seed=3
    python scripts/reinforce_embedded.py blend unitok/assets/default=0 \\
        runs/embedded/grpo_guided/model=0.42 runs/embedded/grpo_again/model=0.42 \\
        runs/embedded/pretrained=0.16 --out runs/embedded/tuned
    python scripts/reinforce_embedded.py score --out runs/embedded/before.jsonl
    python scripts/reinforce_embedded.py score --model runs/embedded/tuned \\
        --out runs/embedded/after.jsonl
    python scripts/reinforce_embedded.py compare runs/embedded/before.jsonl \\
        runs/embedded/after.jsonl
    python scripts/reinforce_embedded.py grid --model runs/embedded/tuned --out grid.png

`data` writes prompts and conversations of the training split. `score` asks 300 prompts of each kind
for each of two seeds of held-out scenes; a run that was stopped goes on. A file with scores of
another model is refused. `compare` prints means, paired bootstrap intervals and the bars, and ends
with exit code 1 if a bar is missed. `grid` draws held-out prompts of each kind, green where the
checker agrees. `blend` adds up the weights of models, each times its share
(https://arxiv.org/abs/2203.05482); a share may be negative, which takes away what a model has
(https://arxiv.org/abs/2212.04089).
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

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

WEIGHTS = "model.safetensors"
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
    blend = commands.add_parser("blend", help="add up the weights of models")
    blend.add_argument("parts", nargs="+", metavar="FOLDER=SHARE", help="the shares add up to 1")
    blend.add_argument("--out", type=Path, required=True, help="a new folder")
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
        elif args.command == "blend":
            blend_weights(args.out, args.parts)
        else:
            compare(args)
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
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


def blend_weights(out: Path, parts: Sequence[str]) -> None:
    """Add up the weights of models of one shape. All else is as in the first folder, types too.

    Args:
        out: A new folder.
        parts: Each as "FOLDER=SHARE".

    Raises:
        ValueError: A part is none, the shares do not add up to 1, or the models have other weights.
        OSError: A folder cannot be read, or the new one not be written.
    """
    shares = dict(map(share_of, parts))
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"the shares add up to {sum(shares.values()):g}, not to 1")
    first, *others = ((load_file(folder / WEIGHTS), share) for folder, share in shares.items())
    total = {name: weight.double() * first[1] for name, weight in first[0].items()}
    for weights, share in others:
        if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in first[0].items()}:
            raise ValueError("the models have weights of other names or shapes")
        for name, weight in weights.items():
            total[name] += weight.double() * share
    blended = {name: weight.to(first[0][name].dtype) for name, weight in total.items()}
    shutil.copytree(next(iter(shares)), out)
    save_file(blended, out / WEIGHTS, metadata={"format": "pt"})


def share_of(part: str) -> tuple[Path, float]:
    """A folder and its share."""
    folder, _, share = part.rpartition("=")
    try:
        return Path(folder), float(share)
    except ValueError:
        raise ValueError(f"{part!r} is not FOLDER=SHARE") from None


def compare(args: argparse.Namespace) -> None:
    """Print a table of what changed; exit code 1 if a bar is missed."""
    found = changes(read_scores(args.before), read_scores(args.after))
    print(table_of(found))
    if not all(change.ok for change in found):
        sys.exit(MISSED)


if __name__ == "__main__":
    main()
