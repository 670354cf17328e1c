"""What a run has judged so far, on disk: journal.jsonl and pictures/.

The first line says of what run it is. Each other line is a judgement, and is written after its
picture is saved. A killed run may leave a half-written last line, which is dropped. A request that
failed is asked again by the next run, and the later of two lines about an item counts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.batch.journal import fcntl, json_line, told, write_all
from unitok.evaluation.suite import Judgement
from unitok.saving import UNFINISHED, make_folder, save_whole
from unitok.shown import shown
from unitok.strict_json import parse_json
from unitok.terminal import uninterrupted
from unitok_engine.user_warnings import warn

JOURNAL, PICTURES = "journal.jsonl", "pictures"
FORMAT = 1  # of the journal
NAMED = 5  # files that a warning names; the others are counted
_PICTURE = re.compile(rf"{PICTURES}/[\w.-]+\.png", re.ASCII)
_FIELDS = {field.name for field in dataclasses.fields(Judgement)}


@dataclass(frozen=True)
class Identity:
    """What a run is of. A journal is continued only by a run of the same identity.

    Attributes:
        suite: Its name.
        model: The model's name.
        digest: Of the model's files.
        settings: Of the suite.
        options: Of the requests and of the model, as the user gave them.
    """

    suite: str
    model: str
    digest: str
    settings: dict[str, Any]
    options: dict[str, Any]

    def differences(self, other: Identity) -> list[str]:
        """What differs in another run, in words."""
        return [
            f"{name} is {shown(there.get(name))} there and {shown(here.get(name))} here"
            for here, there in zip(self._parts(), other._parts(), strict=True)
            for name in {**here, **there}
            if here.get(name) != there.get(name)
        ]

    def _parts(self) -> tuple[dict[str, Any], ...]:
        """All by name. A setting and an option may have one name, such as "seed"."""
        named = {
            "the suite": self.suite,
            "the model": self.model,
            "the digest of the model's files": self.digest,
        }
        return named, self.settings, self.options


class Journal:
    """The journal of a folder, open for writing.

    Attributes:
        folder: The run's folder.
        done: The judgements of earlier runs and of this one, by the keys of their items.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Open a folder, lock it, and recover what was judged.

        Raises:
            OSError: The folder cannot be written.
            ValueError: Another run writes to it, it is damaged, or it is of another run.
        """
        make_folder(folder / PICTURES)
        self.folder, self._path = folder, folder / JOURNAL
        self.done: dict[str, Judgement] = {}
        self._file = self._path.open("ab", buffering=0)
        try:
            self._lock()
            self._sweep()
            self._recover(identity)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        """The journal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the journal and release its lock."""
        self._file.close()

    def append(self, judgement: Judgement) -> None:
        """Add a judgement, whose picture is saved already.

        Raises:
            OSError: It cannot be written.
            ValueError: It has a number that is not finite.
        """
        with told(self._path), uninterrupted():
            write_all(self._file, json_line(vars(judgement)))
        self.done[judgement.key] = judgement

    def save_picture(self, key: str, image: Image.Image) -> str:
        """Save the drawing of an item, and return its name within the folder."""
        name = f"{PICTURES}/{key}.png"
        with told(self.folder / name):
            save_whole(image, self.folder / name)
        return name

    def warn_of_extra_pictures(self) -> None:
        """Warn of files in pictures/ that no judgement names, as when somebody put them there."""
        named = {judgement.picture for judgement in self.done.values()}
        there = (f"{PICTURES}/{path.name}" for path in (self.folder / PICTURES).iterdir())
        if extra := sorted(name for name in there if name not in named):
            warn(f"{self.folder} has files of no item, which do not count: {listed(extra)}")

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another run is writing to {self.folder}; wait until it ends"
            ) from None

    def _sweep(self) -> None:
        """Remove what a killed run left half-written."""
        for unfinished in (self.folder / PICTURES).glob(f"*{UNFINISHED}"):
            unfinished.unlink()

    def _recover(self, identity: Identity) -> None:
        lines = read_lines(self._path)
        end, first = next(lines, (0, None))
        if first is None:
            self._file.truncate(end)
            write_all(self._file, json_line({"unitok_evaluation": FORMAT, **vars(identity)}))
            return
        differences = identity.differences(parse_identity(self._path, first))
        if differences:
            raise ValueError(
                f"{self._path} is of another run: {'; '.join(differences)}. Name another --out, or "
                "remove the folder"
            )
        judged: dict[str, Judgement] = {}
        for place, judgement in parse_judgements(self._path, lines):
            judged[judgement.key], end = judgement, place
        self._file.truncate(end)
        lost = {j.key: j.picture for j in judged.values() if j.picture and not self._has(j.picture)}
        if lost:
            names = listed(sorted(lost.values()))
            warn(f"{self.folder} has lost pictures, whose items are asked again: {names}")
        self.done = {key: judgement for key, judgement in judged.items() if key not in lost}

    def _has(self, picture: str) -> bool:
        return (self.folder / picture).is_file()


def listed(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file, each with the place of its end.

    They are read one by one, as a line with features of a picture has 20 kB.
    """
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield end, line


def parse_identity(path: Path, line: bytes) -> Identity:
    """What the first line of a journal says.

    Raises:
        ValueError: It is no first line of a journal.
    """
    wrong = ValueError(f"{path} is no journal of an evaluation; name another folder")
    try:
        header = parse_json(line)
        if header.pop("unitok_evaluation") != FORMAT:
            raise wrong
        identity = Identity(**header)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise wrong from None
    kinds = {"suite": str, "model": str, "digest": str, "settings": dict, "options": dict}
    if not all(isinstance(getattr(identity, name), kind) for name, kind in kinds.items()):
        raise wrong
    return identity


def parse_judgements(
    path: Path, lines: Iterable[tuple[int, bytes]]
) -> Iterator[tuple[int, Judgement]]:
    """The judgements of a journal's lines behind the first one, each with the place of its end.

    Raises:
        ValueError: A line is no judgement, or names a picture elsewhere.
    """
    for number, (end, line) in enumerate(lines, 2):
        try:
            yield end, parse_judgement(parse_json(line))
        except (ValueError, TypeError):
            raise ValueError(
                f"{path}: line {number} is no judgement; fix it, or remove the line"
            ) from None


def parse_judgement(record: Any) -> Judgement:
    """The judgement of a line.

    Raises:
        ValueError, TypeError: It is none.
    """
    judged = Judgement(**record)
    kinds = {
        "key": str, "group": str, "ok": bool | None, "score": float | int | None, "said": str,
        "asked": str, "picture": str | None, "seconds": float | int, "error": str | None,
    }  # fmt: skip
    if set(record) != _FIELDS:
        raise ValueError("a field is missing")
    for name, kind in kinds.items():
        if not isinstance(getattr(judged, name), kind):
            raise TypeError(name)
    if judged.picture is not None and not _PICTURE.fullmatch(judged.picture):
        raise ValueError("the picture lies elsewhere")
    return judged


def read_journal(folder: Path) -> tuple[Identity, dict[str, Judgement]]:
    """What a run's folder says, for reports about runs that have ended.

    Raises:
        FileNotFoundError: There is no journal.
        ValueError: It is damaged.
    """
    path = folder / JOURNAL
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {JOURNAL}; it is no folder of unitok eval")
    lines = read_lines(path)
    _, first = next(lines, (0, None))
    if first is None:
        raise ValueError(f"{path} is empty")
    identity = parse_identity(path, first)
    return identity, {judged.key: judged for _, judged in parse_judgements(path, lines)}
