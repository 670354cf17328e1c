"""A fine-tuning run, from a recipe to a folder that `unitok.load` opens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unitok.families import Family
from unitok.saving import make_folder, write_whole
from unitok.training.base import open_base
from unitok.training.data.sources import Source
from unitok.training.held_out import HeldOutLoss
from unitok.training.losses import PARTS, Losses, merge
from unitok.training.preferences.in_data import check_pairs
from unitok.training.progress import RunProgress, memory_in_use
from unitok.training.ranks import Ranks, connect
from unitok.training.recipe import Recipe
from unitok.training.recipe_file import differences, read_recipe, to_toml
from unitok.training.result import check_place, gathered_weights, result_path, write_result
from unitok.training.run_checkpoints import RunCheckpoints
from unitok.training.run_state import load_run, save_run
from unitok.training.samples import Sampler
from unitok.training.setting_up import (
    held_out_batches,
    longest_sequence,
    make_batches,
    make_loss,
    make_optimiser,
    make_reference,
    make_schedule,
    make_sequences,
    make_updates,
    open_sources,
    precision_of,
    steps_of,
    weights_dtype,
)
from unitok.training.trainer import Trainer

RECIPE = "recipe.toml"


class FineTuning:
    """A run of one rank. All ranks make the same calls.

    A run that learns from something else than conversations is a subclass: `make_updates` and
    `make_trainer` are its own.

    Attributes:
        recipe: What the run is told.
        folder: Where it writes.
        steps: How many updates it has.
        family: The model in training.
        trainer: Makes the updates.
        checkpoints: From which it goes on.
        precision: The type that it computes in.
        loss_parts: The parts of the loss that are recorded.
        reference: The model at the start, if the run compares with it by pairs of answers.
    """

    loss_parts: tuple[str, ...] = PARTS

    def __init__(self, recipe: Recipe) -> None:
        """Open model and data, and go on from the last checkpoint if there is one.

        Raises:
            ImportError: A library of the extra `train` is missing.
            FileNotFoundError: The model or a data set does not exist.
            ValueError: They cannot be read, the recipe does not fit them, or the folder holds the
                checkpoints of another recipe.
        """
        self.recipe, self.folder = recipe, Path(recipe.out)
        device = None if recipe.device == "auto" else recipe.device
        on_gpu = device != "cpu" and torch.cuda.is_available()
        self.precision = precision_of(recipe, torch.device("cuda" if on_gpu else "cpu"))
        self.ranks = connect(device, recipe.memory.sharding, self.precision)
        self.checkpoints = RunCheckpoints(
            self.folder / "checkpoints", recipe.checkpoint.keep, self.ranks
        )
        if not self.checkpoints.steps():
            check_place(recipe)
        sources = open_sources(recipe)
        if recipe.dpo is not None:
            check_pairs(sources)
        self.steps = steps_of(recipe, sources)
        torch.manual_seed(recipe.seed)  # of adapters, which must be the same on all ranks
        where = self.ranks.accelerator.device
        self.family = open_base(recipe, where, weights_dtype(recipe, self.precision))
        check_can_be_saved(self.family, recipe)
        self._check_same_recipe()
        keys = recipe.samples
        self.sampler = Sampler(
            keys.prompts, tuple(map(Path, keys.pictures)), keys.question, recipe.seed
        )
        self.sampler.check(self.family)
        model = self.family.model
        model.checkpoint_activations(recipe.memory.activation_checkpointing)
        self.reference = make_reference(recipe, self.family, self.precision)
        self.updates: Any = self.make_updates(sources)
        self.trainer: Trainer[Any] = self.make_trainer()
        torch.manual_seed(recipe.seed + self.ranks.index)  # of dropout, which must differ
        held_out = held_out_batches(recipe, self.family, self.ranks, self.reference)
        self.held_out = HeldOutLoss(self.trainer, held_out)
        self.resumed = self._resume()

    def make_updates(self, sources: list[Source]) -> Any:
        """What gives the batches of each update, and says what was `left_out`.

        Args:
            sources: The recipe's data sets.

        Raises:
            ValueError: They do not fit the recipe.
        """
        maker = make_sequences(self.recipe, self.family, self.recipe.loss.prompt_dropout)
        batches = make_batches(self.recipe, maker, self.ranks, self.reference)
        return make_updates(self.recipe, sources, batches)

    def make_trainer(self) -> Trainer[Any]:
        """What makes the updates."""
        loss = make_loss(self.family, self.recipe)
        return Trainer(self.family.model, loss, **self.trainer_parts())

    def trainer_parts(self) -> dict[str, Any]:
        """What a trainer is made of, beside the model and the loss."""
        keys = self.recipe.optimiser
        return {
            "optimiser": make_optimiser(self.family.model, keys),
            "schedule": make_schedule(keys, self.steps),
            "updates": self.updates,
            "clip": keys.clip,
            "precision": self.precision,
            "ranks": self.ranks,
            "ema": keys.ema,
        }

    def save(self) -> None:
        """Write a checkpoint of the last update.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        save_run(self.checkpoints, self.trainer, {"ranks": self.ranks.count})

    def numbers(self) -> dict[str, float]:
        """What is recorded beside losses and speed, since it was asked for last."""
        return self.updates.left_out()

    def status(self, losses: Losses) -> str:
        """An update, for the progress bar."""
        return status_of(losses)

    def _check_same_recipe(self) -> None:
        """Raise ValueError if the folder's checkpoints are of a recipe that learns otherwise."""
        if not self.checkpoints.steps():
            return
        before = read_recipe(self.folder / RECIPE)
        context = self.family.max_context
        differing = differences(
            what_is_learned(before, context), what_is_learned(self.recipe, context)
        )
        if differing:
            raise ValueError(
                f"{self.folder} holds a run of another recipe: {'; '.join(differing)}. Go on with "
                f"{self.folder / RECIPE}, or choose another folder"
            )

    def _resume(self) -> bool:
        """Go on from the last checkpoint; whether there is one."""
        steps = self.checkpoints.steps()
        if steps:
            load_run(self.checkpoints, steps[-1], self.trainer)
        return bool(steps)

    def run(self, shown: bool = True) -> Path:
        """Train to the end, and write the result.

        Args:
            shown: Whether progress is shown on stderr.

        Returns:
            The folder of the result.

        Raises:
            NotFiniteError: A loss or a gradient is not finite. The last checkpoint is kept.
            DataError: A conversation is wrong, and the recipe does not skip such.
            OSError: A file cannot be read or written.
        """
        with ExitStack() as stack:
            progress = None
            if self.ranks.is_first:
                make_folder(self.folder)
                make_folder(self.checkpoints.folder)
                write_whole(to_toml(self.recipe).encode(), self.folder / RECIPE)
                progress = RunProgress(self.folder, self.steps, self.trainer.step_count, shown)
                stack.enter_context(progress)
                if self.resumed:
                    progress.say(f"going on from update {self.trainer.step_count}")
            _Loop(self, progress).run()
            weights = gathered_weights(self.trainer)
            if self.ranks.is_first:
                write_result(self.recipe, weights)
        self.ranks.wait()
        return result_path(self.recipe)


