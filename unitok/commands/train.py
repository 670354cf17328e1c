"""`unitok train RECIPE.toml`: fine-tuning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from unitok.flags import Common, with_flags
from unitok.reporting import stopped
from unitok.screen import stdout_console
from unitok.terminal import complain, stopped_at_once

if TYPE_CHECKING:
    from unitok.training.recipe import Recipe
    from unitok.training.reinforcement.reward_names import RewardEntry
    from unitok.training.run import FineTuning

FAILED, WRONG = 1, 2  # exit codes: the run broke off; it cannot begin
QUIET = ("verbose", "quiet")  # the flags of every command that this one has


@with_flags(only=QUIET)
def train(
    common: Common,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            show_default=False,
            help="A TOML file, or the name of a recipe that comes with unitok, such as lora.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            show_default=False,
            help="Replace a key of the recipe, such as optimiser.learning_rate=1e-4. May be given "
            "several times.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Open all, make the first batches, say what they are, and stop."
        ),
    ] = False,
) -> None:
    """Fine-tune a model as a recipe says, or go on with a run that was interrupted.

    The recipe's folder `out` gets checkpoints, log.jsonl, a TensorBoard log, samples and curves.png
    on the way, and at the end the result: `model`, which `unitok.load` opens, or `adapter`. The
    same command goes on from the last checkpoint. docs/finetuning.md has all keys of a recipe. For
    several GPUs: torchrun --nproc-per-node 8 -m unitok train RECIPE.toml

    A recipe with a section [rollout] learns from rewards of what the model answers and draws.

    A recipe with task = "image_tokenizer" trains an image tokenizer; docs/guide/image_tokenizer.md
    says how.

    Example: unitok train lora --set data.0.path=train.jsonl --set out=runs/mine
    """
    if trains_image_tokenizer(recipe, settings or []):
        train_tokenizer(recipe, settings or [], dry_run)
        return
    run = make_run(recipe, settings or [])
    if dry_run:
        print_plan(run)
        run.ranks.close()
        return
    train_to_the_end(run, not common.quiet)


def trains_image_tokenizer(recipe: str, settings: list[str]) -> bool:
    """Whether a recipe says `task = "image_tokenizer"`."""
    with stopped_at_once():
        from unitok.training.image_tokenizer.recipe import is_image_tokenizer
        from unitok.training.recipe_file import find_recipe
    return is_image_tokenizer(find_recipe(recipe), settings)


def train_tokenizer(recipe: str, settings: list[str], dry_run: bool) -> None:
    """Train an image tokenizer, and say where the result is.

    Raises:
        typer.Exit: A library is missing, the run was interrupted, or a loss is not finite.
        ValueError, OSError: As `train_image_tokenizer`.
    """
    with stopped_at_once():
        from unitok.training.image_tokenizer.bases import result_path
        from unitok.training.image_tokenizer.recipe import read_options
        from unitok.training.image_tokenizer.run import plan_of, train_image_tokenizer
        from unitok.training.recipe_file import find_recipe
        from unitok.training.trainer import NotFiniteError

    options = read_options(find_recipe(recipe), settings)
    out = Path(options.out)
    try:
        if dry_run:
            print_rows(plan_of(options))
            return
        train_image_tokenizer(options)
    except ImportError as error:
        raise missing(error) from None
    except NotFiniteError as error:
        complain(f"{error}; the last checkpoint in {out} is kept")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        kept = f"the last checkpoint in {out} is kept, and the same command goes on from there"
        raise stopped(kept) from None
    if os.environ.get("RANK", "0") == "0":  # torchrun's number of the process
        print(result_path(options.model, out))


def make_run(recipe: str, settings: list[str]) -> FineTuning:
    """Open what a recipe names.

    Raises:
        typer.Exit: A library is missing.
        ValueError, OSError: As `FineTuning`.
    """
    with stopped_at_once():
        from unitok.training.recipe_file import find_recipe, read_recipe

        read: Recipe = read_recipe(find_recipe(recipe), settings)
    try:
        return open_run(read)
    except ImportError as error:
        raise missing(error) from None


def open_run(recipe: Recipe) -> FineTuning:
    """The run of a recipe: of fine-tuning, or of reinforcement learning.

    Raises:
        ImportError, ValueError, OSError: As `FineTuning`.
    """
    with stopped_at_once():
        from unitok.training.reinforcement.run import Reinforcement
        from unitok.training.run import FineTuning
    if recipe.rollout is None:
        return FineTuning(recipe)
    return Reinforcement(recipe, known_rewards())


def known_rewards() -> Mapping[str, RewardEntry]:
    """The rewards that come with unitok: those of training, and those of the emoji world."""
    with stopped_at_once():
        from unitok.emoji.reward import EMOJI_REWARDS
        from unitok.training.reinforcement.reward_names import BUILT_IN
    return {**BUILT_IN, **EMOJI_REWARDS}


def missing(error: ImportError) -> typer.Exit:
    """Report a library that is not installed, and return the exception that ends the command."""
    complain(error)
    return typer.Exit(WRONG)


def train_to_the_end(run: FineTuning, shown: bool) -> None:
    """Train, and say where the result is.

    Raises:
        typer.Exit: The run was interrupted, or a loss is not finite.
    """
    from unitok.training.reinforcement.rewards import RewardsFailedError
    from unitok.training.trainer import NotFiniteError

    try:
        result = run.run(shown)
    except (NotFiniteError, RewardsFailedError) as error:
        complain(f"{error}; {what_is_kept(run)}")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise stopped(f"{what_is_kept(run)}, and the same command goes on from there") from None
    if run.ranks.is_first:
        print(result)
    run.ranks.close()


def what_is_kept(run: FineTuning) -> str:
    """From where a broken-off run goes on, in words."""
    steps = run.checkpoints.steps()
    return f"{run.checkpoints.path(steps[-1])} is kept" if steps else "there is no checkpoint yet"


def print_plan(run: FineTuning) -> None:
    """Print what a run would do, as a table. All ranks make the plan, and the first prints it."""
    from unitok.training.plan import plan_of
    from unitok.training.reinforcement.plan import plan_of as plan_of_rounds
    from unitok.training.reinforcement.run import Reinforcement

    rows = plan_of_rounds(run) if isinstance(run, Reinforcement) else plan_of(run)
    if run.ranks.is_first:
        print_rows(rows)


def print_rows(rows: Mapping[str, str]) -> None:
    """Print a name and a text a row."""
    table = Table(show_header=False, box=None)
    for name, text in rows.items():
        table.add_row(name, text)
    stdout_console().print(table)
