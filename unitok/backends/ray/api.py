"""`unitok.run_dataset`: the requests of a Ray dataset, on many replicas of a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from unitok.backends.ray.cluster import Replicas, check_room
from unitok.backends.ray.lines import lines_of_rows
from unitok.backends.ray.output import Output
from unitok.backends.ray.parts import Format
from unitok.backends.ray.replica import Runs, Work
from unitok.backends.ray.report import DatasetReport, report_of
from unitok.backends.ray.run import DatasetRun
from unitok.batch.identity import identity_of_load
from unitok.extras import need

if TYPE_CHECKING:
    from ray.data import Dataset

LINES_PER_PART = 64
PATHS = ("adapter", "cache_dir")  # arguments of `unitok.load`


def run_dataset(
    dataset: Dataset,
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    replicas: int = 1,
    cpus_per_replica: int = 1,
    gpus_per_replica: float = 0,
    format: Format = "parquet",
    folder: str | os.PathLike[str] = ".",
    lines_per_part: int = LINES_PER_PART,
    **load: Any,
) -> DatasetReport:
    """Run the requests of a Ray dataset on several replicas of a model, each exactly once.

    A row is a request as a line of `unitok batch`: its columns are the keys, such as "caption" or
    "draw", "seed" and "n", and what is null counts as left out. Pictures are paths, or the bytes of
    their files. The same call continues a run that was killed: the dataset has to give the same
    rows in the same order. docs/guide/ray.md tells more.

    Args:
        dataset: The rows, such as `ray.data.read_parquet(...)`.
        output: A new folder, which all machines see, or an address such as s3://bucket/folder.
        model: As in `unitok.load`.
        replicas: How many models are loaded, at most.
        cpus_per_replica: CPU cores and threads of each.
        gpus_per_replica: GPUs of each; 0.5 for two replicas on one. Without any, replicas compute
            on the CPU.
        format: Of the results: "parquet", with pictures in a column, or "jsonl", with pictures as
            files.
        folder: What paths of pictures are relative to.
        lines_per_part: Rows of a file of results. A replica that is killed does at most so many
            anew, or twice as many.
        **load: Further arguments of `unitok.load`, for each replica.

    Returns:
        How many results are new and kept, the rows that failed, and what each replica did.

    Raises:
        ValueError: An argument is wrong, the output is of another run, or the cluster has no room
            for a replica.
        FileNotFoundError: There is no such model.
        OSError: The output cannot be written.
        RuntimeError: The model cannot be loaded, or replicas die while they load it. What is
            finished is kept.
        ImportError: Ray is not installed.
    """
    need("ray.data", "ray")
    each = Replicas(replicas, cpus_per_replica, gpus_per_replica)
    name = None if model is None else os.fspath(model)
    work = work_of(os.fspath(output), Path(folder), format, name, on_cpu(load, each))
    with started(lines_of_rows(dataset), work, each, lines_per_part) as (run, _):
        return report_of(work.output.place, run.outcomes())


@contextmanager
def started(
    lines: Dataset, work: Work, replicas: Replicas, lines_per_part: int = LINES_PER_PART
) -> Iterator[tuple[DatasetRun, int]]:
    """A run that has read its lines, and their number. The output is locked meanwhile.

    Raises:
        ValueError, OSError, RuntimeError: As `run_dataset`.
    """
    check_room(replicas)
    run = DatasetRun(lines, work, replicas, lines_per_part)
    with work.output.locked():
        yield run, run.begin()


def work_of(
    output: str, folder: Path, format: Format, model: str | None, load: Mapping[str, Any]
) -> Work:
    """What the replicas of a run do.

    Raises:
        ValueError: The format is unknown, or the output cannot be used.
        FileNotFoundError: There is no such model.
    """
    if format not in get_args(Format):
        raise ValueError(f"format must be {' or '.join(get_args(Format))}, not {format!r}")
    identity = identity_of_load(model, load)
    return Work(
        Output.at(output), format, folder.expanduser().absolute(), identity, loader(model, load)
    )


def loader(model: str | None, load: Mapping[str, Any]) -> Callable[[], Runs]:
    """Loads the model in a replica, which may have another working folder."""
    adapters = {name: absolute(path) for name, path in (load.get("adapters") or {}).items()}
    beside = {"adapters": adapters} if adapters else {}
    paths = {name: absolute(load[name]) for name in PATHS if load.get(name) is not None}
    where = None if model is None else absolute(model)
    return partial(load_model, where, {**load, **beside, **paths})


def absolute(path: str | os.PathLike[str]) -> str:
    """The absolute path of a folder that is here; a hub id as it is."""
    folder = Path(path).expanduser()
    return str(folder.absolute()) if folder.is_dir() else os.fspath(path)


def load_model(model: str | None, load: Mapping[str, Any]) -> Runs:
    """Load a model."""
    from unitok.loading import load as load_it

    return load_it(model, **load)


def on_cpu(load: Mapping[str, Any], replicas: Replicas) -> dict[str, Any]:
    """The arguments of load, for a replica that may have no GPU: then it computes on the CPU."""
    chosen = load.get("device") is not None or load.get("backend") is not None
    return dict(load) if chosen or replicas.gpus else {**load, "device": "cpu"}
