"""Runs a batch: what is not there yet is run, and every result is written once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, Protocol

from unitok.api import Model
from unitok.batch.entries import EntryReader, WrongLine, own_or_openai
from unitok.batch.form import Entry, Pictures
from unitok.batch.journal import Journal
from unitok.batch.source import Source
from unitok.requests import AnyRequest
from unitok.results import Result
from unitok.strict_json import JsonObject
from unitok.terminal import one_line


class Results(Protocol):
    """Where results are written, such as a `unitok.batch.journal.Journal`."""

    @property
    def pictures(self) -> Pictures:
        """Where pictures are saved."""
        ...

    @property
    def done(self) -> set[str]:
        """The keys of all results."""
        ...

    def append(self, record: JsonObject) -> None:
        """Add a result; ValueError if it is not JSON."""
        ...

    def report(self, failure: JsonObject) -> None:
        """Add a line that failed."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a line.

    Attributes:
        line: Its number, from 1 on.
        status: "new" for a new result, "kept" for one of an earlier run, "failed" for an error.
        error: What went wrong; None if nothing did.
    """

    line: int
    status: Literal["new", "kept", "failed"]
    error: str | None = None


def run_batch(model: Model, source: Source, folder: Path, identity: str) -> Iterator[Outcome]:
    """Run the requests of JSON lines, and write their results.

    Args:
        model: The model.
        source: The JSON lines.
        folder: Where results.jsonl, errors.jsonl and pictures/ are written.
        identity: Part of the keys, so that models have different results; see
            `unitok.batch.keys.model_identity`.

    Yields:
        An outcome per line, as soon as it is known.

    Raises:
        OSError: `source` cannot be read, or `folder` cannot be written.
        ValueError: Another run writes to `folder`, or its results.jsonl is damaged.
    """
    with Journal(folder) as journal:
        entries = EntryReader(source, identity, own_or_openai(model.name))
        yield from BatchRun(model.run, entries, journal).outcomes()


class BatchRun:
    """Which lines are being run, and what became of the others.

    Attributes:
        run: Runs requests, as `Model.run` does.
        entries: The lines.
        journal: The results.
    """

    def __init__(
        self,
        run: Callable[[Iterable[AnyRequest]], Iterable[Result]],
        entries: Iterable[Entry | WrongLine],
        journal: Results,
    ) -> None:
        """Nothing is run yet."""
        self.run, self.entries, self.journal = run, entries, journal
        self._running: dict[int, Entry] = {}  # by the index of the request
        self._settled: deque[Outcome] = deque()

    def outcomes(self) -> Iterator[Outcome]:
        """Run all lines. Gives an outcome per line, as soon as it is known."""
        entries = iter(self.entries)
        for entry in entries:
            outcome = self._settle(entry)
            if outcome is None:  # only from here on is there something to wait for
                yield from self._run(chain([entry], entries))
            else:
                yield outcome

    def _run(self, entries: Iterable[Entry | WrongLine]) -> Iterator[Outcome]:
        for result in self.run(self._requests(entries)):
            self._settled.append(self._finish(self._running.pop(result.index), result))
            while self._settled:
                yield self._settled.popleft()
        yield from self._settled

    def _requests(self, entries: Iterable[Entry | WrongLine]) -> Iterator[AnyRequest]:
        """The requests that are still to be run. What became of the other lines is settled."""
        index = 0
        for entry in entries:
            outcome = self._settle(entry)
            if outcome is not None:
                self._settled.append(outcome)
            else:
                assert isinstance(entry, Entry)  # a wrong line is settled
                self._running[index] = entry
                index += 1
                yield entry.request

    def _settle(self, entry: Entry | WrongLine) -> Outcome | None:
        """What became of a line that is not run; None if it has to be run."""
        if isinstance(entry, WrongLine):
            return self._fail(entry, ran=False)
        return Outcome(entry.line, "kept") if entry.key in self.journal.done else None

    def _finish(self, entry: Entry, result: Result) -> Outcome:
        """Write a result, unless it has an error. A later run tries a failed line again."""
        if result.error is not None:
            error = RuntimeError(result.error)
            return self._fail(failed_entry(entry, error), ran=result.prompt_tokens > 0)
        try:
            self.journal.append(entry.form.record(entry, result, self.journal.pictures))
        except ValueError as error:  # it is not JSON
            return self._fail(failed_entry(entry, error), ran=True)
        return Outcome(entry.line, "new")

    def _fail(self, wrong: WrongLine, ran: bool) -> Outcome:
        """Report a line that failed.

        Args:
            wrong: The line.
            ran: Whether the model ran.
        """
        self.journal.report(wrong.form.failure(wrong.line, wrong.asked, wrong.error, ran))
        return Outcome(wrong.line, "failed", one_line(wrong.error))


def failed_entry(entry: Entry, error: Exception) -> WrongLine:
    """An entry that was run, and failed."""
    return WrongLine(entry.line, entry.asked, entry.form, error)
