"""`unitok eval SUITE`: what a model gets right, and `unitok eval compare`: several runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitok.commands.evaluate_folders import fid, pairs, print_table
from unitok.evaluation.options import OF_SUITES, EvaluationOptions, parse_settings
from unitok.evaluation.registry import SUITES, SuiteEntry
from unitok.extras import missing_is_wrong_use
from unitok.flags import Common, with_flags
from unitok.reporting import print_json, stopped
from unitok.requests import options_of
from unitok.saving import expanded, write_whole
from unitok.screen import counted as with_bar
from unitok.terminal import complain, stopped_at_once

if TYPE_CHECKING:
    from unitok.evaluation.contenders import Baseline, Contender
    from unitok.evaluation.report import Finished
    from unitok.evaluation.run import Run
    from unitok.evaluation.suite import Item, Suite

FAILED = 1  # the exit code if requests failed
QUIET = ("verbose", "quiet")  # the flags of every command that need no model

evaluation = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="What a model, or a baseline of others, gets right: scores, and a report with pictures.",
)

HELP = """The run's folder gets journal.jsonl, pictures/, scores.json and report.html, which shows
scores, samples and what went wrong. An interrupted run goes on when the same command is given
again. A request that fails counts as wrong, and the exit code is then 1."""


# --- a command for each suite --------------------------------------------------------------------


def add(name: str, entry: SuiteEntry) -> None:
    """Add the command of a suite."""

    def without_data(common: Common, **options: Any) -> None:
        evaluate(entry, None, common, EvaluationOptions(**options))

    def with_data(common: Common, data: Path, **options: Any) -> None:
        evaluate(entry, data, common, EvaluationOptions(**options))

    chosen: Callable[..., None] = with_data if entry.data else without_data
    argument = typer.Argument(metavar="DATA", show_default=False, help=entry.data)
    with_data.__annotations__["data"] = Annotated[Path, argument]
    given = " DATA" if entry.data else ""
    chosen.__doc__ = f"{entry.help}\n\n{HELP}\n\nExample: unitok eval {name}{given} --limit 20"
    without = [option for option in OF_SUITES if option not in entry.options]
    evaluation.command(name)(with_flags(EvaluationOptions, but=without)(chosen))


for _name, _entry in SUITES.items():
    add(_name, _entry)


@missing_is_wrong_use()
def evaluate(
    entry: SuiteEntry, data: Path | None, common: Common, options: EvaluationOptions
) -> None:
    """Ask a model what a suite asks, and write the report.

    Raises:
        typer.Exit: The run was interrupted, or requests failed.
        ValueError, OSError: The data or the model are wrong, or the folder is of another run.
    """
    with stopped_at_once():
        from unitok.evaluation.asking import takeable
        from unitok.evaluation.contenders import baseline_of
        from unitok.evaluation.suite import SuiteOptions

    for name, spec in options_of(EvaluationOptions).items():
        if spec.kind == "whole number":
            spec.check_range(getattr(options, name))
    typed = parse_settings(options.settings or ())
    suite = entry.make(
        SuiteOptions(
            data,
            options.limit,
            options.seed,
            expanded(options.images) if options.images else None,
            expanded(options.real) if options.real else None,
            options.extractor,
            options.scorer,
            options.detector,
        )
    )
    items = suite.items()
    baseline = baseline_of(common, items)
    items, of_model, notes = chosen_items(suite, items, entry, options, typed, baseline)
    described = typed | ({"only": list(options.only)} if options.only else {})
    with opened(common, entry, baseline, of_model) as contender:
        items, more = takeable(items, contender.can_take, contender.runner.name)
        run = make_run(suite, items, contender, described, options.out)
        ask(run, contender, common)
    finish(run, contender, [*notes, *more], options.as_json)


def chosen_items(
    suite: Suite,
    items: Sequence[Item],
    entry: SuiteEntry,
    options: EvaluationOptions,
    typed: dict[str, Any],
    baseline: Baseline | None,
) -> tuple[list[Item], dict[str, Any], list[str]]:
    """What is asked, the options of the baseline, and notes about what is left out.

    Raises:
        ValueError, TypeError: An option or a group is wrong, or a baseline can be asked nothing.
    """
    from unitok.evaluation.asking import (
        fitting,
        left_out_note,
        only_groups,
        split_options,
        with_checked_options,
    )
    from unitok.evaluation.contenders import OURS_TAKES

    if baseline is not None and entry.runner is not None:
        raise ValueError(f"{suite.name} is for models of unitok: it needs their parts")
    chosen, notes = only_groups(items, options.only or ()), []
    who = "a model of unitok" if baseline is None else f"a {baseline.role}"
    asked = fitting(chosen, OURS_TAKES if baseline is None else baseline.takes, who)
    if left_out := len(chosen) - len(asked):
        notes.append(left_out_note(left_out, who))
    of_requests, of_model = split_options(asked, typed, baseline is not None)
    return with_checked_options(asked, of_requests), of_model, notes


def opened(
    common: Common, entry: SuiteEntry, baseline: Baseline | None, options: dict[str, Any]
) -> AbstractContextManager[Contender]:
    """The model that is evaluated."""
    from unitok.evaluation.contenders import other_model, our_model

    if baseline is None:
        return our_model(common, entry)
    return other_model(common, baseline, options)


def make_run(
    suite: Suite, items: list[Item], contender: Contender, options: dict[str, Any], out: str | None
) -> Run:
    """The run, in the folder that was named or in the usual one."""
    from unitok.evaluation.journal import Identity
    from unitok.evaluation.run import Run

    name = contender.runner.name
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "model"
    folder = expanded(out) if out else Path("evaluations") / f"{suite.name}-{slug}"
    identity = Identity(suite.name, name, contender.digest, suite.settings, options)
    return Run(suite, items, folder, identity)


def ask(run: Run, contender: Contender, common: Common) -> None:
    """Ask what is left, show the progress, and name the requests that fail.

    Raises:
        typer.Exit: It was interrupted, or too many failed one after another.
    """
    from unitok.evaluation.run import TooManyFailuresError

    kept = f"{run.folder} keeps what is finished, and the same command goes on from there"
    outcomes = run.outcomes(contender.runner)
    try:
        with closing(with_bar(outcomes, len(run.items), run.suite.name, common.bars)) as shown:
            for judgement, new in shown:
                if new and judgement.error is not None:
                    complain(f"{judgement.key}: {judgement.error}")
    except KeyboardInterrupt:
        raise stopped(kept) from None
    except TooManyFailuresError as error:
        complain(f"{error}; {kept}")
        raise typer.Exit(FAILED) from None
    finally:
        outcomes.close()


def finish(run: Run, contender: Contender, notes: list[str], as_json: bool) -> None:
    """Sum up, write the report, and print the scores.

    Raises:
        typer.Exit: Requests failed.
    """
    from unitok.evaluation.finishing import finish_run

    finished = finish_run(run, contender.facts, notes)
    print_scores(finished, as_json)
    if finished.overall.failed:
        raise typer.Exit(FAILED)


def print_scores(finished: Finished, as_json: bool) -> None:
    """Print the scores, and where the report is."""
    from unitok.evaluation.finishing import REPORT
    from unitok.results import counted

    if as_json:
        print_json(finished.to_json())
        return
    print_table(finished.summary.scores)
    overall = finished.overall
    failed = f", {overall.failed:,} failed" if overall.failed else ""
    print(f"{finished.folder / REPORT}: {counted(overall.count, 'item')}{failed}")


# --- several runs, and folders -------------------------------------------------------------------

evaluation.command("fid")(fid)
evaluation.command("pairs")(pairs)


@evaluation.command()
@with_flags(only=QUIET)
def compare(
    common: Common,
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", show_default=False, help="Folders of runs of one suite."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page.")
    ] = Path("comparison.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
) -> None:
    """Put several runs of one suite side by side: scores, differences, and the same items.

    Differences are to the first run, item by item, with paired intervals at 95%.

    Example: unitok eval compare runs/ours runs/theirs -o comparison.html
    """
    with stopped_at_once():
        from unitok.evaluation.comparison import comparison, read_runs, to_json

    found = read_runs(runs)
    write_whole(comparison(found).encode(), output)
    if as_json:
        print_json(to_json(found))
    else:
        print(f"{output}: {', '.join(run.name for run in found)}")
