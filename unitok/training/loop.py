"""A training run from its first step, or from its checkpoint, to its end."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unitok.training.checkpoints import load_checkpoint, save_checkpoint
from unitok.training.curves import plot
from unitok.training.log import TrainingLog
from unitok.training.losses import Losses, merge
from unitok.training.trainer import Trainer

Evaluate = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class LoopOptions:
    """How long a run is, and what it writes when.

    Attributes:
        folder: Where checkpoint.pt, log.jsonl and curves.png are written.
        steps: Updates of the whole run, those before a resumption included.
        minutes: The run stops at a checkpoint after so long; the same call goes on from there.
        save_every: Updates between two checkpoints, each with an evaluation.
        log_every: Updates whose mean losses become one record of the log.
    """

    folder: Path
    steps: int
    minutes: float = math.inf
    save_every: int = 250
    log_every: int = 25


class TrainingLoop:
    """Runs a trainer, and evaluates what it has learned at each checkpoint."""

    def __init__(self, trainer: Trainer[Any], options: LoopOptions, evaluate: Evaluate) -> None:
        """Go on from the folder's checkpoint if there is one.

        Args:
            trainer: What makes the updates.
            options: How long the run is, and where it writes.
            evaluate: Called after each checkpoint; its scores go to the log.

        Raises:
            ValueError: checkpoint.pt is broken, or it is no checkpoint.
        """
        self.trainer, self.options, self.evaluate = trainer, options, evaluate
        options.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = options.folder / "checkpoint.pt"
        self.log = TrainingLog(options.folder / "log.jsonl")
        self._recent: list[Losses] = []
        if self.checkpoint.is_file():
            trainer.load_state_dict(load_checkpoint(self.checkpoint, trainer.device))
            if trainer.ranks.is_first:
                print(f"continuing from step {trainer.step_count}")

    def run(self) -> None:
        """Train until the last step, or until the time is over."""
        start = time.monotonic()
        with _progress(self.trainer.ranks.is_first) as progress:
            done = self.trainer.step_count
            task = progress.add_task(
                "training", total=self.options.steps, completed=done, status=""
            )
            minutes = 0.0
            while self.trainer.step_count < self.options.steps and minutes <= self.options.minutes:
                speed, losses = self._step()
                minutes = (time.monotonic() - start) / 60
                done = self.trainer.step_count
                progress.update(task, completed=done, status=_status(losses, speed))
                if done % self.options.log_every == 0 and self.trainer.ranks.is_first:
                    self._log_losses(minutes, speed)
                if self._is_due(minutes):
                    if self.trainer.ranks.is_first:
                        self._save(minutes, progress)
                    self.trainer.ranks.wait()

    def _step(self) -> tuple[float, Losses]:
        """Make one update: tokens per second, and its losses."""
        began = time.monotonic()
        losses = self.trainer.step()
        self._recent.append(losses)
        return losses.tokens / (time.monotonic() - began), losses

    def _is_due(self, minutes: float) -> bool:
        done, options = self.trainer.step_count, self.options
        last = done == options.steps or minutes > options.minutes
        return last or done % options.save_every == 0

    def _log_losses(self, minutes: float, speed: float) -> None:
        losses = merge(self._recent).parts
        self.log.append(
            {"step": self.trainer.step_count, "minutes": minutes, "speed": speed, **losses}
        )
        self._recent.clear()

    def _save(self, minutes: float, progress: Progress) -> None:
        """Write the checkpoint first: an evaluation that fails should cost no training."""
        save_checkpoint(self.trainer.state_dict(), self.checkpoint)
        record = {"step": self.trainer.step_count, "minutes": minutes, **self.evaluate()}
        progress.console.print(json.dumps(record), soft_wrap=True)
        self.log.append(record)
        try:
            plot(self.log, self.options.folder / "curves.png")
        except ImportError:
            progress.console.print("no curves.png: matplotlib is not installed; see log.jsonl")


def _progress(shown: bool) -> Progress:
    return Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        disable=not shown,
    )


def _status(losses: Losses, speed: float) -> str:
    parts = " ".join(f"{name} {value:.3f}" for name, value in losses.parts.items())
    return f"{parts} {speed:.0f} tokens/s"
