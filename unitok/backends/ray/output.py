"""Where results are written: a folder of this disk or of a shared one, or an object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from unitok.extras import need
from unitok.saving import UNFINISHED, make_folder

try:
    import fcntl
except ImportError:  # not a Unix: nothing then keeps two runs from writing to one folder
    fcntl = None

# A file of these stores appears when all of it was sent, and takes the place of an older one.
STORES = ("s3", "gcs", "abfs")
LOCK = ".lock"


def find_files(place: str) -> tuple[Any, str]:
    """The file system of a place, and the path there.

    Args:
        place: A path of this disk, or an address such as s3://bucket/folder.

    Raises:
        ValueError: It is an address that pyarrow cannot open.
    """
    fs = need("pyarrow.fs", "ray")
    if "://" not in place:
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(place))
    try:
        return fs.FileSystem.from_uri(place)
    except (ValueError, OSError, ImportError) as error:
        raise ValueError(f"{place}: {error}") from None


@dataclass(frozen=True)
class Output:
    """A folder in which every file is there completely or not at all.

    Attributes:
        files: The file system, of pyarrow.
        root: The folder's path there.
        place: The folder, as it was named.
    """

    files: Any
    root: str
    place: str

    @classmethod
    def at(cls, place: str) -> Output:
        """The folder of that name, which is made.

        Raises:
            OSError: It cannot be made or written to.
            ValueError: It lies where files may be seen half-written.
        """
        files, root = find_files(place)
        output = cls(files, root.rstrip("/"), place)
        if output.local is not None:
            make_folder(output.local)
        elif files.type_name not in STORES:
            raise ValueError(f"{place}: results are written to folders, or to S3, Google or Azure")
        return output

    @property
    def local(self) -> Path | None:
        """The folder, if it is one of this disk or of a shared one."""
        return Path(self.root) if self.files.type_name == "local" else None

    def names(self, folder: str = "") -> list[str]:
        """The names of the files and folders in a folder, but for hidden ones."""
        fs = need("pyarrow.fs", "ray")
        where = fs.FileSelector(self._path(folder), allow_not_found=True)
        found = (info.base_name for info in self.files.get_file_info(where))
        return sorted(name for name in found if not name.startswith("."))

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return bool(self.files.get_file_info(self._path(name)).is_file)

    def read(self, name: str) -> bytes:
        """What a file holds."""
        with self.files.open_input_file(self._path(name)) as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace it. It is there completely or not at all.

        Raises:
            OSError: It cannot be written.
        """
        if self.local is not None:
            replace(self.local / name, data)
            return
        with self.files.open_output_stream(self._path(name)) as file:
            file.write(data)

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        if self.has(name):
            with suppress(FileNotFoundError):  # another replica may have done it just now
                self.files.delete_file(self._path(name))

    def sweep(self, folder: str) -> None:
        """Remove what killed replicas left half-written in a folder."""
        if self.local is not None:
            for unfinished in (self.local / folder).glob(f".*{UNFINISHED}"):
                unfinished.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from writing here, on a disk. In a store, two runs do their work twice.

        Raises:
            ValueError: Another run writes here.
        """
        if self.local is None or fcntl is None:
            yield
            return
        with (self.local / LOCK).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another run is writing to {self.place}; wait until it ends"
                ) from None
            yield

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root


def replace(path: Path, data: bytes) -> None:
    """Write a file by way of another, whose name no process of any machine has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid4().hex}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
