"""Tables of the library `datasets` as a data set: what it saved, and parquet files.

A table has the column `messages`, and may have the column `images` or `image` for the parts that
name no picture. Pairs of answers stand in the columns `chosen` and `rejected` beside it. A table
without messages has the columns `image` and `text`, a caption. Rows are mapped into memory.
Pictures stay the bytes that they are stored as, until they are opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from unitok.messages import ParsedPicture
from unitok.picture_sources import read_path
from unitok.shown import shown
from unitok.terminal import one_line
from unitok.training.data.caption_pairs import CaptionPairs, Way
from unitok.training.data.conversations import (
    Conversation,
    DataError,
    PictureFile,
    StoredPicture,
)
from unitok.training.data.order import permutation
from unitok.training.data.preferences import ANSWERS, parse_record

EXTRA = "the library datasets is missing: pip install 'unitok-engine[train]'"


@dataclass(frozen=True)
class Cell:
    """A picture of a table, which is read when it is opened.

    Attributes:
        row: Its row.
        column: Its column.
        index: Its place in the list there; None if there is no list.
    """

    row: int
    column: str
    index: int | None = None


class Table:
    """Conversations in the rows of a table. It is a `Source`, whose references are numbers.

    Attributes:
        name: Its path.
        identity: The number of its rows, and its columns.
        size: How many conversations it has.
    """

    def __init__(self, data: Any, path: Path, pairs: CaptionPairs) -> None:
        """Take a `datasets.Dataset`.

        Raises:
            ValueError: It has no rows, or no columns that are read here.
        """
        self.path, self.name, self.pairs = path, str(path), pairs
        columns: list[str] = data.column_names
        self._has_messages = "messages" in columns
        if not self._has_messages and not {"image", "text"} <= set(columns):
            raise ValueError(
                f"{path}: a table needs the column messages, or image and text; it has "
                f"{', '.join(columns)}"
            )
        if not len(data):
            raise ValueError(f"{path} is empty: it has no row")
        self._data = data.with_format("arrow")  # nothing is decoded
        self._texts = [column for column in ("messages", *ANSWERS) if column in columns]
        self._pictures = next((c for c in ("images", "image") if c in columns), None)
        self._ways: tuple[Way | None, ...] = (None,) if self._has_messages else pairs.ways
        self.size: int = len(data) * len(self._ways)
        self.identity = f"{len(data)} rows of {', '.join(columns)}"

    def references(self, seed: int | None) -> Iterator[int]:
        """See `Source`."""
        return permutation(self.size, seed)

    def conversation(self, reference: int) -> Conversation:
        """See `Source`."""
        row, way = divmod(reference, len(self._ways))
        name = f"{self.path}: row {row}"
        try:
            record = self._record(row, self._ways[way])
        except (OSError, ValueError) as error:
            raise DataError(f"{name}: {one_line(error)}") from None
        return parse_record(record, name, find=self._find)

    def _record(self, row: int, way: Way | None) -> dict[str, Any]:
        if way is not None:
            text = self._value(row, "text").as_py()
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"text must be a caption, not {shown(text)}")
            return {"messages": self.pairs.messages(way, Cell(row, "image"), text.strip())}
        texts = {key: self._value(row, key).as_py() for key in self._texts}
        return {**texts, "images": self._cells(row)}

    def _cells(self, row: int) -> list[Cell] | None:
        """The pictures beside the messages of a row."""
        column = self._pictures
        if column is None or not (value := self._value(row, column)).is_valid:
            return None
        if is_list_of_arrow(value):
            return [Cell(row, column, i) for i in range(len(value))]
        return [Cell(row, column)]

    def _value(self, row: int, column: str) -> Any:
        """A value of the table, as pyarrow has it."""
        return self._data[row][column][0]

    def _find(self, picture: ParsedPicture) -> PictureFile:
        if not isinstance(picture.source, Cell):
            return picture
        cell = picture.source
        where = f"{picture.where}: {cell.column}" + (
            "" if cell.index is None else f"[{cell.index}]"
        )
        return StoredPicture(partial(self._load, cell), where)

    def _load(self, cell: Cell) -> bytes:
        """The bytes of a picture.

        Raises:
            OSError, ValueError: There are none.
        """
        value = self._value(cell.row, cell.column)
        stored = (value if cell.index is None else value[cell.index]).as_py()
        if isinstance(stored, Mapping):  # as the feature Image of `datasets` stores pictures
            stored = stored.get("bytes") or stored.get("path")
        if isinstance(stored, str):
            folder = self.path if self.path.is_dir() else self.path.parent
            return read_path(folder / stored).getvalue()
        if not isinstance(stored, bytes):
            raise ValueError(f"{cell.column} of row {cell.row} holds no picture")
        return stored


def is_list_of_arrow(value: Any) -> bool:
    """Whether a value of pyarrow is a list."""
    import pyarrow

    kinds = pyarrow.ListScalar, pyarrow.LargeListScalar, pyarrow.FixedSizeListScalar
    return isinstance(value, kinds)


def open_saved(folder: Path, pairs: CaptionPairs) -> Table:
    """Open a folder that `datasets` saved.

    Raises:
        ValueError: It cannot be read, or the library is missing.
    """
    datasets = load_library()
    with told(folder):
        data = datasets.load_from_disk(str(folder))
    return Table(data, folder, pairs)


def open_parquet(files: Sequence[Path], pairs: CaptionPairs) -> Table:
    """Open parquet files, which are copied into the cache of `datasets` once.

    Raises:
        ValueError: They cannot be read, or the library is missing.
    """
    datasets = load_library()
    path = files[0] if len(files) == 1 else files[0].parent
    with told(path):
        data = datasets.Dataset.from_parquet([str(file) for file in files])
    return Table(data, path, pairs)


def load_library() -> Any:
    """The library `datasets`; ValueError if it is missing."""
    try:
        import datasets
    except ImportError:
        raise ValueError(EXTRA) from None
    return datasets


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Let an error of the library name the path. Damaged files raise errors of all kinds.

    Raises:
        ValueError: There was an error.
    """
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error
        raise ValueError(f"{path} cannot be read as a table: {one_line(cause)}") from error
