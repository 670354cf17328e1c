"""Pictures are saved whole or not at all: only a finished file gets the name it is to have."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

UNFINISHED = ".part"  # the suffix of what is being written


def save_whole(image: Image.Image, path: Path, new: bool = False) -> None:
    """Save a picture in the format that the suffix names.

    new: raise FileExistsError where a file has the name already; else that file is replaced, once
    the picture is on disk.
    """
    path = path if new else path.resolve()  # what a link leads to is replaced, not the link
    with _written(image, path) as unfinished:
        if new:
            _give_free_name(unfinished, path)
        else:
            unfinished.replace(path)


def picture_format(path: Path) -> str | None:
    """The picture format of a file's suffix, as PIL names it; None if there is none to write."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    return kind if kind in Image.SAVE else None


@contextmanager
def _written(image: Image.Image, path: Path) -> Iterator[Path]:
    """The picture under another name in the same folder, where another process writes none."""
    unfinished = path.with_name(f".unitok-{os.getpid()}{UNFINISHED}")
    try:
        with unfinished.open("w+b") as file:
            image.save(file, picture_format(path))
            file.flush()
            os.fsync(file.fileno())
        yield unfinished
    finally:
        with suppress(OSError):  # it has its own name by now, or could not even be made
            unfinished.unlink()


def _give_free_name(unfinished: Path, path: Path) -> None:
    """Rename a file, but never over another."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this disk: the name is taken first
        path.touch(exist_ok=False)
        unfinished.replace(path)
