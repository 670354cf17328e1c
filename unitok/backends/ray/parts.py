"""The files of results, one per shard: JSON lines and files of pictures, or Parquet with both."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from PIL import Image

from unitok.backends.ray.output import Output
from unitok.backends.ray.shards import Span
from unitok.batch.form import Entry
from unitok.batch.journal import json_line, picture_names
from unitok.extras import need
from unitok.strict_json import JsonObject

Format = Literal["jsonl", "parquet"]
RESULTS, ERRORS, PICTURES = "results", "errors", "pictures"


@dataclass(frozen=True)
class Saved:
    """A picture of a result.

    Attributes:
        path: Its name.
        data: The bytes of a PNG.
    """

    path: str
    data: bytes


@dataclass(frozen=True)
class Done:
    """A result.

    Attributes:
        line: The number of its line.
        key: Its key.
        record: What `unitok batch` writes of it, a line of JSON.
        pictures: Its pictures, unless they lie in files of their own.
    """

    line: int
    key: str
    record: bytes
    pictures: tuple[Saved, ...] = ()


class Part(Protocol):
    """A format of files of results."""

    suffix: str

    def encode(self, results: Sequence[Done]) -> bytes:
        """The file of some results."""
        ...

    def decode(self, data: bytes) -> list[Done]:
        """The results of a file; ValueError if it is damaged."""
        ...

    def hold(self, output: Output, name: str, data: bytes) -> tuple[Saved, ...]:
        """Keep a picture: in a file, or beside its result."""
        ...


class JsonLines:
    """Results as JSON lines, and their pictures as files. It is a `Part`."""

    suffix = ".jsonl"

    def encode(self, results: Sequence[Done]) -> bytes:
        """The file of some results."""
        return b"".join(result.record for result in results)

    def decode(self, data: bytes) -> list[Done]:
        """The results of a file."""
        return [self._done(line) for line in data.splitlines(keepends=True)]

    def hold(self, output: Output, name: str, data: bytes) -> tuple[Saved, ...]:
        """Write a picture into a file."""
        output.write(name, data)
        return ()

    def _done(self, line: bytes) -> Done:
        record = json.loads(line)
        return Done(record["line"], record["key"], line)


class Parquet:
    """Results as tables, with the bytes of their pictures. It is a `Part`.

    The columns are line, key, text, pictures, as Hugging Face's datasets have them, and record,
    which is the JSON that `unitok batch` writes.
    """

    suffix = ".parquet"

    def encode(self, results: Sequence[Done]) -> bytes:
        """The file of some results."""
        pa, parquet = need("pyarrow", "ray"), need("pyarrow.parquet", "ray")
        table = pa.Table.from_pylist([self._row(result) for result in results], self._schema())
        file = io.BytesIO()
        parquet.write_table(table, file)
        return file.getvalue()

    def decode(self, data: bytes) -> list[Done]:
        """The results of a file."""
        rows = need("pyarrow.parquet", "ray").read_table(io.BytesIO(data)).to_pylist()
        return [self._done(row) for row in rows]

    def hold(self, output: Output, name: str, data: bytes) -> tuple[Saved, ...]:
        """Keep a picture for the table."""
        return (Saved(name, data),)

    def _schema(self) -> Any:
        pa = need("pyarrow", "ray")
        picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {"line": pa.int64(), "key": pa.string(), "text": pa.large_string()}
        return pa.schema(columns | {"pictures": pa.list_(picture), "record": pa.large_string()})

    def _row(self, result: Done) -> dict[str, Any]:
        pictures = [{"bytes": one.data, "path": one.path} for one in result.pictures]
        return {
            "line": result.line,
            "key": result.key,
            "text": json.loads(result.record).get("text"),
            "pictures": pictures,
            "record": result.record.decode(),
        }

    def _done(self, row: dict[str, Any]) -> Done:
        pictures = tuple(Saved(one["path"], one["bytes"]) for one in row["pictures"])
        return Done(row["line"], row["key"], row["record"].encode(), pictures)


PARTS: dict[Format, Part] = {"jsonl": JsonLines(), "parquet": Parquet()}


class ShardPictures:
    """Takes the pictures of a shard's results. It is a `unitok.batch.form.Pictures`."""

    def __init__(self, part: Part, output: Output) -> None:
        """No picture has come yet."""
        self._part, self._output = part, output
        self._held: dict[str, tuple[Saved, ...]] = {}  # by the key of the result

    def save(self, entry: Entry, images: Sequence[Image.Image]) -> list[str]:
        """Keep a result's pictures, and give their names.

        Raises:
            OSError: A picture cannot be written.
        """
        names = picture_names(entry, len(images))
        held: list[Saved] = []
        for name, image in zip(names, images, strict=True):
            held += self._part.hold(self._output, name, png(image))
        self._held[entry.key] = tuple(held)
        return names

    def of(self, key: str) -> tuple[Saved, ...]:
        """The pictures of a result that are kept for its file."""
        return self._held.get(key, ())


class ShardResults:
    """The results of a shard, until they are written. It is a `unitok.batch.runner.Results`.

    Attributes:
        pictures: Takes the pictures.
        done: The keys of all results.
    """

    def __init__(self, part: Part, output: Output, span: Span) -> None:
        """Read what an earlier attempt wrote of the shard.

        Raises:
            OSError: It cannot be read.
            ValueError: It is damaged.
        """
        self._part, self._output = part, output
        self._name = f"{RESULTS}/{span.name}{part.suffix}"
        self._errors_name = errors_name(span)
        self._results = {result.line: result for result in self._read()}
        self._failures: dict[int, bytes] = {}
        self.pictures = ShardPictures(part, output)
        self.done = {result.key for result in self._results.values()}

    def append(self, record: JsonObject) -> None:
        """Add a result.

        Raises:
            ValueError: It has a number that is not finite, so that it is not JSON.
        """
        line, key, data = record["line"], record["key"], json_line(record)
        self._results[line] = Done(line, key, data, self.pictures.of(key))
        self.done.add(key)

    def report(self, failure: JsonObject) -> None:
        """Add a line that failed."""
        self._failures[failure["line"]] = json_line(failure)

    def commit(self) -> None:
        """Write the shard. Its file of errors comes first, and goes last.

        So whenever the run is killed, a shard with a line that has no result has either no file or
        one of errors, and is run again.

        Raises:
            OSError: It cannot be written.
        """
        if self._failures:
            self._output.write(self._errors_name, b"".join(in_order(self._failures)))
        self._output.write(self._name, self._part.encode(list(in_order(self._results))))
        if not self._failures:
            self._output.remove(self._errors_name)

    def _read(self) -> list[Done]:
        if not self._output.has(self._name):
            return []
        try:
            return self._part.decode(self._output.read(self._name))
        except (ValueError, KeyError, TypeError):  # pyarrow's errors are ValueErrors
            raise ValueError(
                f"{self._output.place}/{self._name} is damaged; remove it, and its lines run again"
            ) from None


def errors_name(span: Span) -> str:
    """The file of a shard's lines that failed: JSON lines in every format."""
    return f"{ERRORS}/{span.name}.jsonl"


def in_order(by_line: dict[int, Any]) -> Iterable[Any]:
    """The values in the order of their lines."""
    return (by_line[line] for line in sorted(by_line))


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG, those that `unitok batch` writes without Ray."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