class _Loop:
    """The updates of a run, and what happens between them."""

    def __init__(self, run: FineTuning, progress: RunProgress | None) -> None:
        """progress: Of rank 0; None on the others."""
        self.run_, self.progress, self.recipe = run, progress, run.recipe
        self.trainer = run.trainer
        self.recent: list[Losses] = []
        self._began = time.monotonic()

    def run(self) -> None:
        """Make all updates that are left.

        Raises:
            ValueError: The data have nothing to learn.
        """
        first, steps = self.trainer.step_count, self.run_.steps
        while (step := self.trainer.step_count) < steps and self._update():
            self._do_what(lambda every, step=step + 1: step % every == 0 or step == steps)
        if not step:
            raise ValueError("there is nothing to learn in these data")
        if first < step < steps:  # the epochs had fewer updates than there were thought to be
            self._do_what(lambda every: step % every > 0)

    def _do_what(self, is_due: Callable[[int], bool]) -> None:
        """Record, save, measure and sample, each if that is due, told its number of updates.

        The checkpoint is written first that what may fail after it costs no training.
        """
        acts = (
            (self.recipe.log_every, self._record),
            (self.recipe.checkpoint.every, self.run_.save),
            (self.recipe.held_out.every, self._measure),
            (self.recipe.samples.every, self._sample),
        )
        for every, act in acts:
            if is_due(every):
                act()

    def _update(self) -> bool:
        """Make an update; whether there was one to be made."""
        began = time.monotonic()
        try:
            losses = self.trainer.step()
        except StopIteration:
            return False
        self.recent.append(losses)
        if self.progress is not None:
            speed = losses.tokens * self.run_.ranks.count / (time.monotonic() - began)
            memory = memory_in_use(self.trainer.device)
            status = f"{self.run_.status(losses)} {speed:.0f} tokens/s {memory:.1f} GB"
            self.progress.advance(self.trainer.step_count, status)
        return True

    def _record(self) -> None:
        """Write the mean losses since the last record, over all ranks."""
        if not self.recent:
            return
        merged, norms = merge(self.recent), [each.gradient_norm or 0.0 for each in self.recent]
        values = over_ranks(merged, self.run_.ranks, self.run_.loss_parts)
        numbers = self.run_.numbers()
        seconds, self._began = time.monotonic() - self._began, time.monotonic()
        self.recent.clear()
        if self.progress is None:
            return
        tokens = values.pop("tokens")
        self.progress.record(
            self.trainer.step_count,
            values
            | {
                "speed": tokens / seconds,
                "gradient_norm": sum(norms) / len(norms),
                "learning_rate": self.trainer.optimiser.param_groups[0]["lr"],
                "memory": memory_in_use(self.trainer.device),
            }
            | numbers,
        )

    def _measure(self) -> None:
        """Record the losses of what is not learned."""
        if not self.run_.held_out.batches:
            return
        with self._averages():
            values = self.run_.held_out()
        if self.progress is not None:
            self.progress.record(self.trainer.step_count, values)
        self._began = time.monotonic()

    def _sample(self) -> None:
        """Draw and caption, on rank 0; the others wait."""
        if not self.run_.sampler.prompts and not self.run_.sampler.pictures:
            return
        step, folder = self.trainer.step_count, self.run_.folder / "samples"
        if self.run_.ranks.sharded:
            if self.progress is not None:
                self.progress.say("no samples: with FSDP2 no rank has the whole model")
            return
        if self.progress is not None:
            with self._averages():
                self.run_.sampler.write(self.run_.family, folder, step)
            self._show_samples(folder / f"step-{step:06d}", step)
        self.run_.ranks.wait()
        self._began = time.monotonic()

    def _show_samples(self, name: Path, step: int) -> None:
        assert self.progress is not None
        if (picture := name.with_suffix(".png")).is_file():
            self.progress.show_picture(step, picture)
        if (text := name.with_suffix(".txt")).is_file():
            self.progress.show_text(step, text)

    def _averages(self) -> Any:
        """The averaged weights in the model for a while, if they are kept: they are the result."""
        return self.trainer.ema.in_place() if self.trainer.ema is not None else nullcontext()


