"""A run of given core-minutes: its folder, its checkpoints, its log, and its scores at the end."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unitok.checkpoints.folders import read_json
from unitok.emoji.baselines.budget import Budget
from unitok.emoji.baselines.progress import minutes_bar
from unitok.emoji.baselines.recipes import Recipe, parameters
from unitok.emoji.baselines.scoring import write_scores
from unitok.training.log import TrainingLog
from unitok.training.losses import Losses, merge
from unitok.training.run_checkpoints import RunCheckpoints
from unitok.training.run_state import load_run, save_run
from unitok.training.trainer import Trainer

SETTINGS, MODEL = "run.json", "model"
KEPT = 2  # checkpoints


@dataclass(frozen=True)
class RunOptions:
    """What a run is; a folder belongs to one.

    Attributes:
        kind: Which recipe.
        minutes: Core-minutes of updates, over all resumptions.
        seed: Of weights and data.
        pace: How many updates count as a core-minute.
    """

    kind: str
    minutes: float
    seed: int
    pace: float = 1.0


class BaselineRun:
    """Trains a recipe in a folder, or goes on with it.

    Attributes:
        trainer: What makes the updates.
        budget: How many minutes are used.
        log: log.jsonl in the folder.
    """

    def __init__(
        self,
        recipe: Recipe,
        options: RunOptions,
        folder: Path,
        *,
        save_minutes: float = 2.0,
        log_every: int = 10,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Go on from the folder's last checkpoint if there is one.

        Args:
            recipe: What is trained.
            options: How long, and by which seed.
            folder: Where all is written.
            save_minutes: Between two checkpoints.
            log_every: Updates whose mean losses become one line of the log.
            clock: Seconds that were computed since any moment. By default what the updates take by
                their pace, so that a run is the same wherever it is made, whatever runs beside it.

        Raises:
            ValueError: The folder holds a run of other options, or a broken checkpoint.
            ImportError: A library is not installed.
        """
        self.recipe, self.options, self.folder = recipe, options, folder
        self.save_minutes, self.log_every = save_minutes, log_every
        self.budget = Budget(options.minutes, clock or self._seconds_of_updates)
        self._claim_folder()
        self.trainer = recipe.make_trainer(options.seed, self.budget)
        self.checkpoints = RunCheckpoints(folder / "checkpoints", KEPT)
        self.log = TrainingLog(folder / "log.jsonl")
        self._recent: list[Losses] = []
        if steps := self.checkpoints.steps():
            load_run(self.checkpoints, steps[-1], self.trainer)
            self.budget.used = self.checkpoints.values(steps[-1])["minutes"]
        self._saved = self.budget.used

    def _seconds_of_updates(self) -> float:
        return 60 * self.trainer.step_count / self.options.pace

    def _claim_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path, wanted = self.folder / SETTINGS, asdict(self.options)
        if not path.is_file():
            path.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
            return
        there = read_json(path)
        for name, value in wanted.items():
            if there.get(name) != value:
                raise ValueError(
                    f"{path} says {name} {there.get(name)}, not {value}: give another folder"
                )

    def train(self) -> None:
        """Make updates until the minutes are used, then save the model.

        Raises:
            OSError: The disk is full, or cannot be written.
            NotFiniteError: A loss or a gradient is not finite.
        """
        with minutes_bar() as bar:
            task = bar.add_task(self.options.kind, total=self.budget.minutes, status="")
            while not self.budget.is_spent:
                losses = self._update()
                status = f"step {self.trainer.step_count} {_in_words(losses)}"
                bar.update(
                    task, completed=min(self.budget.used, self.budget.minutes), status=status
                )
        self.recipe.save(self.trainer, self.folder / MODEL)

    def _update(self) -> Losses:
        with self.budget.counting():
            losses = self.trainer.step()
        self._recent.append(losses)
        if self.trainer.step_count % self.log_every == 0:
            self._log()
        if self.budget.is_spent or self.budget.used - self._saved >= self.save_minutes:
            save_run(self.checkpoints, self.trainer, {"minutes": self.budget.used})
            self._saved = self.budget.used
        return losses

    def _log(self) -> None:
        minutes = round(self.budget.used, 3)
        losses = merge(self._recent).parts
        self.log.append({"step": self.trainer.step_count, "minutes": minutes, **losses})
        self._recent.clear()

    def score(self, count: int) -> None:
        """Score the saved model on `count` held-out scenes of each kind, and write scores.json."""
        scored = self.recipe.score(self.folder / MODEL, count)
        write_scores(self.folder, scored, self.about | {"scenes_of_a_kind": count})

    @property
    def about(self) -> dict[str, Any]:
        """What scores.json says of the run."""
        trainer: Trainer[Any] = self.trainer
        return asdict(self.options) | {
            "minutes_used": round(self.budget.used, 3),
            "threads": torch.get_num_threads(),
            "updates": trainer.step_count,
            "parameters": parameters(trainer),
            "given": self.recipe.given,
        }


def _in_words(losses: Losses) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in losses.parts.items())
