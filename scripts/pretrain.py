"""Train the default model: drawings, readings and conversations of the emoji world, together.

    python scripts/pretrain.py --out runs/default --image-tokenizer runs/tokenizer/checkpoint.pt

The same command goes on from OUT/checkpoint.pt exactly where it stopped, uses a GPU if there is
one, and writes OUT/log.jsonl, OUT/curves.png and OUT/held_out.png as it goes. At the end (and at
each checkpoint) OUT/model is a folder that `unitok.load` opens. --minutes stops a run early; the
schedule follows --steps.
"""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unitok.families.janus import Template
from unitok.nn.config import DEFAULT
from unitok.training.export import save_folder
from unitok.training.image_tokenizer import load_checkpoint
from unitok.training.pretrain import Losses, Pretrainer, PretrainRun, merge
from unitok_tokenizers.text import TextTokenizer

ASSETS = Path(__file__).parent.parent / "unitok" / "assets" / "default"


def parse() -> argparse.Namespace:
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
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    names = {f.name for f in dataclasses.fields(PretrainRun)}
    run = PretrainRun(**{k: v for k, v in vars(args).items() if k in names})
    tokenizer, _ = load_checkpoint(args.image_tokenizer)
    config = dataclasses.replace(DEFAULT, image_tokenizer=tokenizer.config)
    template = Template(TextTokenizer.load(args.text_tokenizer), config.vision.patches)
    trainer = Pretrainer(config, tokenizer, template, run)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.load_state_dict(torch.load(checkpoint, map_location=args.device, weights_only=True))
        print(f"going on from step {trainer.step_count}")
    train(trainer, args, checkpoint)


def train(trainer: Pretrainer, args: argparse.Namespace, checkpoint: Path) -> None:
    start = time.monotonic()
    columns = (
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn(
            "image {task.fields[image]:.3f} text {task.fields[text]:.3f} "
            "{task.fields[speed]:.0f} ids/s"
        ),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(
            "pretrain",
            total=args.steps,
            completed=trainer.step_count,
            image=math.nan,
            text=math.nan,
            speed=0,
        )
        recent: list[Losses] = []
        while trainer.step_count < args.steps:
            began = time.monotonic()
            losses = trainer.step()
            recent.append(losses)
            speed = losses.ids / (time.monotonic() - began)
            progress.update(
                task,
                completed=trainer.step_count,
                image=losses.image,
                text=losses.text,
                speed=speed,
            )
            minutes = (time.monotonic() - start) / 60
            last = trainer.step_count == args.steps or minutes > args.minutes
            if trainer.step_count % 25 == 0:
                record = {"step": trainer.step_count, "minutes": minutes, "speed": speed}
                mean = merge(recent)
                append(args.out, record | {"image": mean.image, "text": mean.text})
                recent.clear()
            if trainer.step_count % args.every == 0 or last:
                save(trainer, checkpoint)
                save_folder(
                    trainer.model, trainer.template, args.text_tokenizer, args.out / "model"
                )
                record = {"step": trainer.step_count, "minutes": minutes, **evaluate(args)}
                progress.console.print(json.dumps(record))
                append(args.out, record)
                plot(args.out)
            if last:
                return


def evaluate(args: argparse.Namespace) -> dict[str, float]:
    """Held-out drawings, captions and answers, by the very API that users call."""
    import unitok
    from unitok.evaluation.emoji import report

    model = unitok.load(args.out / "model", device=args.device)
    result = report(model, prompts=args.prompts)
    result.grid.save(args.out / "held_out.png")
    return result.scores


def save(trainer: Pretrainer, checkpoint: Path) -> None:
    temporary = checkpoint.with_suffix(".tmp")
    torch.save(trainer.state_dict(), temporary)
    temporary.replace(checkpoint)


def append(out: Path, record: dict) -> None:
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps(record) + "\n")


def read_log(out: Path) -> list[dict]:
    """Records in order; where a run went back to its checkpoint, the later ones count."""
    lines = (out / "log.jsonl").read_text().splitlines()
    latest = {(r["step"], "image" in r): r for r in map(json.loads, lines)}
    return sorted(latest.values(), key=lambda r: r["step"])


def plot(out: Path) -> None:
    """Both losses and the held-out scores against steps."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print(
            "no curves.png: pip install 'unitok[train]' brings matplotlib; log.jsonl has the data"
        )
        return
    records = read_log(out)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    losses = [r for r in records if "image" in r]
    for key in ("image", "text"):
        left.plot([r["step"] for r in losses], [r[key] for r in losses], label=key)
    left.set(xlabel="step", ylabel="cross-entropy (nats per id)", yscale="log")
    scores = [r for r in records if "image" not in r]
    for key in sorted({k for r in scores for k in r} - {"step", "minutes"}):
        there = [r for r in scores if key in r]
        right.plot([r["step"] for r in there], [r[key] for r in there], label=key)
    right.set(xlabel="step", ylabel="share right, held out", ylim=(0, 1.02))
    left.legend()
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out / "curves.png", dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
