"""What a person at a terminal sees: text as it comes, progress bars, tables."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from PIL import Image

    from unitok.live_pictures import PictureProgress
    from unitok.results import Event

TABLE_WIDTH = 120  # columns, if stdout is not a terminal
PICTURES_PER_SECOND = 4  # each of which may be a hundred kilobytes to a terminal

T = TypeVar("T")


# --- text ----------------------------------------------------------------------------------------


def write_live(pieces: Iterable[str]) -> None:
    """Write text to stdout as it comes. Its line is ended even if an error ends the text."""
    begun = False
    try:
        for piece in pieces:
            begun = True
            print(printable(piece), end="", flush=True)
    finally:
        if begun:
            print(flush=True)


def printable(text: str) -> str:
    """Text without control characters, which could command a terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def in_one_line(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of text with one blank in place of each run of blanks and line ends."""
    begun = blank = False
    for piece in pieces:
        words = " ".join(piece.split())
        blank = blank or piece[:1].isspace()
        yield " " + words if words and begun and blank else words
        if words:
            begun, blank = True, piece[-1:].isspace()


def after(start: str, pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of text with a start before the first piece."""
    for piece in pieces:
        yield start + piece
        start = ""


# --- bars ----------------------------------------------------------------------------------------


def bar(shown: bool, transient: bool, per_second: float = 10) -> PictureProgress:
    """A progress bar on stderr.

    Args:
        shown: Whether it is shown at all.
        transient: Whether it vanishes at its end.
        per_second: How often it is painted anew.
    """
    from rich.progress import MofNCompleteColumn

    from unitok.live_pictures import PictureProgress

    return PictureProgress(
        *PictureProgress.get_default_columns(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        disable=not shown,
        transient=transient,
        refresh_per_second=per_second,
        redirect_stdout=False,  # else output to a file or pipe would appear beside the bar
    )


def counted(items: Iterable[T], total: int | None, what: str, shown: bool) -> Generator[T]:
    """Pass items on, and show how many there were.

    Args:
        items: The items.
        total: How many there will be; None if that is not known.
        what: The name of the bar.
        shown: Whether the bar is shown at all.
    """
    with bar(shown, transient=False) as progress:
        yield from progress.track(items, total=total, description=what)


def watched(events: Iterable[Event], n: int, shown: bool) -> Generator[Event]:
    """Pass the events of a drawing on, and show its progress. Previews are shown above the bar.

    Args:
        events: The events.
        n: The number of pictures.
        shown: Whether the progress is shown at all.
    """
    pictures = 0
    with bar(shown, transient=True, per_second=PICTURES_PER_SECOND) as progress:
        task = progress.add_task("drawing", total=None)
        images: list[Image.Image | None] = [None] * n
        for event in events:
            pictures += event.kind == "image"
            what = "drawing" if n == 1 else f"{pictures} of {n} pictures"
            progress.update(task, description=what, completed=event.done, total=event.total)
            if event.image is not None:
                images[event.sample] = event.image
                progress.show(images, begin=event.kind == "preview")
            yield event


def show_pictures(images: Sequence[Image.Image]) -> None:
    """Print pictures on stderr, as large as the terminal allows."""
    from unitok.live_pictures import HalfBlocks

    Console(stderr=True).print(HalfBlocks(images), end="")


# --- tables --------------------------------------------------------------------------------------


def stdout_console() -> Console:
    """The console that prints tables."""
    return Console() if sys.stdout.isatty() else Console(width=TABLE_WIDTH)
