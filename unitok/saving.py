"""Files are saved completely or not at all: only a complete one gets its final name."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from PIL import Image

UNFINISHED = ".part"  # the suffix of a file that is being written
# A drawing of 1,024 x 1,024 pixels, scaled by this, fits into every format. WebP has the least: its
# pictures are at most 16,383 pixels wide and high.
MAX_SCALE = 8


def save_whole(image: Image.Image, path: Path, new: bool = False) -> None:
    """Save a picture in the format that the suffix names.

    Args:
        image: The picture.
        path: The file.
        new: Whether the file must not exist yet. Else an old one is replaced, once the picture is
            on disk.

    Raises:
        FileExistsError: The file exists, and `new` was asked for.
        OSError: The file cannot be written.
    """
    path = path if new else path.resolve()  # the target of a link is replaced, not the link
    _save(lambda file: image.save(file, picture_format(path)), path, new)


def write_whole(data: bytes, path: Path, new: bool = False) -> None:
    """Write a file.

    Args:
        data: What it holds.
        path: The file.
        new: As in `save_whole`.

    Raises:
        FileExistsError: The file exists, and `new` was asked for.
        OSError: The file cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")
    _save(lambda file: file.write(data), path if new else path.resolve(), new)


def _save(write: Callable[[IO[bytes]], object], path: Path, new: bool) -> None:
    """Write a file by a function; see `save_whole`."""
    with _written(write, path) as unfinished:
        if new:
            _give_free_name(unfinished, path)
        else:
            unfinished.replace(path)


def picture_format(path: Path) -> str | None:
    """The picture format of a file's suffix, as PIL names it; None if PIL cannot write it."""
    kind = Image.registered_extensions().get(path.suffix.lower())
    return kind if kind in Image.SAVE else None


def expanded(path: str | Path) -> Path:
    """A path with the home folder instead of ~. The ~ of a user that does not exist stays."""
    return Path(os.path.expanduser(path))  # that of a Path raises, and names no file


def make_folder(folder: Path) -> None:
    """Make a folder, unless it exists, and check that it can be written to.

    Raises:
        OSError: It cannot be made or written to, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: cannot be written")


@contextmanager
def _written(write: Callable[[IO[bytes]], object], path: Path) -> Iterator[Path]:
    """Write a file under another name in the same folder, which is this thread's own."""
    name = f".unitok-{os.getpid()}-{threading.get_ident()}{UNFINISHED}"
    unfinished = path.with_name(name)
    try:
        with unfinished.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        yield unfinished
    except OSError as error:
        if error.errno is not None and error.filename is None:  # of a full disk, for example
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # it has its final name by now, or could not be made
            unfinished.unlink()


def _give_free_name(unfinished: Path, path: Path) -> None:
    """Rename a file, but never over another."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
    except OSError:  # this disk has no hard links: take the name first
        path.touch(exist_ok=False)
        unfinished.replace(path)
