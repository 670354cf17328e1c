"""Folders of pictures: those of a FID, and pairs of original and reconstruction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from unitok.picture_names import PICTURE_SUFFIXES
from unitok.pictures import open_picture
from unitok.terminal import one_line

FEW = 3  # names in a message


@dataclass
class PictureFolder:
    """The pictures in a folder and in the folders in it, in the order of their paths.

    Attributes:
        folder: The folder.
        unreadable: Why files could not be read, by their names; filled while pictures are read.
        read: How many pictures were read.
    """

    folder: Path
    unreadable: dict[str, str] = field(default_factory=dict)
    read: int = 0

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: no such folder")
        if not self.files():
            raise ValueError(f"{self.folder} holds no pictures")

    def files(self) -> dict[str, Path]:
        """The files by their names within the folder."""
        found = sorted(
            p for p in self.folder.rglob("*") if p.suffix[1:].lower() in PICTURE_SUFFIXES
        )
        return {str(path.relative_to(self.folder)): path for path in found if path.is_file()}

    def pictures(self) -> Iterator[Image.Image]:
        """The pictures. One that cannot be read is left out, and noted.

        Raises:
            ValueError: None can be read.
        """
        self.unreadable, self.read = {}, 0
        files = self.files()
        for name, path in files.items():
            try:
                picture = open_picture(path)
            except (ValueError, OSError) as error:
                self.unreadable[name] = one_line(error)
                continue
            self.read += 1
            yield picture
        if not self.read:
            raise ValueError(
                f"{self.folder}: none of its {len(files)} files can be read: {self._reasons()}"
            )

    def notes(self) -> list[str]:
        """How many pictures could not be read, and why the first ones could not."""
        if not self.unreadable:
            return []
        return [
            f"{len(self.unreadable)} of {len(self.files())} files of {self.folder} are left out, "
            f"as they cannot be read: {self._reasons()}"
        ]

    def _reasons(self) -> str:
        """Why the first files could not be read."""
        return "; ".join(list(self.unreadable.values())[:FEW])


def pairs(real: PictureFolder, made: PictureFolder) -> list[tuple[str, Path, Path]]:
    """Files of two folders that have one name, whatever their suffixes.

    Raises:
        ValueError: A picture is missing on one side, or there twice.
    """
    theirs, ours = by_stem(real), by_stem(made)
    if missing := sorted(theirs.keys() - ours.keys()):
        raise ValueError(f"{made.folder} lacks {listed(missing)}, which {real.folder} has")
    if extra := sorted(ours.keys() - theirs.keys()):
        raise ValueError(f"{made.folder} has {listed(extra)}, which {real.folder} lacks")
    return [(name, theirs[name], ours[name]) for name in theirs]


def by_stem(pictures: PictureFolder) -> dict[str, Path]:
    """The files by their names without suffixes.

    Raises:
        ValueError: Two have one.
    """
    found: dict[str, Path] = {}
    for name, path in pictures.files().items():
        stem = str(Path(name).with_suffix(""))
        if stem in found:
            raise ValueError(f"{pictures.folder} has {stem} twice: {found[stem].name}, {path.name}")
        found[stem] = path
    return found


def listed(names: list[str]) -> str:
    """How many pictures, and the first ones by name."""
    few = ", ".join(names[:FEW])
    return f"{len(names)} pictures ({few}{', ...' if len(names) > FEW else ''})"
