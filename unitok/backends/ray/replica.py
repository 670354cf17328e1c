"""A replica: an actor that holds a model and runs one shard after another."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from unitok.backends.ray.attempts import ALONE, STARTS, TOGETHER
from unitok.backends.ray.output import Output
from unitok.backends.ray.parts import PARTS, Format, ShardResults
from unitok.backends.ray.shards import Shard, ShardLines, Span
from unitok.batch.entries import EntryReader, WrongLine, own_or_openai
from unitok.batch.form import Entry
from unitok.batch.runner import BatchRun, Outcome
from unitok.batch.source import parse_line
from unitok.cores import keep_to
from unitok.extras import need
from unitok.results import Result
from unitok.terminal import one_line


class Runs(Protocol):
    """What a replica needs of a model; `unitok.Model` has it."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    def run(self, requests: Any) -> Iterator[Result]:
        """Results as they finish."""
        ...


@dataclass(frozen=True)
class Work:
    """What all replicas of a run have in common.

    Attributes:
        output: Where results are written.
        format: Their format.
        folder: What the paths of pictures are relative to.
        identity: The model's, which is part of the keys.
        load: Loads the model.
    """

    output: Output
    format: Format
    folder: Path
    identity: str
    load: Callable[[], Runs]


@dataclass(frozen=True)
class ShardOutcome:
    """What became of a shard.

    Attributes:
        span: Its lines.
        kept: How many results an earlier run has written.
        failed: The lines that failed, each with its error.
        replica: Who ran it: a machine and a process.
        began: When it began, in seconds since 1970.
        ended: When it was written.
        trouble: Why the run cannot go on; "" if it can.
    """

    span: Span
    kept: int = 0
    failed: tuple[tuple[int, str], ...] = ()
    replica: str = ""
    began: float = 0.0
    ended: float = 0.0
    trouble: str = ""

    @property
    def new(self) -> int:
        """How many results this run has written."""
        return 0 if self.trouble else self.span.count - self.kept - len(self.failed)

    def row(self) -> dict[str, str]:
        """The outcome as Ray carries it."""
        return {"outcome": json.dumps(asdict(self))}

    @classmethod
    def of(cls, row: Mapping[str, str]) -> ShardOutcome:
        """The outcome of a row that `row` made."""
        told = json.loads(row["outcome"])
        failed = tuple((line, error) for line, error in told.pop("failed"))
        return cls(Span(**told.pop("span")), failed=failed, **told)


class Replica:
    """Loads a model once, and then runs shards, two of them at a time, so that it is never idle.

    What ends the run is told by the outcome of a shard: an error of the model's folder or of the
    disk is the user's, and needs no traceback of Ray's. After its process was killed, a replica
    runs one shard at a time, so that it is known which one was running if it dies again.
    """

    def __init__(self, work: Work, attempts: Any, cores: int | None = None) -> None:
        """Load the model.

        Args:
            work: What to do.
            attempts: The actor that counts attempts.
            cores: What Ray reserved for this process; None if nobody counts them.
        """
        if cores is not None:
            keep_to(cores)
        ray = need("ray", "ray")
        self._work, self._ray, self._attempts = work, ray, attempts
        self._name = f"{socket.gethostname()}, process {os.getpid()}"
        self._model: Runs | None = None
        me = ray.get_runtime_context().get_actor_id()
        lives, starts = ray.get(attempts.start.remote(me))
        self._turn: AbstractContextManager[Any] = nullcontext() if lives == 1 else threading.Lock()
        self._trouble = self._load(starts)
        if self._model is not None:
            ray.get(attempts.ready.remote(me))

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Run the shard of a row."""
        shard = Shard.of(row)
        if self._model is None:
            return ShardOutcome(shard.span, trouble=self._trouble).row()
        try:
            with self._turn:
                return self._run(shard, self._model).row()
        except (OSError, ValueError) as error:  # of the disk: lines have errors of their own
            return ShardOutcome(shard.span, trouble=one_line(error)).row()

    def _load(self, starts: int) -> str:
        """Load the model, and tell what is wrong with it; "" if nothing is."""
        if starts > STARTS:
            return (
                f"a replica died {STARTS} times in a row while it loaded the model; see whether "
                "its machine has enough memory, and Ray's logs"
            )
        try:
            self._model = self._work.load()
        except Exception as error:  # of any library below; the run ends with it
            return f"a replica cannot load the model: {one_line(error)}"
        return ""

    def _run(self, shard: Shard, model: Runs) -> ShardOutcome:
        began, work = time.time(), self._work
        results = ShardResults(PARTS[work.format], work.output, shard.span)
        attempt = self._begin(-shard.span.first)
        entries = entries_of(shard, work, model.name)
        together = attempt <= TOGETHER
        run = BatchRun(model.run, entries, results).outcomes if together else None
        outcomes = list(run() if run else self._one_by_one(entries, results, model))
        results.commit()
        self._end(-shard.span.first)
        failed = tuple((o.line, o.error) for o in outcomes if o.error is not None)
        # What an earlier attempt of this run wrote is new all the same.
        kept = sum(o.status == "kept" for o in outcomes) if shard.begun else 0
        return ShardOutcome(shard.span, kept, failed, self._name, began, time.time())

    def _one_by_one(
        self, entries: Iterator[Entry | WrongLine], results: ShardResults, model: Runs
    ) -> Iterator[Outcome]:
        """Run lines one after another, so that one that kills the process is found."""
        for entry in entries:
            if isinstance(entry, Entry) and self._begin(entry.line) > ALONE:
                yield fail(entry, results)  # and stays begun: after a later death it fails at once
            else:
                yield from BatchRun(model.run, [entry], results).outcomes()
                self._end(entry.line)

    def _begin(self, line: int) -> int:
        return self._ray.get(self._attempts.begin.remote(line))

    def _end(self, line: int) -> None:
        self._ray.get(self._attempts.end.remote(line))


def fail(entry: Entry, results: ShardResults) -> Outcome:
    """Report a line that kills every process that runs it."""
    error = RuntimeError("the process of the replica died each time it ran this line")
    results.report(entry.form.failure(entry.line, entry.asked, error, ran=True))
    return Outcome(entry.line, "failed", str(error))


def entries_of(shard: Shard, work: Work, model_name: str) -> Iterator[Entry | WrongLine]:
    """The entries of a shard, with the keys and the errors that they have in the whole input."""
    numbers = [line.number for line in shard.content]
    repeats = dict(zip(numbers, shard.repeats, strict=True))
    form_of = own_or_openai(model_name, lines_before(shard))
    reader = EntryReader(
        ShardLines(shard, work.folder), work.identity, form_of, lambda line, _: repeats[line]
    )
    return iter(reader)


def lines_before(shard: Shard) -> dict[str, int]:
    """The lines before the shard's own that have a custom_id of it."""
    pairs = zip(shard.content, shard.earlier, strict=True)
    return {parse_line(line)["custom_id"]: earlier for line, earlier in pairs if earlier}
