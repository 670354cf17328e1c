"""Runs a dataset of lines on a pool of replicas, and continues what an earlier run has left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unitok.backends.ray.attempts import start_attempts
from unitok.backends.ray.cluster import Replicas, reason
from unitok.backends.ray.lines import check_read, quiet, read_in_order
from unitok.backends.ray.output import Output
from unitok.backends.ray.parts import ERRORS, PICTURES, RESULTS
from unitok.backends.ray.replica import Replica, ShardOutcome, Work
from unitok.backends.ray.shards import Cutter, Span
from unitok.extras import need

if TYPE_CHECKING:
    from ray.data import Dataset

AT_ONCE = 2  # shards of a replica: as one ends, the next is running
RUN = "run.json"
KEPT = "finished results are kept, and the same command resumes from there"


@dataclass(frozen=True)
class Identity:
    """What a folder of results belongs to, as its run.json tells.

    Attributes:
        model: The digest of the model.
        lines: The digest of all lines.
        lines_per_part: How many lines a file of results has.
        format: The format of these files.
    """

    model: str
    lines: str
    lines_per_part: int
    format: str

    def check(self, output: Output) -> None:
        """Check that a folder is of this run, and note it in an empty one.

        Raises:
            ValueError: The folder is of another run, or of none.
            OSError: It cannot be read or written.
        """
        if not output.has(RUN):
            output.write(RUN, json.dumps(asdict(self), indent=1).encode() + b"\n")
            return
        noted = noted_in(output)
        other = [name for name, value in asdict(self).items() if noted.get(name) != value]
        if other:
            words = " and ".join(name.replace("_", " ") for name in other)
            raise ValueError(
                f"{output.place} is not empty and holds the results of another run: other {words}; "
                "name a new folder"
            )


def noted_in(output: Output) -> dict[str, Any]:
    """What run.json tells; ValueError if it is damaged."""
    try:
        noted = json.loads(output.read(RUN))
    except ValueError:
        noted = None
    if not isinstance(noted, dict):
        raise ValueError(f"{output.place}/{RUN} is damaged; name a new folder")
    return noted


def check_empty_or_run(output: Output) -> None:
    """Check that a folder has a run.json, or nothing at all.

    Raises:
        ValueError: It has other things.
    """
    if (names := output.names()) and RUN not in names:
        raise ValueError(
            f"{output.place} is not empty and holds no results of this command, but {names[0]}; "
            "name a new folder"
        )


class DatasetRun:
    """A run, from the reading of its lines to the last shard.

    Attributes:
        lines: The dataset of lines, see `unitok.backends.ray.lines`.
        work: What replicas do.
        replicas: How many there are.
        lines_per_part: How many lines a shard has.
    """

    def __init__(self, lines: Dataset, work: Work, replicas: Replicas, lines_per_part: int) -> None:
        """Nothing is read yet.

        Raises:
            ValueError: A part would have no lines.
        """
        if lines_per_part < 1:
            raise ValueError(f"lines_per_part must be at least 1, not {lines_per_part}")
        self.lines, self.work, self.replicas = lines, work, replicas
        self.lines_per_part = lines_per_part
        self._whole: list[Span] = []  # shards that need nothing more
        self._tables: list[Any] = []  # the others, in Ray's object store
        self._output = work.output

    def begin(self) -> int:
        """Read the lines, and see which results are there. The caller has locked the folder.

        Returns:
            How many lines there are.

        Raises:
            ValueError: The lines cannot be read, or the folder is of another run.
            OSError: The folder cannot be written.
        """
        check_empty_or_run(self._output)
        self._sweep()
        cutter = Cutter()
        with told(), read_in_order(self.lines, self.lines_per_part) as tables:
            for table in tables:
                self._sort_out(cutter, table)
        Identity(self.work.identity, cutter.digest, self.lines_per_part, self.work.format).check(
            self._output
        )
        return cutter.lines

    def outcomes(self) -> Iterator[ShardOutcome]:
        """Run what is left. Gives an outcome per shard, as soon as it is known.

        Raises:
            RuntimeError: The run cannot go on. What is finished is kept.
        """
        yield from (ShardOutcome(span, kept=span.count) for span in self._whole)
        if not self._tables:
            return
        rows: Any = iter(self._run().iter_rows())  # a generator, whose end is that of the replicas
        with told(), closing(rows):
            for row in rows:
                outcome = ShardOutcome.of(row)
                if outcome.trouble:
                    raise RuntimeError(f"{outcome.trouble}; {KEPT}")
                yield outcome
        self._sweep()

    @cached_property
    def _there(self) -> tuple[set[str], set[str]]:
        """The names of shards that have a file of results, and of those with one of errors."""
        return tuple(  # type: ignore[return-value]
            {name.partition(".")[0] for name in self._output.names(folder)}
            for folder in (RESULTS, ERRORS)
        )

    def _sweep(self) -> None:
        """Remove what killed replicas left half-written. None of this run may be writing."""
        for folder in ("", RESULTS, ERRORS, PICTURES):
            self._output.sweep(folder)

    def _sort_out(self, cutter: Cutter, table: Any) -> None:
        """Put a shard with those that are done, or with those to be run."""
        check_read(table)
        shard = cutter.cut(table)
        results, errors = self._there
        begun, failed = shard.span.name in results, shard.span.name in errors
        if begun and not failed:
            self._whole.append(shard.span)
        else:
            self._tables.append(need("ray", "ray").put(replace(shard, begun=begun).table()))

    def _run(self) -> Dataset:
        """The dataset of outcomes; reading it runs the shards."""
        data = need("ray.data", "ray")
        count = self.replicas.count
        pool = data.ActorPoolStrategy(
            min_size=1,  # so that idle replicas make room for one whose machine is gone
            max_size=count,
            initial_size=count,
            max_tasks_in_flight_per_actor=AT_ONCE,
            max_concurrent_calls_per_actor=AT_ONCE,
            enable_true_multi_threading=True,
        )
        # A method takes a class as well as a function, but does not say so.
        shards: Any = quiet(data.from_arrow_refs(self._tables))
        return shards.map(
            Replica,
            fn_constructor_args=(self.work, start_attempts(), self.replicas.cpus),
            compute=pool,
            num_cpus=self.replicas.cpus,
            num_gpus=self.replicas.gpus or None,
        )


@contextmanager
def told() -> Iterator[None]:
    """Let an error of Ray's be one line, and say what is kept.

    Raises:
        RuntimeError: In place of an error of Ray's.
    """
    exceptions = need("ray.exceptions", "ray")
    try:
        yield
    except exceptions.RayError as error:
        raise RuntimeError(f"Ray: {reason(error)}; {KEPT}") from None
