"""Datasets of lines: what Ray reads, as numbered bytes of JSON with a digest of their content."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unitok.backends.ray.output import find_files
from unitok.backends.ray.rows import json_of_row
from unitok.batch.keys import digest
from unitok.batch.source import Line, parse_line, read_lines
from unitok.extras import need
from unitok.strict_json import JsonObject
from unitok.terminal import one_line

if TYPE_CHECKING:
    from ray.data import Dataset

# What of a file is handed on at once: so many lines, or fewer of so many bytes with the last one.
TOGETHER, MANY_BYTES = 256, 64 * 2**20
DIGEST = 16  # bytes


def lines_of_file(path: str) -> Dataset:
    """The lines of a file of JSON lines, read in one task.

    Args:
        path: An absolute path, or the address of a file in an object store.
    """
    return need("ray.data", "ray").from_items([{"path": path}]).map_batches(read_files)


def lines_of_rows(dataset: Dataset) -> Dataset:
    """The rows of any dataset as lines: its columns are the keys, and what is null is left out."""
    return dataset.map_batches(_lines_of_table, batch_format="pyarrow", zero_copy_batch=True)


@contextmanager
def read_in_order(dataset: Dataset, size: int) -> Iterator[Iterable[Any]]:
    """Tables of so many rows, in an order that is the same in every run; the last may be smaller.

    The settings for that are those of the dataset that a caller gave, so they are put back.
    """
    settings, order = dataset.context, dataset.context.execution_options.preserve_order
    shown = settings.enable_progress_bars, settings.print_on_execution_start
    settings.execution_options.preserve_order = True
    quiet(dataset)
    try:
        yield dataset.iter_batches(batch_size=size, batch_format="pyarrow")
    finally:
        settings.execution_options.preserve_order = order
        settings.enable_progress_bars, settings.print_on_execution_start = shown


def quiet(dataset: Dataset) -> Dataset:
    """The dataset, which prints no progress of its own."""
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    return dataset


def read_files(batch: dict[str, Any]) -> Iterator[Any]:
    """The lines of the files that a batch of Ray's names, as tables."""
    for path in batch["path"]:
        try:
            yield from _read_file(str(path))
        except (OSError, ValueError) as error:
            yield _table([{"trouble": one_line(error)}])


def _read_file(path: str) -> Iterator[Any]:
    files, place = find_files(path)
    with files.open_input_stream(place) as stream, io.BufferedReader(stream, 2**20) as file:
        yield from map(table_of, grouped(read_lines(file)))  # type: ignore[arg-type]


def grouped(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Lines in groups that memory has room for, as one line may hold a picture of 32 MB."""
    some, size = list[Line](), 0
    for line in lines:
        some.append(line)
        size += len(line.data)
        if len(some) == TOGETHER or size >= MANY_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _lines_of_table(table: Any) -> Any:
    try:
        return table_of([Line(0, json_of_row(row)) for row in table.to_pylist()])
    except ValueError as error:
        return _table([{"trouble": one_line(error)}])


def check_read(table: Any) -> None:
    """Check that lines could be read, where Ray read them.

    Raises:
        ValueError: They could not.
    """
    for trouble in table.column("trouble").drop_null().to_pylist():
        raise ValueError(trouble)


def table_of(lines: Iterable[Line]) -> Any:
    """A table of lines. The number is 0 where the place in the dataset is the number."""
    return _table([_row(line) for line in lines])


def _table(rows: list[dict[str, Any]]) -> Any:
    """A table of rows of lines, or of one that tells in the column "trouble" why there are none."""
    pa = need("pyarrow", "ray")
    columns = {
        "number": pa.int64(),
        "data": pa.large_binary(),
        "too_long": pa.bool_(),
        "content": pa.binary(DIGEST),
        "custom_id": pa.binary(DIGEST),  # the digest of one, or null
        "trouble": pa.string(),
    }
    return pa.Table.from_pylist(rows, pa.schema(columns))


def _row(line: Line) -> dict[str, Any]:
    asked = _asked(line)
    content = short_digest(line.data.hex() if asked is None else asked)
    name = None if asked is None else asked.get("custom_id")
    custom_id = short_digest(name) if isinstance(name, str) else None
    return vars(line) | {"content": content, "custom_id": custom_id}


def _asked(line: Line) -> JsonObject | None:
    try:
        return parse_line(line)
    except ValueError:  # the replica that gets the line says what is wrong
        return None


def short_digest(value: object) -> bytes:
    """A digest of a value that is JSON."""
    return bytes.fromhex(digest(value))[:DIGEST]
