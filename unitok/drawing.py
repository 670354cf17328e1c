"""`unitok draw` and `unitok edit`: pictures are saved as soon as they are decoded."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from unitok.flags import Common
from unitok.reporting import check, stopped
from unitok.requests import Draw, Edit
from unitok.saving import make_folder, picture_format, save_whole
from unitok.screen import watched
from unitok.terminal import uninterrupted

if TYPE_CHECKING:
    from unitok.results import Event, Result


def generate(
    common: Common, asked: Draw | Edit, output: Path, as_json: bool
) -> tuple[list[str], Result | None]:
    """Generate pictures and save them. Unless JSON is wanted, print their files and seeds.

    Returns:
        The files, and the result of all pictures.

    Raises:
        ValueError, OSError: The file cannot be written, or an option is out of its range.
    """
    check_picture_name(output)
    check(asked, as_json)
    make_folder(output.parent)
    paths = numbered(output, asked.samples)
    saved: dict[int, str] = {}  # number of a picture -> its seed
    try:
        with common.load() as model:
            from unitok.api import checked_event

            events = map(checked_event, model.stream(asked))
            events = watched(events, asked.samples, common.bars)
            result = save_as_decoded(events, paths, saved)
    except KeyboardInterrupt:
        done = f"{len(saved)} of {asked.samples} pictures are saved"
        raise stopped(done if saved else "") from None
    finally:
        for number in () if as_json else sorted(saved):
            print(f"{paths[number]}: seed {saved[number]}")
    return [str(path) for path in paths], result


def save_as_decoded(
    events: Generator[Event], paths: Sequence[Path], saved: dict[int, str]
) -> Result | None:
    """Save pictures as they come.

    Args:
        events: The events of the request.
        paths: Where each picture is saved.
        saved: Gets the seed of each picture that is saved, by its number.

    Returns:
        The result of all pictures.
    """
    result = None
    with closing(events):
        for event in events:
            if event.image is not None:
                with uninterrupted():
                    save_whole(event.image, paths[event.sample])
                    saved[event.sample] = event.image.info["seed"]
            result = event.result
    return result


def numbered(output: Path, n: int) -> list[Path]:
    """The files of n pictures, with a number before the suffix if there are several."""
    if n == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(n)]


def parse_size(size: str | None) -> tuple[int | None, int | None]:
    """Width and height of text such as 768x512; None twice for no text.

    Raises:
        ValueError: The text is no size.
    """
    if size is None:
        return None, None
    width, _, height = size.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ValueError(f"--size must be width x height in pixels, such as 768x512, not {size!r}")
    return int(width), int(height)


def check_picture_name(path: Path) -> None:
    """Check that a file's name is one of a picture.

    Raises:
        ValueError: Its suffix names no picture format.
        IsADirectoryError: It is a folder.
    """
    if picture_format(path) is None:
        raise ValueError(f"{path}: name a picture, such as {path.stem or 'picture'}.png")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
