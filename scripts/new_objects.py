"""Fine-tune the embedded model on eight objects that it never saw: the data, and the scores.

    python scripts/new_objects.py data --out runs/new_objects
    unitok train recipes/new_objects/image_decoder.toml
    unitok train recipes/new_objects/lora.toml
    python scripts/new_objects.py score --model runs/new_objects/image_decoder/model \\
        --adapter runs/new_objects/lora/adapter > runs/new_objects/lora/scores.json
    python scripts/new_objects.py report "both, LoRA=runs/new_objects/lora" --plot curves.png

`data` writes 200 pictures of each new object, 8,000 of those that the model knows, and the
conversations about them. `score` prints one JSON object: drawings and captions of the new objects
on a background and in a count that training never showed, and the scores of the old ones. `report`
makes a table of the scores.json of runs, and a plot of their held-out losses.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import unitok
from unitok.emoji import captions
from unitok.emoji.checker import check
from unitok.emoji.evaluation import EmojiSuite, drawing_grid, emoji_scores, judge_all
from unitok.emoji.held_out import SEED
from unitok.emoji.new_objects import NewObjectSampler, NewObjectSuite, write_data
from unitok.emoji.rendering import render
from unitok.emoji.sprites import NEW_NAMES
from unitok.evaluation.metrics import rate
from unitok.evaluation.suite import SuiteOptions
from unitok_tokenizers.losses import psnr


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="write pictures and conversations")
    data.add_argument("--out", type=Path, default=Path("runs/new_objects"))
    data.add_argument("--per-name", type=int, default=200, help="pictures of each new object")
    data.add_argument("--old", type=int, default=8000, help="pictures of objects it knows")
    data.add_argument("--seed", type=int, default=0)
    score = commands.add_parser("score", help="print scores")
    score.add_argument("--model", default=None, help="folder; default: the embedded model")
    score.add_argument("--adapter", default=None, help="folder of an adapter")
    score.add_argument("--per-name", type=int, default=15, help="scenes of each object and kind")
    score.add_argument("--old", type=int, default=60, help="old prompts of each kind")
    score.add_argument("--seed", type=int, default=SEED, help="of the scenes")
    score.add_argument("--grid", type=Path, default=None, help="save a picture of the drawings")
    report = commands.add_parser("report", help="a table and a plot of runs")
    report.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    report.add_argument("--plot", type=Path, default=None, help="save the plot")
    return parser.parse_args()


def main() -> None:
    """Write the data, or score a model."""
    args = parse()
    try:
        if args.command == "data":
            write_data(args.out, args.per_name, args.old, args.seed)
            return
        if args.command == "report":
            runs = {name: Path(folder) for name, _, folder in (r.partition("=") for r in args.runs)}
            print(table(runs))
            if args.plot:
                plot_held_out(runs, args.plot)
            return
        with unitok.load(args.model, adapter=args.adapter) as model:
            print(json.dumps(scores(model, args), indent=2))
    except (ValueError, OSError) as error:
        sys.exit(f"new_objects: {error}")


def scores(model: unitok.Model, args: argparse.Namespace) -> dict[str, float]:
    """All scores by name; those that end in _dB are decibels, the others shares."""
    new, known = NewObjectSuite(args.per_name, args.seed), emoji_suite(args)
    judged = judge_all(model, new, new.items())
    if args.grid:
        drawing_grid(judged, lambda one: name_in(one.item.wanted)).save(args.grid)
    old = emoji_scores([one.judgement for one in judge_all(model, known, known.items())])
    found = {
        **new.summary([one.judgement for one in judged]).scores,
        "old_draw": old["draw_mean"],
        "old_caption": old["caption"],
        "old_questions": old["question_mean"],
        **reconstruction(model, args.per_name, args.seed),
    }
    return {name: round(value, 4) for name, value in found.items()}


def emoji_suite(args: argparse.Namespace) -> EmojiSuite:
    """The suite of what the model knew before."""
    return EmojiSuite(SuiteOptions(limit=args.old, seed=args.seed))


def name_in(prompt: str) -> str:
    """The new object that a prompt asks for."""
    claim = captions.parse(prompt)
    assert claim is not None  # the suite made it
    return claim.objects[0][0]


def reconstruction(model: unitok.Model, per_name: int, seed: int) -> dict[str, float]:
    """How much of the new objects is left after the image tokenizer, whatever the rest does."""
    sampler = NewObjectSampler(seed, "heldout")
    scenes = [sampler.sample(name) for name in NEW_NAMES for _ in range(per_name)]
    pictures = render(scenes)
    tokenizer = model.family.model.image_tokenizer
    seen = tokenizer.decode(tokenizer.encode(pictures)).cpu()
    right = [check(picture, scene).ok for picture, scene in zip(seen, scenes, strict=True)]
    return {"codes_dB": float(psnr(seen, pictures).mean()), "codes_right": rate(right)}


SHOWN = {
    "new_draw_mean": "new, drawn",
    "new_caption": "new, captioned",
    "old_draw": "old, drawn",
    "old_caption": "old, captioned",
    "old_questions": "old, questions",
}


def table(runs: Mapping[str, Path]) -> str:
    """A Markdown table of the scores of runs, in percent, and of the minutes they took."""
    rows = [["run", "minutes", *SHOWN.values()], ["---", *["---:"] * (1 + len(SHOWN))]]
    for name, folder in runs.items():
        found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        lines = log_lines(folder)
        minutes = f"{max(line['minutes'] for line in lines):.0f}" if lines else ""
        rows.append([name, minutes, *(f"{100 * found[key]:.1f}" for key in SHOWN)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """The log of a run; empty if it has none."""
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return [json.loads(line) for line in lines]


def plot_held_out(runs: Mapping[str, Path], file: Path) -> None:
    """Plot the held-out losses of runs, those of text and of pictures beside each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, kind in zip(panels, ("text", "image"), strict=True):
        key = f"held_out_{kind}"
        for name, folder in runs.items():
            found = [line for line in log_lines(folder) if key in line]
            if found:
                panel.plot([f["step"] for f in found], [f[key] for f in found], "o-", label=name)
        panel.set(xlabel="update", ylabel="nats a token", title=f"held-out loss, {kind}")
        panel.set_yscale("log")
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=2)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
