"""What the commands of `unitok baseline` share: flags, a model that is opened, files in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitok.flags import Common
from unitok.reporting import from_stdin, stopped
from unitok.saving import picture_format
from unitok.terminal import complain, stopped_at_once

if TYPE_CHECKING:
    from PIL import Image

    from unitok.baselines.opening import Role

FAILED = 1  # the exit code if some items fail
TOGETHER = 32  # pictures that are held in memory at once
SHARED = ("revision", "cache_dir", "device", "verbose", "quiet")
"""The flags of every command that mean something to a model of others."""
WITH_DTYPE = (*SHARED, "dtype")

Model = Annotated[
    str,
    typer.Option(
        "--model", metavar="FOLDER", show_default=False, help="The model's folder or hub id."
    ),
]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE", show_default=False, help="Pictures; - is stdin.")
]
Labels = Annotated[
    list[str],
    typer.Option(
        "--label", metavar="TEXT", show_default=False, help="What to look for. Given once for each."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="How many are computed at once.", show_default="the adapter's own"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, with more details.")]


@contextmanager
def opened(common: Common, source: str, role: Role, **options: Any) -> Iterator[Any]:
    """Open a model of others, and close it in the end.

    Args:
        common: The options of every command.
        source: The folder, hub id or name.
        role: What it shall do.
        **options: Of its adapter. One that is None is left to it.

    Raises:
        ValueError: It cannot be opened or used, or a library is missing.
        OSError, TypeError: As `unitok.baselines.opening.load`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    model: Any = None
    try:
        with stopped_at_once():
            model = load(common, source, role, given)
        yield model
    except ImportError as error:  # its message says what to install
        raise ValueError(str(error)) from None
    finally:
        if hasattr(model, "close"):
            model.close()


def load(common: Common, source: str, role: Role, options: dict[str, Any]) -> Any:
    """Open a model of others, without the bars of its library."""
    from unitok.baselines import opening
    from unitok.checkpoints.folders import HubOptions

    hub, device = HubOptions(common.revision, cache_dir=common.cache_dir), common.device or "auto"
    return opening.load(source, role, device=device, hub=hub, silent=True, **options)


def picture_of(file: Path) -> Image.Image | None:
    """The picture of a file, or of stdin; None, and a line on stderr, if it cannot be read."""
    from unitok.pictures import open_picture

    try:
        return open_picture(from_stdin(file))
    except (OSError, ValueError) as error:
        complain(error)
        return None


def pictures_in(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as they are, and the pictures in folders and their folders, by name.

    Raises:
        ValueError: A folder has no picture.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.rglob("*") if picture_format(file) and file.is_file())
        if not found:
            raise ValueError(f"{path} has no pictures")
        yield from found


def run_each(done: Iterable[bool], total: int) -> None:
    """Run work on files, one after another.

    Args:
        done: Does the work. It gives whether it succeeded, once for each file.
        total: How many files there are.

    Raises:
        typer.Exit: It failed for a file, or was interrupted.
    """
    succeeded: list[bool] = []
    try:
        for success in done:
            succeeded.append(success)
    except KeyboardInterrupt:
        kept = f"{len(succeeded)} of {total} files are done" if succeeded else ""
        raise stopped(kept) from None
    if not all(succeeded):
        raise typer.Exit(FAILED)


def numbers(text: str, count: int, flag: str, example: str) -> tuple[float, ...]:
    """Numbers of a flag that takes several of them.

    Args:
        text: What was given, such as "10,20".
        count: How many there must be.
        flag: Its name, for messages.
        example: What a right value looks like.

    Raises:
        ValueError: It has another form.
    """
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) != count:
        from unitok.shown import shown

        raise ValueError(f"{flag} must be like {example}, in pixels, not {shown(text)}")
    return found


def distinct(labels: Sequence[str]) -> list[str]:
    """Labels without blanks around them; ValueError if one is empty or given twice."""
    clean = [label.strip() for label in labels]
    for i, label in enumerate(clean):
        if not label:
            raise ValueError("a --label is empty; say what to look for")
        if label in clean[:i]:
            raise ValueError(f"--label {label!r} is given twice")
    return clean