def check_can_be_saved(family: Family, recipe: Recipe) -> None:
    """Raise ValueError now if the result could not be written at the end."""
    if recipe.lora is None and not family.can_be_saved:
        raise ValueError(
            f"{family.name} is of a family that unitok reads and does not write, so that tuned "
            "weights could not be saved. Adapters can: give [lora]"
        )


def what_is_learned(recipe: Recipe, context: int) -> Recipe:
    """A recipe without the keys that may change when a run goes on, for a model's context."""
    same = Recipe(out="", data=recipe.data)
    # It also says which pairs of answers are too long, as both of one are computed at once.
    most = same.batch.max_tokens if recipe.dpo is None else recipe.batch.max_tokens
    return replace(
        recipe,
        out="",
        rollout=recipe.rollout and replace(recipe.rollout, memory=None),
        device=same.device,
        log_every=same.log_every,
        held_out=same.held_out,
        checkpoint=same.checkpoint,
        samples=same.samples,
        memory=same.memory,
        batch=replace(
            recipe.batch,
            max_tokens=most,
            max_length=longest_sequence(recipe.batch, context),
        ),
    )


def over_ranks(losses: Losses, ranks: Ranks, names: Sequence[str]) -> dict[str, float]:
    """The mean losses over the tokens of all ranks, and the number of computed "tokens"."""
    counts = [float(losses.counts.get(name, name in losses.parts)) for name in names]
    sums = [losses.parts.get(name, 0.0) * n for name, n in zip(names, counts, strict=True)]
    everywhere = ranks.gather([*sums, *counts, losses.tokens])
    *totals, tokens = (sum(column) for column in zip(*everywhere, strict=True))
    means = zip(names, totals[: len(names)], totals[len(names) :], strict=True)
    return {name: value / count for name, value, count in means if count} | {"tokens": tokens}


def status_of(losses: Losses) -> str:
    """The losses of an update, for the progress bar."""
    parts = " ".join(f"{name} {value:.3f}" for name, value in losses.parts.items())
    return f"{parts} norm {losses.gradient_norm or 0:.2f}"
