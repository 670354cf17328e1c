"""The samples in a WebDataset tar, found by its headers alone. Nothing is ever unpacked.

A sample is a run of members whose names begin alike, up to the first dot: `a/0001.json`,
`a/0001.png`, `a/0001.mask.png`. Its key is `a/0001`
(https://github.com/webdataset/webdataset, README.md).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO

from unitok.messages import MAX_PICTURES
from unitok.terminal import one_line
from unitok.training.data.conversations import DataError

MAX_HEADER = 2**20  # bytes that are read at once of the headers, which hold long names
MAX_MEMBERS = 2 * MAX_PICTURES  # of a sample: its pictures, their captions and the like


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a tar.

    Attributes:
        name: Its whole name.
        start: The first of its bytes in the tar.
        size: How many they are.
    """

    name: str
    start: int
    size: int

    @property
    def key(self) -> str:
        """What the members of a sample have in common."""
        folder, slash, base = self.name.rpartition("/")
        return folder + slash + base.partition(".")[0]

    @property
    def extension(self) -> str:
        """What follows on the key and its dot, in lower case."""
        return self.name[len(self.key) + 1 :].lower()

    def read(self, path: Path, most: int) -> bytes:
        """Its bytes.

        Args:
            path: The tar.
            most: The most bytes that are read.

        Raises:
            OSError: The tar cannot be read.
            ValueError: There are more bytes, or the tar is cut off.
        """
        if self.size > most:
            raise ValueError(f"{self.name} has {self.size:,} bytes; at most {most:,} are read")
        with path.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.size)
        if len(data) < self.size:
            raise ValueError(f"{self.name} is cut off")
        return data


@dataclass(frozen=True, slots=True)
class TarSample:
    """A sample of a tar.

    Attributes:
        path: The tar.
        members: Its members, in their order.
    """

    path: Path
    members: tuple[TarMember, ...]

    @property
    def name(self) -> str:
        """The tar and the key, for messages."""
        return f"{self.path}:{self.members[0].key}"


class BoundedReads:
    """A file of which no more than `MAX_HEADER` bytes are read at once.

    tarfile reads a long name or an extended header as a whole, however large it says it is.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Read from this file."""
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Read some bytes.

        Raises:
            ValueError: These are too many.
        """
        if not 0 <= size <= MAX_HEADER:
            raise ValueError(f"a header has {size:,} bytes; at most {MAX_HEADER:,} are read")
        return self._file.read(size)


def samples_of(path: Path) -> Iterator[TarSample]:
    """The samples of a tar, in their order.

    Raises:
        DataError: It is no tar, is compressed or damaged, or a sample is too large.
    """
    for key, group in groupby(members_of(path), key=lambda member: member.key):
        members: list[TarMember] = []
        for member in group:
            members.append(member)
            if len(members) > MAX_MEMBERS:
                raise DataError(f"{path}:{key} has more than {MAX_MEMBERS} members")
        yield TarSample(path, tuple(members))


def members_of(path: Path) -> Iterator[TarMember]:
    """The regular files in a tar, in their order. Links, devices and folders are left out.

    Raises:
        DataError: As `samples_of`.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=BoundedReads(file), mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members = []  # else all headers would stay in memory
                if member.isreg() and not member.issparse():
                    yield TarMember(member.name, member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        hint = "; is it compressed? Unpack it" if isinstance(error, tarfile.ReadError) else ""
        raise DataError(f"{path} is not a tar that is read here: {one_line(error)}{hint}") from None
