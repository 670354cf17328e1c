"""`unitok train RECIPE.toml`: fine-tuning."""

from __future__ import annotations

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
    on the way, and the result at the end: `model`, which `unitok.load` opens, or `adapter`. The same
    command goes on from the last checkpoint. docs/finetuning.md has all keys of a recipe. For
    several GPUs: torchrun --nproc-per-node 8 -m unitok train RECIPE.toml

    Example: unitok train lora --set data.0.path=train.jsonl --set out=runs/mine
    """
    run = make_run(recipe, settings or [])
    if dry_run:
        if run.ranks.is_first:
            print_plan(run)
        return
    train_to_the_end(run, not common.quiet)


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
            from unitok.training.run import FineTuning
        except ImportError as error:
            raise missing(error) from None
    try:
        return FineTuning(read)
    except ImportError as error:
        raise missing(error) from None


def missing(error: ImportError) -> typer.Exit:
    """Report a library that is not installed, and return the exception that ends the command."""
    complain(error)
    return typer.Exit(WRONG)


def train_to_the_end(run: FineTuning, shown: bool) -> None:
    """Train, and say where the result is.

    Raises:
        typer.Exit: The run was interrupted, or a loss is not finite.
    """
    from unitok.training.trainer import NotFiniteError

    try:
        result = run.run(shown)
    except NotFiniteError as error:
        complain(f"{error}; {what_is_kept(run)}")
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise stopped(f"{what_is_kept(run)}, and the same command goes on from there") from None
    if run.ranks.is_first:
        print(result)


def what_is_kept(run: FineTuning) -> str:
    """From where a broken-off run goes on, in words."""
    steps = run.checkpoints.steps()
    return f"{run.checkpoints.path(steps[-1])} is kept" if steps else "there is no checkpoint yet"


def print_plan(run: FineTuning) -> None:
    """Print what a run would do, as a table."""
    from unitok.training.plan import plan_of

    table = Table(show_header=False, box=None)
    for name, text in plan_of(run).items():
        table.add_row(name, text)
    stdout_console().print(table)
