"""Train baselines on the emoji world in equal core-minutes, and compare them.

    python scripts/train_baseline.py clip --out runs/baselines/clip-0 --minutes 30 --seed 0
    python scripts/train_baseline.py lit --out runs/baselines/lit-0
    python scripts/train_baseline.py diffusion --out runs/baselines/diffusion-0
    python scripts/train_baseline.py ours --out runs/baselines/ours-0
    python scripts/train_baseline.py pace clip
    python scripts/train_baseline.py time runs/baselines/*-[012]
    python scripts/train_baseline.py rerank --clip runs/baselines/clip-0/model --out runs/baselines
    python scripts/train_baseline.py table runs/baselines/*-? --rerank runs/baselines --write docs

--minutes are core-minutes: 30 are 15 minutes on 2 cores. They are counted in updates, by a pace
that was measured once, so that a run is the same on any machine; `pace KIND` measures it on yours.
The same command goes on from OUT/checkpoints after an interruption; what was used before counts.
On a run that has ended it scores it again. `time` measures the times of all runs once more, one
after the other, so that they are of the same hour of the same machine. OUT/model is the trained
model, OUT/scores.json what it gets right, OUT/failures what it does not.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import unitok
from unitok.baselines.opening import load as load_baseline
from unitok.emoji.baselines.recipes import RECIPES, measure_pace, use_threads
from unitok.emoji.baselines.reranking import COUNTS, measure
from unitok.emoji.baselines.run import MODEL, BaselineRun, RunOptions
from unitok.emoji.baselines.scoring import SECONDS, TIMED, replace_seconds
from unitok.emoji.held_out import SEED
from unitok.evaluation.run import TooManyFailuresError

PAGE, PLOT, SHEET = "baselines.md", "baselines.png", "baselines_failures.png"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for kind in RECIPES:
        _add_training(commands.add_parser(kind, help=f"train {kind}"))
    pace = commands.add_parser("pace", help="updates in a core-minute, on this machine")
    pace.add_argument("kind", choices=RECIPES)
    pace.add_argument("--updates", type=int, default=40, help="that are timed")
    pace.add_argument("--threads", type=int, default=2, help="cores to compute with")
    timing = commands.add_parser("time", help="measure the time of a picture with each run again")
    timing.add_argument("runs", type=Path, nargs="+", help="folders of runs that have ended")
    timing.add_argument("--threads", type=int, default=2, help="cores to compute with")
    _add_reranking(commands.add_parser("rerank", help="errors over the number of drawings"))
    table = commands.add_parser("table", help="one table, one plot, one sheet of failures")
    table.add_argument("runs", type=Path, nargs="+", help="folders with a scores.json")
    table.add_argument("--rerank", type=Path, help="folder with a reranking.json")
    table.add_argument("--write", type=Path, help=f"folder of {PAGE}; default: print the table")
    return parser.parse_args(arguments)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is written")
    parser.add_argument(
        "--minutes", type=float, default=30, help="core-minutes of training, resumptions included"
    )
    parser.add_argument("--threads", type=int, default=2, help="cores to compute with")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data")
    parser.add_argument("--scenes", type=int, default=100, help="held-out scenes of each kind")


def _add_reranking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clip", type=Path, required=True, help="folder of a trained CLIP")
    parser.add_argument("--out", type=Path, required=True, help="folder for reranking.json")
    parser.add_argument("--model", type=Path, help="what draws; default: the embedded model")
    parser.add_argument("--threads", type=int, default=2, help="cores to compute with")
    parser.add_argument("--scenes", type=int, default=60, help="held-out prompts of each kind")
    parser.add_argument(
        "--drawings", type=int, choices=COUNTS, default=COUNTS[-1], help="of a prompt"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the scenes")


def train(args: argparse.Namespace) -> None:
    """Train a recipe, or go on with it, and score it."""
    recipe = RECIPES[args.command]
    options = RunOptions(args.command, args.minutes, args.seed, recipe.pace)
    run = BaselineRun(recipe, options, args.out)
    run.train()
    run.score(args.scenes)
    print((args.out / "scores.json").read_text(encoding="utf-8"), end="")


def pace(args: argparse.Namespace) -> None:
    """Print how many updates of a recipe this machine makes in a core-minute."""
    if args.updates < 1:
        raise ValueError(f"--updates must be at least 1, not {args.updates}")
    found = measure_pace(RECIPES[args.kind], args.updates, time.perf_counter) / args.threads
    print(f"{args.kind}: {found:.1f} updates in a core-minute, {args.threads} threads")


def measure_time(args: argparse.Namespace) -> None:
    """Time the pictures of runs, and write the times into their scores.json."""
    from unitok.emoji.baselines.table import read_run

    for run in [read_run(folder) for folder in args.runs]:  # all must be there
        found = RECIPES[run.kind].score(run.folder / MODEL, TIMED)
        replace_seconds(run.folder, found, args.threads)
        alone, together = (1000 * found.scores[name] for name in SECONDS)
        print(f"{run.folder}: {alone:.1f} ms alone, {together:.1f} ms in a batch", flush=True)


def rerank(args: argparse.Namespace) -> None:
    """Keep the best of n drawings, and write how many are wrong then."""
    from unitok.emoji.baselines.table import CURVE

    scorer = load_baseline(args.clip, "scorer", device="cpu")
    with unitok.load(args.model, device="cpu") as model:
        errors = measure(model, scorer, args.scenes, args.drawings, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    record = {"clip": str(args.clip), "model": str(args.model or "embedded")}
    record |= {"scenes_of_a_kind": args.scenes, "seed": args.seed, "errors": errors}
    text = json.dumps(record, indent=2) + "\n"
    (args.out / CURVE).write_text(text, encoding="utf-8")
    print(text, end="")


def table(args: argparse.Namespace) -> None:
    """Print the table, or write it into the page, with the plot and the sheet beside it."""
    from unitok.emoji.baselines import figures
    from unitok.emoji.baselines.table import (
        curve_table,
        read_curve,
        read_run,
        replace_measured,
        results_table,
    )

    runs = [read_run(folder) for folder in args.runs]
    curve = None if args.rerank is None else read_curve(args.rerank)
    parts = [results_table(runs)]
    if args.write is not None:
        parts.append(f"![scores by kind of scene, and errors over the number of drawings]({PLOT})")
    if curve is not None:
        parts.append(curve_table(curve))
    if args.write is None:
        print("\n\n".join(parts))
        return
    parts.append(f"![what each of them got wrong]({SHEET})")
    figures.save_plot(runs, curve, args.write / PLOT)
    figures.save_failures(runs, args.write / SHEET)
    replace_measured(args.write / PAGE, "\n\n".join(parts))


def main() -> None:
    """Do what is asked."""
    args = parse()
    if getattr(args, "threads", 1) < 1:
        sys.exit("train_baseline: --threads must be at least 1")
    use_threads(getattr(args, "threads", 1))
    work = {"pace": pace, "time": measure_time, "rerank": rerank, "table": table}.get(
        args.command, train
    )
    try:
        work(args)
    except (ValueError, OSError, ImportError, ArithmeticError, TooManyFailuresError) as error:
        sys.exit(f"train_baseline: {error}")
    except KeyboardInterrupt:
        print("train_baseline: stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
