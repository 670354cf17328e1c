"""Train the default model's image tokenizer on scenes of the emoji world.

    python scripts/train_image_tokenizer.py --out runs/tokenizer --steps 6000
    python scripts/train_image_tokenizer.py --out runs/conv --encoder conv   # VQ-16's own encoder

The run writes OUT/checkpoint.pt, from which the same command goes on exactly, OUT/log.jsonl and
OUT/samples.png (above: held-out scenes; below: what is left of them).
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unitok.emoji.scenes import SceneSampler, Style, render, to_pil
from unitok.nn.config import DEFAULT
from unitok.training.image_tokenizer import TokenizerRun, TokenizerTrainer, evaluate


def parse() -> argparse.Namespace:
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
    parser.add_argument("--minutes", type=float, default=None, help="stop early after so long")
    parser.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default_device)
    return parser.parse_args()


def main() -> None:
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(DEFAULT.image_tokenizer, encoder=args.encoder)
    run = TokenizerRun(
        steps=args.steps,
        batch=args.batch,
        lr=args.lr,
        style=args.style,
        seed=args.seed,
        device=args.device,
    )
    trainer = TokenizerTrainer(config, run)
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.load_state_dict(torch.load(checkpoint, map_location=args.device, weights_only=True))
    train(trainer, args, checkpoint)


def train(trainer: TokenizerTrainer, args: argparse.Namespace, checkpoint: Path) -> None:
    start = time.monotonic()
    columns = (
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(
            "tokenizer", total=args.steps, completed=trainer.step_count, loss=0.0
        )
        while trainer.step_count < args.steps:
            loss, commitment = trainer.step()
            progress.update(task, completed=trainer.step_count, loss=loss)
            out_of_time = args.minutes and time.monotonic() - start > args.minutes * 60
            if (
                trainer.step_count % args.every == 0
                or trainer.step_count == args.steps
                or out_of_time
            ):
                report = evaluate(trainer.model, args.style)
                record = {
                    "step": trainer.step_count,
                    "seconds": round(time.monotonic() - start, 1),
                    "loss": loss,
                    "commitment": commitment,
                    **dataclasses.asdict(report),
                }
                progress.console.print(json.dumps(record))
                with (args.out / "log.jsonl").open("a") as log:
                    log.write(json.dumps(record) + "\n")
                temporary = checkpoint.with_suffix(".tmp")
                torch.save(trainer.state_dict(), temporary)
                temporary.replace(checkpoint)
                save_samples(trainer, args.out / "samples.png", args.style)
            if out_of_time:
                return


def save_samples(trainer: TokenizerTrainer, path: Path, style: Style) -> None:
    pictures = render(SceneSampler(5, "heldout").batch(12), style=style)
    again = trainer.model.decode(trainer.model.encode(pictures)).cpu()
    rows = torch.cat([torch.cat(list(pictures), 2), torch.cat(list(again), 2)], 1)
    image = to_pil(rows)
    image.resize((image.width * 2, image.height * 2), 0).save(path)


if __name__ == "__main__":
    main()
