"""Shards: consecutive lines that one replica runs, and whose results are one file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.batch.source import Line
from unitok.extras import need


@dataclass(frozen=True)
class Span:
    """Which lines a shard has.

    Attributes:
        first: The number of its first line.
        last: The number of its last one.
        count: How many lines it has, as blank ones have a number too.
    """

    first: int
    last: int
    count: int

    @property
    def name(self) -> str:
        """The name of its file, without the suffix."""
        return f"lines-{self.first:09d}-{self.last:09d}"


@dataclass(frozen=True)
class Shard:
    """Lines, with what only the whole input tells of them.

    Attributes:
        span: Which lines they are.
        content: The lines.
        repeats: Which of several equal lines each of them is, from 0 on.
        earlier: The line before it that has the same custom_id; 0 for none.
        begun: Whether an earlier run wrote the shard, and lines of it failed.
    """

    span: Span
    content: tuple[Line, ...]
    repeats: tuple[int, ...]
    earlier: tuple[int, ...]
    begun: bool

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Shard:
        """The shard of a row that `table` made."""
        lines = map(Line, row["number"], row["data"], row["too_long"])
        return cls(
            Span(row["first"], row["last"], row["count"]),
            tuple(lines),
            tuple(row["repeats"]),
            tuple(row["earlier"]),
            row["begun"],
        )

    def table(self) -> Any:
        """The shard as a table of one row, as Ray carries it."""
        pa = need("pyarrow", "ray")
        whole, wholes, flag = pa.int64(), pa.list_(pa.int64()), pa.bool_()
        columns = {
            "first": ([self.span.first], whole),
            "last": ([self.span.last], whole),
            "count": ([self.span.count], whole),
            "number": ([[line.number for line in self.content]], wholes),
            "data": ([[line.data for line in self.content]], pa.large_list(pa.large_binary())),
            "too_long": ([[line.too_long for line in self.content]], pa.list_(flag)),
            "repeats": ([list(self.repeats)], wholes),
            "earlier": ([list(self.earlier)], wholes),
            "begun": ([self.begun], flag),
        }
        return pa.table({name: pa.array(*column) for name, column in columns.items()})


@dataclass(frozen=True)
class ShardLines:
    """The lines of a shard, as a `unitok.batch.entries.Lines`.

    Attributes:
        shard: The shard.
        folder: What the paths of pictures are relative to.
    """

    shard: Shard
    folder: Path

    def lines(self) -> Iterator[Line]:
        """The lines."""
        return iter(self.shard.content)


class Cutter:
    """Cuts lines into shards, in their order, and digests all of them.

    Attributes:
        lines: How many lines there were.
    """

    def __init__(self) -> None:
        """No line has come yet."""
        self.lines = 0
        self._digest = hashlib.sha256()
        self._seen: Counter[bytes] = Counter()
        self._line_of: dict[bytes, int] = {}  # by the digest of the custom_id

    @property
    def digest(self) -> str:
        """The SHA-256 of all lines so far, in hexadecimal."""
        return self._digest.hexdigest()

    def cut(self, table: Any) -> Shard:
        """The next shard, of its lines as `unitok.backends.ray.lines.table_of` makes them."""
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        numbers = [n or self.lines + i for i, n in enumerate(columns["number"], 1)]
        self.lines += len(numbers)
        return Shard(
            Span(numbers[0], numbers[-1], len(numbers)),
            tuple(map(Line, numbers, columns["data"], columns["too_long"])),
            tuple(map(self._repeat, columns["content"])),
            tuple(map(self._earlier, numbers, columns["custom_id"])),
            begun=False,
        )

    def _repeat(self, content: bytes) -> int:
        self._digest.update(content)
        self._seen[content] += 1
        return self._seen[content] - 1

    def _earlier(self, number: int, custom_id: bytes | None) -> int:
        if custom_id is None:
            return 0
        earlier = self._line_of.setdefault(custom_id, number)
        return 0 if earlier == number else earlier
