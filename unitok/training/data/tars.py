"""WebDataset tars as a data set. They are read from their beginning to their end.

A sample with a `.txt` member is a caption and its picture, whatever else it has. Any other one has
a `.json` member with a record, which names the pictures of the sample as a path beside it. Members
of other types are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from unitok.batch.source import MAX_LINE
from unitok.messages import ParsedPicture
from unitok.picture_names import PICTURE_SUFFIXES
from unitok.picture_sources import MAX_BYTES, is_data_uri
from unitok.shown import shown
from unitok.strict_json import parse_json
from unitok.terminal import one_line
from unitok.training.data.caption_pairs import CaptionPairs, Way
from unitok.training.data.conversations import (
    Conversation,
    DataError,
    PictureFile,
    StoredPicture,
)
from unitok.training.data.order import permutation, shuffled_in_buffer
from unitok.training.data.preferences import parse_record
from unitok.training.data.tar_members import TarMember, TarSample, samples_of

BUFFER = 4096  # conversations of which the next one is taken at random


@dataclass(frozen=True, slots=True)
class TarReference:
    """A conversation in a tar.

    Attributes:
        sample: Where it stands.
        way: What is made of its caption and its picture; None if it has a record.
    """

    sample: TarSample
    way: Way | None = None


@dataclass(frozen=True, slots=True)
class DamagedTar:
    """The place in a tar behind which nothing can be read. It counts as a record that is wrong.

    Attributes:
        error: What is wrong.
    """

    error: DataError


class Tars:
    """Conversations in tars. It is a `Source`.

    Shuffled, the tars come in a random order, and of what they hold a buffer is shuffled. Only
    places are kept in it, so it takes little memory.

    Attributes:
        name: The tars, for people.
        identity: Their number, their bytes, and a digest of their names and sizes.
        size: None, as it is known only when all headers were read.
    """

    size: int | None = None

    def __init__(self, paths: Sequence[Path], pairs: CaptionPairs, buffer: int = BUFFER) -> None:
        """Name the tars. They are read later.

        Args:
            paths: The tars.
            pairs: What is made of a caption and its picture.
            buffer: How many conversations are shuffled at a time.
        """
        self.paths, self.pairs, self.buffer = tuple(paths), pairs, buffer
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        self.name = f"{paths[0]}{more}"
        sizes = [path.stat().st_size for path in paths]
        names = repr([path.name for path in paths]) + repr(sizes)
        digest = hashlib.sha256(names.encode()).hexdigest()
        self.identity = f"{len(paths)} tars, {sum(sizes)} bytes ({digest[:12]})"

    def references(self, seed: int | None) -> Iterator[TarReference | DamagedTar]:
        """See `Source`."""
        tars = (self.paths[i] for i in permutation(len(self.paths), seed))
        found = chain.from_iterable(map(self._references_in, tars))
        return found if seed is None else shuffled_in_buffer(found, self.buffer, seed)

    def _references_in(self, path: Path) -> Iterator[TarReference | DamagedTar]:
        try:
            for sample in samples_of(path):
                yield from self._references_to(sample)
        except DataError as error:  # the other tars go on
            yield DamagedTar(error)

    def _references_to(self, sample: TarSample) -> Iterator[TarReference]:
        if any(member.extension == "txt" for member in sample.members):
            return (TarReference(sample, way) for way in self.pairs.ways)
        return iter((TarReference(sample),))

    def conversation(self, reference: TarReference | DamagedTar) -> Conversation:
        """See `Source`."""
        if isinstance(reference, DamagedTar):
            raise reference.error
        sample = reference.sample
        try:
            members = by_extension(sample)
            if reference.way is None:
                record = parse_json(need(members, "json").read(sample.path, MAX_LINE))
                find = partial(picture_of_sample, sample)
            else:
                record = self._record(sample, members, reference.way)
                find = partial(the_picture, sample)
        except (OSError, ValueError) as error:
            raise DataError(f"{sample.name}: {one_line(error)}") from None
        return parse_record(record, sample.name, find=find)

    def _record(self, sample: TarSample, members: dict[str, TarMember], way: Way) -> dict[str, Any]:
        text = need(members, "txt").read(sample.path, MAX_LINE)
        picture = only_picture(sample)
        return {"messages": self.pairs.messages(way, picture.name, caption_of(text))}


def by_extension(sample: TarSample) -> dict[str, TarMember]:
    """The members of a sample.

    Raises:
        ValueError: Two have the same name.
    """
    members = {member.extension: member for member in sample.members}
    if len(members) < len(sample.members):
        raise ValueError("two members of the sample have the same name")
    return members


def need(members: dict[str, TarMember], extension: str) -> TarMember:
    """The member with an extension; ValueError if there is none."""
    if extension not in members:
        raise ValueError(f"the sample has no .{extension} member; it has {', '.join(members)}")
    return members[extension]


def only_picture(sample: TarSample) -> TarMember:
    """The picture of a sample with a caption.

    Raises:
        ValueError: There is none, or several.
    """
    pictures = [m for m in sample.members if is_picture(m)]
    if len(pictures) != 1:
        raise ValueError(f"the sample has {len(pictures)} pictures for its caption, and not one")
    return pictures[0]


def is_picture(member: TarMember) -> bool:
    """Whether a member is a picture, by its name."""
    return member.extension.rpartition(".")[2] in PICTURE_SUFFIXES


def caption_of(data: bytes) -> str:
    """The caption in the bytes of a text file.

    Raises:
        ValueError: It is empty, or not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1:,} of the caption is not UTF-8") from None
    if not text:
        raise ValueError("the caption is empty")
    return text


def the_picture(sample: TarSample, picture: ParsedPicture) -> PictureFile:
    """The picture of a caption, which the record names by its whole name."""
    return stored(sample, only_picture(sample), picture.where)


def picture_of_sample(sample: TarSample, picture: ParsedPicture) -> PictureFile:
    """A picture that a record names: a member of its sample, or a data URI.

    Raises:
        ValueError: The sample has no such picture.
    """
    source = picture.source
    if not isinstance(source, str) or is_data_uri(source):
        return picture
    folder = PurePosixPath(sample.members[0].name).parent
    for member in sample.members:
        if is_picture(member) and PurePosixPath(member.name) == folder / source:
            return stored(sample, member, picture.where)
    names = ", ".join(PurePosixPath(m.name).name for m in sample.members if is_picture(m))
    raise ValueError(
        f"{picture.where}: the sample has no picture {shown(source)}; it has {names or 'none'}"
    )


def stored(sample: TarSample, member: TarMember, where: str) -> StoredPicture:
    """A picture in a tar."""
    load = partial(member.read, sample.path, MAX_BYTES)
    return StoredPicture(load, f"{where}: {PurePosixPath(member.name).name}")
