"""The results of a batch on disk, each of them whole.

A result is written to results.jsonl only after its pictures are saved, and it is on disk before
the next one is written. A killed run therefore leaves complete results. It may also leave a
half-written last line, which is dropped, and pictures without a line, which are written again under
the same names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from unitok.batch.form import Entry
from unitok.saving import UNFINISHED, save_whole
from unitok.strict_json import JsonObject
from unitok.terminal import uninterrupted

try:
    import fcntl
except ImportError:  # not a Unix: nothing then keeps two runs from writing to one folder
    fcntl = None

KEPT = "finished results are kept, and the same command resumes from there"


class Journal:
    """The results of a folder: results.jsonl, pictures/, and errors.jsonl of the last run.

    Attributes:
        folder: The folder.
        pictures: Where pictures are saved.
        done: The keys of all results.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder, lock it, and recover the results of earlier runs.

        Raises:
            OSError: The folder cannot be written.
            ValueError: Another run writes to it, or results.jsonl is damaged.
        """
        self.folder = folder
        self.pictures = PictureFolder(folder)
        self._path, self._errors_path = folder / "results.jsonl", folder / "errors.jsonl"
        self._errors: BinaryIO | None = None
        self._file = self._path.open("ab", buffering=0)
        try:
            self._lock()
            self.pictures.sweep()
            self._errors_path.unlink(missing_ok=True)
            self.done = self._recover()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        """The journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the journal and release its lock."""
        self._file.close()
        if self._errors is not None:
            self._errors.close()

    def append(self, record: JsonObject) -> None:
        """Add a result. It is on disk when this returns.

        Raises:
            OSError: It cannot be written. Then nothing of it stays in the file.
            ValueError: It has a number that is not finite, so that it is not JSON.
        """
        line = json_line(record)
        with told(self._path), uninterrupted():
            self._write(line)
        self.done.add(record["key"])

    def report(self, failure: JsonObject) -> None:
        """Add a line that failed to errors.jsonl, which has those of this run only.

        Raises:
            OSError: It cannot be written.
        """
        with told(self._errors_path):
            if self._errors is None:
                self._errors = self._errors_path.open("wb", buffering=0)
            write_all(self._errors, json_line(failure))

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another run is writing to {self.folder}; wait until it ends"
            ) from None

    def _recover(self) -> set[str]:
        """Read the keys of the results, and cut off a half-written last line."""
        done, complete = set(), 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    self._file.truncate(complete)
                    break
                complete += len(line)
                try:
                    done.add(json.loads(line)["key"])
                except (ValueError, TypeError, KeyError, RecursionError):
                    raise ValueError(
                        f"{self._path}: line {number} is not a result; fix or remove it"
                    ) from None
        return done

    def _write(self, line: bytes) -> None:
        """Add a line to the results and wait until it is on disk: all of it, or nothing.

        The caller delays Ctrl-C, so that a line is not given up while it is being written.
        """
        before = os.fstat(self._file.fileno()).st_size
        try:
            write_all(self._file, line)
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):  # if this fails too, the next run cuts the rest off
                self._file.truncate(before)
            raise


class PictureFolder:
    """The folder pictures/ beside results.jsonl.

    Attributes:
        folder: The folder of the results.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder, unless it exists."""
        self.folder = folder
        (folder / "pictures").mkdir(parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Remove what a killed run left half-written. No other run may be writing here."""
        for unfinished in (self.folder / "pictures").glob(f"*{UNFINISHED}"):
            unfinished.unlink()

    def save(self, entry: Entry, images: Sequence[Image.Image]) -> list[str]:
        """Save a result's pictures, each completely or not at all.

        Returns:
            The paths, relative to the folder.

        Raises:
            OSError: A picture cannot be written.
        """
        names = picture_names(entry, len(images))
        for name, image in zip(names, images, strict=True):
            with told(self.folder / name):
                save_whole(image, self.folder / name)
        return names


def picture_names(entry: Entry, count: int) -> list[str]:
    """The paths of a result's pictures, relative to the folder of the results.

    They are made of the line's number and key, so nothing in a line can lead elsewhere.
    """
    stem = f"pictures/{entry.line:06d}-{entry.key[:16]}"
    return [f"{stem}-{i}.png" if count > 1 else f"{stem}.png" for i in range(count)]


def json_line(record: JsonObject) -> bytes:
    """A record as a line of strict JSON.

    Raises:
        ValueError: It has a number that is not finite.
    """
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise ValueError("the result has a number that is not finite") from None
    return f"{text}\n".encode()


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all bytes to an unbuffered file, which may take them in pieces."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Let an error of the disk say which file it hit, and what is kept."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}; {KEPT}", str(path)) from None
