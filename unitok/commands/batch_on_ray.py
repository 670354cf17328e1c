"""`unitok batch --ray`: the lines of a batch on several replicas of the model."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unitok.batch.source import STDIN, Source
from unitok.extras import need
from unitok.flags import Common
from unitok.reporting import print_counts, stopped
from unitok.screen import bar
from unitok.terminal import complain, one_line, say

if TYPE_CHECKING:
    from ray.data import Dataset

    from unitok.backends.ray.replica import ShardOutcome
    from unitok.backends.ray.report import DatasetReport, FailedLine, ReplicaReport

TOLD = 20  # failed lines that are printed; all are in the folder of errors


@dataclass(frozen=True)
class OnRay:
    """The options of --ray; None for one that is left out.

    Attributes:
        address: Of the cluster.
        replicas: How many models share the lines.
        cpus: CPU cores of each.
        gpus: GPUs of each.
        format: Of the results.
    """

    address: str
    replicas: int | None
    cpus: int | None
    gpus: float | None
    format: Literal["jsonl", "parquet"] | None


def batch_on_ray(common: Common, source: str, output: str, asked: OnRay) -> int:
    """Run a batch on Ray, report on it, and give how many lines failed.

    Raises:
        ValueError, OSError, RuntimeError: As `unitok.run_dataset`; or no cluster answers.
        ImportError: Ray, or what its data sets need, is not installed.
    """
    need("ray", "ray")
    from unitok.backends.ray.api import on_cpu, started, work_of
    from unitok.backends.ray.cluster import Replicas, joined
    from unitok.backends.ray.report import report_of

    replicas = Replicas(asked.replicas or 1, asked.cpus or 1, asked.gpus or 0)
    tables = check_source(source)
    form = asked.format or ("parquet" if tables else "jsonl")
    load = on_cpu(common.load_arguments(), replicas)
    work = work_of(output, folder_of(source, tables), form, common.model, load)
    try:
        with (
            joined(asked.address, replicas),
            started(lines_of(source, tables), work, replicas) as (run, total),
            closing(shown(run.outcomes(), total, common.bars)) as outcomes,
        ):
            report = report_of(work.output.place, outcomes)
    except KeyboardInterrupt:
        raise stopped(
            f"{output} keeps what is finished, and the same command resumes from there"
        ) from None
    print_report(report, common.quiet)
    return len(report.failed)


def lines_of(source: str, tables: bool) -> Dataset:
    """The lines of a file or a folder, once Ray has started.

    Raises:
        ValueError: It is no Parquet, though its name says so.
    """
    from unitok.backends.ray.lines import lines_of_file, lines_of_rows

    place = source if "://" in source else str(Path(source).expanduser().absolute())
    if not tables:
        return lines_of_file(place)
    try:
        return lines_of_rows(need("ray.data", "ray").read_parquet(place))
    except (OSError, ValueError) as error:  # pyarrow's, which does not name the file
        raise ValueError(f"{source}: {one_line(error)}") from None


def check_source(source: str) -> bool:
    """Whether the input is Parquet, a file or a folder of such files, and no JSON lines.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It can be read only once, or is a folder without Parquet.
    """
    is_parquet = source.endswith(".parquet")
    if "://" in source:
        return is_parquet or source.endswith("/")
    if source in STDIN:
        raise ValueError("--ray needs a file that can be read again, not stdin")
    path = Path(source).expanduser()
    if path.is_dir():
        if not any(path.rglob("*.parquet")):
            raise ValueError(f"{source} has no Parquet; give a file of JSON lines, or Parquet")
        return True
    if not Source(path).is_file:
        raise ValueError(f"{source} is a stream; --ray needs a file that can be read again")
    return is_parquet


def folder_of(source: str, tables: bool) -> Path:
    """What paths of pictures are relative to: the input's folder, if it is one of this disk."""
    path = Path(source).expanduser()
    here = path if tables and path.is_dir() else path.parent
    return Path() if "://" in source else here


def shown(outcomes: Iterable[ShardOutcome], total: int, visible: bool) -> Generator[ShardOutcome]:
    """Pass outcomes on, and show how many lines there were."""
    with bar(visible, transient=False) as progress:
        task = progress.add_task("batch", total=total)
        for outcome in outcomes:
            progress.advance(task, outcome.span.count)
            yield outcome


def print_report(report: DatasetReport, quiet: bool) -> None:
    """Print the lines that failed, what each replica did, and the counts."""
    print_failed(report.failed, report.output)
    if not quiet:
        for replica in report.replicas:
            say(in_words(replica))
    counts = {"new": report.new, "kept": report.kept, "failed": len(report.failed)}
    print_counts(f"{report.output.rstrip('/')}/results", counts)


def print_failed(failed: Sequence[FailedLine], output: str) -> None:
    """Print the first lines that failed, and how many others did."""
    for one in failed[:TOLD]:
        complain(f"line {one.line}: {one.error}")
    if len(failed) > TOLD:
        complain(f"{len(failed) - TOLD:,} more lines failed: see {output.rstrip('/')}/errors")


def in_words(replica: ReplicaReport) -> str:
    """What a replica did."""
    return (
        f"replica on {replica.name}: {replica.lines:,} lines in {replica.seconds:.1f} s, "
        f"{replica.lines_per_second:.2f} lines/s"
    )
