"""Runs one batch, by the code of `unitok batch`: same keys, same journal, each result once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from unitok.batch.entries import EntryReader, WrongLine
from unitok.batch.form import Entry
from unitok.batch.journal import Journal
from unitok.batch.runner import BatchRun
from unitok.batch.source import Source
from unitok.openai_wire.batches import line_error
from unitok.requests import AnyRequest
from unitok.results import Result
from unitok.server.errors import ApiError
from unitok.server.keys import Owner
from unitok.server.served import Served, ServedModels
from unitok.server.settings import ServerSettings
from unitok.server.state.batch_store import INPUT, BatchRecord, BatchStore
from unitok.server.state.file_store import FileStore
from unitok.server.state.lines import CANCELLED, EXPIRED, NotRun, ServedLines, validate
from unitok.server.state.stored_file import new_id

IN_FLIGHT = 16  # lines of a batch that run at once
OUTPUTS = {"output_file_id": "results.jsonl", "error_file_id": "errors.jsonl"}


class Interrupted(Exception):
    """The batch stops here, and goes on from here later."""


@dataclass(frozen=True)
class Workplace:
    """What all batches share.

    Attributes:
        batches: What is known of them.
        files: The files of their owners.
        settings: The limits.
        models: The models.
        identity_of: The identity of a model.
        stops: Whether the server is about to end.
        note: Counts a result of a model, by the model's name.
    """

    batches: BatchStore
    files: FileStore
    settings: ServerSettings
    models: ServedModels
    identity_of: Callable[[Served], str]
    stops: Callable[[], bool]
    note: Callable[[str, Result], None]


class BatchWork:
    """The work on one batch, from what is on disk to its end.

    Attributes:
        place: What all batches share.
        id: The batch.
    """

    def __init__(self, place: Workplace, batch_id: str) -> None:
        """Nothing is done yet."""
        self.place, self.id = place, batch_id
        self._folder = place.batches.folder_of(batch_id)

    @property
    def record(self) -> BatchRecord:
        """What is known of the batch now."""
        return self.place.batches.get(self.id)

    def run(self) -> None:
        """Do what is left to do.

        Raises:
            Interrupted: The server is about to end, or its model takes nothing now.
            OSError: The disk takes nothing.
        """
        if self.record.ending is None:
            if self.record.model is None and not self._validate():
                return
            self._prepare_end(self._run_lines())
        self._end()

    def fail(self, code: str, message: str) -> None:
        """End the batch for a reason that no line is to blame for. Its results are kept.

        Raises:
            OSError: The disk takes nothing.
        """
        if self.record.ending is None:
            self._change(lambda r: replace(r, errors=[line_error(None, message, code=code)]))
            self._prepare_end("failed")
        self._end()

    def _validate(self) -> bool:
        """Look at all lines, and say whether they can be run."""
        place, record = self.place, self.record
        if record.status == "cancelling":
            self._change(lambda r: r.at("cancelled"))
            return self._cleared()
        most = place.settings.max_lines
        seen = validate(Source(self._folder / INPUT), record.endpoint, place.models, most)
        if seen.errors or seen.served is None:
            self._change(lambda r: r.at("failed", total=seen.total, errors=seen.errors))
            return self._cleared()
        model, identity = seen.served.name, place.identity_of(seen.served)
        found = {"model": model, "identity": identity, "total": seen.total}
        self._change(
            lambda r: (
                replace(r, **found) if r.status == "cancelling" else r.at("in_progress", **found)
            )
        )
        return True

    def _cleared(self) -> bool:
        self.place.batches.clear(self.id)
        return False

    def _run_lines(self) -> str:
        """Run the lines that have no result, and give the status that the batch ends with."""
        record, served = self.record, self._model()
        if served is None:
            told = f"the model {self.record.model!r} is not served any more, or is another one now"
            error = line_error(None, told, code="model_changed")
            self._change(lambda r: replace(r, errors=[error]))
            return "failed"
        form = ServedLines(record.endpoint, served, self.place.settings.max_n)
        source, failed = Source(self._folder / INPUT), 0
        assert record.identity is not None
        with Journal(self._folder) as journal:
            lines = LinesToRun(self, EntryReader(source, record.identity, lambda _: form), journal)
            results = lambda requests: self._results(served, requests)  # noqa: E731
            for outcome in BatchRun(results, lines, journal).outcomes():
                failed += outcome.status == "failed"
                self.place.batches.note(self.id, completed=len(journal.done), failed=failed)
        if lines.interrupted:
            raise Interrupted
        if self.record.status == "cancelling":
            return "cancelled"
        return "expired" if lines.expired else "completed"

    def _model(self) -> Served | None:
        """The model that the batch began with; None if it is not there any more."""
        try:
            served = self.place.models.find({"model": self.record.model})
        except ApiError:
            return None
        return served if self.place.identity_of(served) == self.record.identity else None

    def _results(self, served: Served, requests: Iterable[AnyRequest]) -> Iterator[Result]:
        """Results as they come.

        Raises:
            Interrupted: The model takes nothing now, or has been closed.
        """
        prepare, driver = served.model.prepare, served.model.driver
        check = driver.engine.check
        jobs = (prepare.job_or_failure(asked, i, check) for i, asked in enumerate(requests))
        try:
            for result in driver.run(jobs, IN_FLIGHT):
                if result.finish_reason == "abort":
                    raise Interrupted
                if result.error is None:
                    self.place.note(served.name, result)
                yield result
        except RuntimeError as error:  # closed, or full
            raise Interrupted from error

    def _prepare_end(self, ending: str) -> None:
        """Note how the batch ends, and the ids of its files, before any of these is there."""
        there = {
            key: new_id() if is_filled(self._folder / name) else None
            for key, name in OUTPUTS.items()
        }
        self._change(lambda r: replace(r, ending=ending, **there))
        if ending == "completed":
            self._change(lambda r: r.at("finalizing"))

    def _end(self) -> None:
        """Give the owner the files, and end the batch."""
        record = self.record
        for key, name in OUTPUTS.items():
            if (file_id := getattr(record, key)) is not None:
                kind = name.removesuffix(".jsonl")
                self.place.files.adopt(
                    file_id,
                    self._folder / name,
                    Owner(record.owner),
                    f"{record.id}_{kind}.jsonl",
                    "batch_output",
                )
        assert record.ending is not None
        ending = record.ending
        self._change(lambda r: r.at(ending))
        self.place.batches.clear(self.id)

    def _change(self, change: Callable[[BatchRecord], BatchRecord]) -> None:
        self.place.batches.change(self.id, change)


class LinesToRun:
    """The lines of a batch, as long as it goes on. What is not run any more is a wrong line.

    Attributes:
        interrupted: Whether it broke off, as the server is about to end.
        expired: Whether lines were left out, as the time of the batch is over.
    """

    def __init__(self, work: BatchWork, entries: EntryReader, journal: Journal) -> None:
        """No line has been read yet."""
        self._work, self._entries, self._journal = work, entries, journal
        self.interrupted = self.expired = False

    def __iter__(self) -> Iterator[Entry | WrongLine]:
        """The lines."""
        for entry in self._entries:
            if self._work.place.stops():
                self.interrupted = True
                return
            reason = self._reason()
            if reason is None or isinstance(entry, WrongLine) or entry.key in self._journal.done:
                yield entry
            else:
                yield WrongLine(entry.line, entry.asked, entry.form, reason)

    def _reason(self) -> NotRun | None:
        """Why no line is run any more; None if they are."""
        if self._work.record.status == "cancelling":
            return CANCELLED
        self.expired = self.expired or time.time() > self._work.record.expires
        return EXPIRED if self.expired else None


def is_filled(path: Path) -> bool:
    """Whether there is a file, and it is not empty."""
    return path.is_file() and path.stat().st_size > 0
