"""Bars on stderr; none where stderr is no terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


def minutes_bar() -> Progress:
    """A bar that counts the minutes of a run, and shows a status."""
    used = TextColumn("{task.completed:.1f} of {task.total:g} minutes")
    return _bar(used, TimeRemainingColumn(), TextColumn("{task.fields[status]}"))


def in_steps(steps: range, what: str) -> Iterator[int]:
    """The numbers of a range, with a bar that counts them.

    Args:
        steps: The numbers.
        what: What is done meanwhile.
    """
    with _bar(MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        yield from bar.track(steps, description=what)


def _bar(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        *columns,
        console=console,
        disable=not console.is_terminal,
    )
