"""Files of the server's users, in a folder. Each has an owner, and nobody else sees it.

A file is `ID.data` and `ID.json`, which says whose it is. The second is written when the first is
whole and on disk, and there is no file without it. Names that users give are never paths.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from unitok.batch.journal import write_all
from unitok.saving import UNFINISHED, make_folder, write_whole
from unitok.server.errors import ApiError
from unitok.server.keys import Owner
from unitok.server.settings import ServerSettings
from unitok.server.state.records import read_record
from unitok.server.state.stored_file import (
    FILE_ID,
    StoredFile,
    link_or_copy,
    new_id,
)
from unitok.strict_json import shown_json

RECORD_UNFINISHED = re.compile(rf"\.unitok-\d+-\d+{re.escape(UNFINISHED)}")
PICTURES = ("vision", "user_data")  # what a file is for whose bytes may be a picture
PURPOSES = ("batch", *PICTURES)  # of files that users send


class FileStore:
    """The files of a folder. Any thread may use it.

    Attributes:
        folder: The folder, which belongs to the store alone.
        settings: The limits.
    """

    def __init__(
        self,
        folder: Path,
        settings: ServerSettings,
        in_use: Callable[[str], Mapping[str, int]] = lambda _: {},
    ) -> None:
        """Open a folder, and remove what an earlier server left half-written.

        Args:
            folder: The folder.
            settings: The limits.
            in_use: The bytes of files that an owner's batches read, by id, for an owner's id. They
                are on disk even if the file is deleted, and count until then.

        Raises:
            OSError: The folder cannot be read or written.
            ValueError: A file of it is damaged.
        """
        make_folder(folder)
        self.folder, self.settings, self._in_use = folder, settings, in_use
        self._lock = threading.Lock()
        # Of what is not kept yet, by owner.
        self._files_coming: Counter[str] = Counter()
        self._bytes_coming: Counter[str] = Counter()
        self._files: dict[str, dict[str, StoredFile]] = {}  # by owner and id
        for path in folder.glob("file-*.json"):
            self._add(read_record(path, StoredFile, path.stem, FILE_ID))
        self._sweep()

    def _add(self, file: StoredFile) -> None:
        self._files.setdefault(file.owner, {})[file.id] = file

    def _sweep(self) -> None:
        """Remove what was not received to its end, or is deleted by half."""
        known = {file_id for files in self._files.values() for file_id in files}
        for path in self.folder.iterdir():
            half = path.suffix in (UNFINISHED, ".data") and FILE_ID.fullmatch(path.stem)
            if (half and path.stem not in known) or RECORD_UNFINISHED.fullmatch(path.name):
                path.unlink()

    def find(self, owner: Owner, file_id: str, param: str | None = None) -> StoredFile:
        """A file of an owner.

        Args:
            owner: Who asks.
            file_id: The file's id.
            param: The key that names it, for errors.

        Raises:
            ApiError: The owner has no such file.
        """
        file = self._files.get(owner.id, {}).get(file_id)
        if file is None:
            raise no_file(file_id, param)
        return file

    def file_bytes(self, owner: Owner, file_id: str, param: str | None = None) -> bytes:
        """The bytes of a file that may be a picture.

        Args:
            owner: Who asks.
            file_id: The file's id.
            param: The key that names it, for errors.

        Raises:
            ApiError: The owner has no such file, it is for another purpose, or it is too large.
        """
        file = self.find(owner, file_id, param)
        if file.purpose not in PICTURES:
            raise ApiError(
                400,
                f'the file is for "{file.purpose}": send a picture with the purpose "vision"',
                param=param,
                code="invalid_purpose",
            )
        if file.bytes > self.settings.max_body:
            raise ApiError(
                400,
                f"the file has {file.bytes:,} bytes; at most {self.settings.max_body:,} are read",
                param=param,
                code="image_file_too_large",
            )
        with self.open(file, param) as opened:
            return opened.read()

    def open(self, file: StoredFile, param: str | None = None) -> BinaryIO:
        """Open a file to read it. It can be read to its end even if it is deleted meanwhile.

        Args:
            file: The file.
            param: The key that names it, for errors.

        Raises:
            ApiError: It has just been deleted.
        """
        try:
            return self.data_path(file.id).open("rb")
        except FileNotFoundError:
            raise no_file(file.id, param) from None

    def of(self, owner: Owner, purpose: str | None = None) -> list[StoredFile]:
        """The files of an owner, the newest one first.

        Args:
            owner: The owner.
            purpose: What they are to be for; None for all.
        """
        mine = [
            f for f in list(self._files.get(owner.id, {}).values()) if purpose in (None, f.purpose)
        ]
        return sorted(mine, key=lambda file: (file.created, file.id), reverse=True)

    def begin(self, owner: Owner) -> Incoming:
        """Begin to receive a file.

        Raises:
            ApiError: The owner has too many files, or too many bytes.
        """
        with self._lock:
            self._check_room(owner, 1)
            self._files_coming[owner.id] += 1
        return Incoming(self, owner)

    def check_room(self, owner: Owner) -> None:
        """Check that an owner may have a further file.

        Raises:
            ApiError: There is no room.
        """
        with self._lock:
            self._check_room(owner, 1)

    def _claim(self, owner: Owner, size: int) -> None:
        with self._lock:
            self._check_room(owner, size, files=0)
            self._bytes_coming[owner.id] += size

    def _release(self, owner: Owner, size: int) -> None:
        with self._lock:
            self._files_coming[owner.id] -= 1
            self._bytes_coming[owner.id] -= size
            if not self._files_coming[owner.id]:
                del self._files_coming[owner.id], self._bytes_coming[owner.id]

    def _check_room(self, owner: Owner, size: int, files: int = 1) -> None:
        mine, settings = self._files.get(owner.id, {}), self.settings
        count = len(mine) + self._files_coming[owner.id]
        if files and count >= settings.max_files:
            raise full(f"this key has {count:,} of {settings.max_files:,} files")
        kept = {**self._in_use(owner.id), **{id: file.bytes for id, file in mine.items()}}
        total = sum(kept.values()) + self._bytes_coming[owner.id]
        if total + size > settings.max_stored:
            raise full(f"the files of this key have {total:,} of {settings.max_stored:,} bytes")

    def adopt(self, file_id: str, path: Path, owner: Owner, name: str, purpose: str) -> None:
        """Make a file that the server has written one of an owner's. Doing it again is no harm.

        Args:
            file_id: The id that it gets, of `new_id`.
            path: Where it is. It stays there too.
            owner: The owner, whose limits it may exceed.
            name: What it is called.
            purpose: What it is for.

        Raises:
            OSError: The disk does not take it.
        """
        self.data_path(file_id).unlink(missing_ok=True)
        link_or_copy(path, self.data_path(file_id))
        self._keep(file_id, owner, name, purpose)

    def delete(self, owner: Owner, file_id: str) -> None:
        """Delete a file.

        Raises:
            ApiError: The owner has no such file.
        """
        with self._lock:
            self.find(owner, file_id)
            del self._files[owner.id][file_id]
            self._record_path(file_id).unlink(missing_ok=True)
            self.data_path(file_id).unlink(missing_ok=True)

    def data_path(self, file_id: str) -> Path:
        """Where the bytes of a file are."""
        return self.folder / f"{file_id}.data"

    def _record_path(self, file_id: str) -> Path:
        return self.folder / f"{file_id}.json"

    def _keep(self, file_id: str, owner: Owner, name: str, purpose: str) -> StoredFile:
        size = self.data_path(file_id).stat().st_size
        file = StoredFile(file_id, owner.id, size, time.time_ns(), name, purpose)
        with self._lock:
            write_whole(json.dumps(asdict(file)).encode(), self._record_path(file_id))
            self._add(file)
        return file


class Incoming:
    """A file that is being received. Unless it is kept, nothing of it stays.

    If it is left while another thread writes to it, that is waited for.
    """

    def __init__(self, store: FileStore, owner: Owner) -> None:
        """Nothing has been received yet."""
        self._store, self._owner, self._id = store, owner, new_id()
        self._path = store.folder / f"{self._id}{UNFINISHED}"
        self._file = self._path.open("xb", buffering=0)
        self._size = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Incoming:
        """The file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it, unless it was kept."""
        with self._lock:
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._store._release(self._owner, self._size)

    def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            ApiError: The file becomes too large, or its owner has no room.
            OSError: The disk does not take it.
            ValueError: It was left.
        """
        with self._lock:
            self._check_open()
            self._check_size(self._size + len(data))
            self._store._claim(self._owner, len(data))
            self._size += len(data)
            write_all(self._file, data)

    def keep(self, name: str, purpose: str) -> StoredFile:
        """Make it one of the owner's files. It is on disk when this returns.

        Raises:
            OSError: The disk does not take it.
            ValueError: It was left.
        """
        with self._lock:
            self._check_open()
            os.fsync(self._file.fileno())
            self._path.replace(self._store.data_path(self._id))
            return self._store._keep(self._id, self._owner, name, purpose)

    def _check_open(self) -> None:
        if self._file.closed:
            raise ValueError("nobody receives this file any more")

    def _check_size(self, size: int) -> None:
        most = self._store.settings.max_file
        if size > most:
            raise ApiError(
                413,
                f"the file has more than {most:,} bytes",
                param="file",
                code="file_too_large",
                headers={"connection": "close"},
            )


def no_file(file_id: str, param: str | None) -> ApiError:
    """The error of a file that its owner does not have."""
    told = f"there is no file {shown_json(file_id)}"
    return ApiError(404, told, param=param, code="file_not_found")


def full(why: str) -> ApiError:
    """The error of an owner that has no room."""
    return ApiError(403, f"{why}: delete some, DELETE /v1/files/ID", code="storage_full")
