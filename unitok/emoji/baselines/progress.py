"""Bars on stderr; none where stderr is no terminal."""

from collections.abc import Generator, Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from unitok.screen import counted

T = TypeVar("T")


def minutes_bar() -> Progress:
    """A bar that counts the core-minutes of a run, and shows a status."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.completed:.1f} of {task.total:g} core-minutes"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
        disable=not console.is_terminal,
    )


def with_bar(items: Iterable[T], total: int, what: str) -> Generator[T]:
    """The items, with a bar that counts them."""
    return counted(items, total, what, Console(stderr=True).is_terminal)
