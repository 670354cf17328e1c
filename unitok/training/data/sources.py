"""What a data set of conversations offers, and how the one of a path is opened."""

from __future__ import annotations

from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Protocol

from unitok.training.data.caption_pairs import CaptionPairs
from unitok.training.data.conversations import Conversation


class Source(Protocol):
    """A data set, whose conversations are read one by one.

    A reference says where a conversation stands. It takes little memory, and no conversation is
    read to get it.

    Attributes:
        name: For people.
        identity: Differs if the data set does, so that a run does not go on with another one.
    """

    name: str
    identity: str

    @property
    def size(self) -> int | None:
        """How many conversations there are; None if that is known only at the end."""
        ...

    def references(self, seed: int | None) -> Iterator[Any]:
        """References to all conversations.

        Args:
            seed: Decides their order; None for the order in which they are stored.
        """
        ...

    def conversation(self, reference: Any) -> Conversation:
        """Read a conversation. Its pictures are not opened.

        Raises:
            DataError: The record is wrong, or the file is damaged from there on. The message names
                the file, the line and the place.
        """
        ...


def open_source(path: str | Path, pairs: CaptionPairs | None = None) -> Source:
    """Open the data set at a path.

    Args:
        path: A file of JSON lines, a parquet file or a folder of such, a folder that the library
            `datasets` saved, a WebDataset tar or a folder of such. Several tars may be named by a
            pattern such as "shards/train-*.tar".
        pairs: How pictures with captions become conversations, in tars and tables that have no
            messages.

    Raises:
        FileNotFoundError: There is nothing there.
        ValueError: It is no data set that is read here, or it is empty.
    """
    pairs = pairs or CaptionPairs()
    files = found_files(Path(path))
    if files[0].suffix == ".tar":
        from unitok.training.data.tars import Tars

        return Tars(files, pairs)
    if files[0].suffix == ".parquet" or files[0].is_dir():
        from unitok.training.data.hugging_face import open_parquet, open_saved

        return open_saved(files[0], pairs) if files[0].is_dir() else open_parquet(files, pairs)
    if len(files) > 1:
        raise ValueError(f"{path} names {len(files)} files of JSON lines; open one after the other")
    from unitok.training.data.json_lines import JsonLines

    return JsonLines(files[0])


def found_files(path: Path) -> list[Path]:
    """The files of a data set; for one that `datasets` saved, its folder.

    Raises:
        FileNotFoundError: There are none.
        ValueError: A folder holds no data set that is read here.
    """
    if not path.exists() and has_magic(str(path)):
        if files := sorted(map(Path, glob(str(path)))):
            return files
        raise FileNotFoundError(f"{path}: no file has such a name")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    return files_of_folder(path) if path.is_dir() else [path]


def files_of_folder(folder: Path) -> list[Path]:
    """As `found_files`, of a folder."""
    if (folder / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(str(p) for p in folder.iterdir() if p.is_dir()))
        raise ValueError(f"{folder} holds several splits; name one of {splits}")
    if (folder / "dataset_info.json").is_file():
        return [folder]
    for suffix in (".tar", ".parquet"):
        if files := sorted(folder.glob(f"*{suffix}")):
            return files
    raise ValueError(
        f"{folder} holds no data set: no tars, no parquet files, nothing that `datasets` saved. If "
        "it holds pictures with captions, make JSON lines of them: unitok data make"
    )
