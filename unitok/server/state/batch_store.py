"""What is known of batches, in a folder each: `batch.json`, and what the batch reads and writes.

`batch.json` is replaced as a whole at each step of the batch, so that a server that is killed goes
on from the last one.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from unitok.openai_wire.batches import FINAL, WINDOW, WINDOW_SECONDS, BatchAsked
from unitok.saving import make_folder, write_whole
from unitok.server.errors import ApiError
from unitok.server.keys import Owner
from unitok.server.state.records import read_record
from unitok.strict_json import JsonObject, shown_json

BATCH_ID = re.compile(r"batch_[0-9a-f]{32}")
RECORD, INPUT = "batch.json", "input.jsonl"
MAX_ENDED = 1000  # batches of a key that have ended and are remembered


@dataclass(frozen=True)
class BatchRecord:
    """What is known of a batch.

    Attributes:
        id: Its id, which cannot be guessed.
        owner: The id of the owner.
        created: The time, in nanoseconds since 1970.
        input_file_id: The file with the lines.
        endpoint: Where every line leads.
        metadata: What the client keeps with the batch.
        input_bytes: The size of that file; 0 in records of before it was noted.
        status: As in OpenAI's API.
        times: When it reached other statuses, in seconds since 1970.
        model: The model that all lines name; None until they have been looked at.
        identity: The model's, which is part of the keys of results.
        total: The number of lines.
        completed: How many have a result.
        failed: How many have failed.
        errors: Why the batch failed.
        ending: The status that it will have when its files are there; None as long as it runs.
        output_file_id: The file of results; None for none.
        error_file_id: The file of errors; None for none.
    """

    id: str
    owner: str
    created: int
    input_file_id: str
    endpoint: str
    metadata: dict[str, str]
    input_bytes: int = 0
    status: str = "validating"
    times: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    identity: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    errors: list[JsonObject] = field(default_factory=list)
    ending: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.status in FINAL

    @property
    def expires(self) -> int:
        """When it expires, in seconds since 1970."""
        return self.created // 10**9 + WINDOW_SECONDS

    def at(self, status: str, **changes: Any) -> BatchRecord:
        """The record in another status, from now on."""
        times = {**self.times, status: int(time.time())}
        return replace(self, status=status, times=times, **changes)

    @property
    def body(self) -> JsonObject:
        """The object that tells of it."""
        statuses = ("in_progress", "finalizing", "cancelling", *FINAL)
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "input_file_id": self.input_file_id,
            "completion_window": WINDOW,
            "status": self.status,
            "output_file_id": self.output_file_id if self.ended else None,
            "error_file_id": self.error_file_id if self.ended else None,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "created_at": self.created // 10**9,
            "expires_at": self.expires,
            **{f"{status}_at": self.times.get(status) for status in statuses},
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "metadata": self.metadata or None,
        }


class BatchStore:
    """The batches of a folder. Any thread may use it.

    Attributes:
        folder: The folder, which belongs to the store alone.
    """

    def __init__(self, folder: Path, most: int) -> None:
        """Open a folder, and remove what an earlier server left half-written.

        Args:
            folder: The folder.
            most: The most batches of one owner that have not ended.

        Raises:
            OSError: The folder cannot be read or written.
            ValueError: A batch in it is damaged.
        """
        make_folder(folder)
        self.folder, self._most = folder, most
        self._lock = threading.Lock()
        self._records: dict[str, BatchRecord] = {}
        for path in folder.iterdir():
            if not BATCH_ID.fullmatch(path.name):
                continue
            if not (path / RECORD).exists():
                shutil.rmtree(path)
                continue
            record = read_record(path / RECORD, BatchRecord, path.name, BATCH_ID)
            self._records[path.name] = record
            if record.ended:
                self.clear(record.id)

    def create(
        self, owner: Owner, asked: BatchAsked, link: Callable[[Path], object]
    ) -> BatchRecord:
        """Begin a batch.

        Args:
            owner: Whose it is.
            asked: What is asked for.
            link: Puts the file with the lines into a path.

        Raises:
            ApiError: The owner has too many batches.
            OSError: The disk does not take it.
        """
        id = f"batch_{secrets.token_hex(16)}"
        file_id, endpoint, metadata = asked.input_file_id, asked.endpoint, dict(asked.metadata)
        with self._lock:
            self._make_room(owner)
            folder = self.folder_of(id)
            folder.mkdir()
            try:
                link(folder / INPUT)
                size = (folder / INPUT).stat().st_size
                now = time.time_ns()
                record = BatchRecord(id, owner.id, now, file_id, endpoint, metadata, size)
                return self._save(record)
            except BaseException:
                shutil.rmtree(folder)
                raise

    def find(self, owner: Owner, batch_id: str) -> BatchRecord:
        """A batch of an owner.

        Raises:
            ApiError: The owner has no such batch.
        """
        record = self._records.get(batch_id)
        if record is None or record.owner != owner.id:
            told = f"there is no batch {shown_json(batch_id)}"
            raise ApiError(404, told, code="batch_not_found")
        return record

    def of(self, owner: Owner) -> list[BatchRecord]:
        """The batches of an owner, the newest one first."""
        mine = [record for record in list(self._records.values()) if record.owner == owner.id]
        return sorted(mine, key=lambda record: (record.created, record.id), reverse=True)

    def unfinished(self) -> list[BatchRecord]:
        """The batches that have not ended, the oldest one first."""
        left = [record for record in list(self._records.values()) if not record.ended]
        return sorted(left, key=lambda record: (record.created, record.id))

    def inputs(self, owner_id: str) -> dict[str, int]:
        """The bytes of what an owner's batches still read, by the id of the file that was given.

        Args:
            owner_id: The id of the owner.
        """
        mine = [record for record in list(self._records.values()) if record.owner == owner_id]
        return {record.input_file_id: record.input_bytes for record in mine if not record.ended}

    def get(self, batch_id: str) -> BatchRecord:
        """What is known of a batch now."""
        return self._records[batch_id]

    def change(self, batch_id: str, change: Callable[[BatchRecord], BatchRecord]) -> BatchRecord:
        """Change what is known of a batch. It is on disk when this returns.

        Args:
            batch_id: The batch.
            change: Makes the new record of the present one.

        Raises:
            OSError: The disk does not take it. Then nothing has changed.
        """
        with self._lock:
            return self._save(change(self._records[batch_id]))

    def note(self, batch_id: str, **counts: int) -> None:
        """Change the counts of a batch, which are on disk only with the next change."""
        with self._lock:
            self._records[batch_id] = replace(self._records[batch_id], **counts)

    def clear(self, batch_id: str) -> None:
        """Remove what a batch has read and written, but not what is known of it."""
        for path in self.folder_of(batch_id).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != RECORD:
                path.unlink()

    def folder_of(self, batch_id: str) -> Path:
        """The folder of a batch."""
        return self.folder / batch_id

    def _save(self, record: BatchRecord) -> BatchRecord:
        data = json.dumps(asdict(record)).encode()
        write_whole(data, self.folder_of(record.id) / RECORD)
        self._records[record.id] = record
        return record

    def _make_room(self, owner: Owner) -> None:
        mine = self.of(owner)
        running = sum(not record.ended for record in mine)
        if running >= self._most:
            raise ApiError(
                429,
                f"{running} batches of this key have not ended, and it may have {self._most}: "
                "wait for one, or cancel one",
                code="too_many_batches",
                headers={"retry-after": "60", "x-should-retry": "false"},
            )
        for record in [record for record in mine if record.ended][MAX_ENDED - 1 :]:
            shutil.rmtree(self.folder_of(record.id))
            del self._records[record.id]
