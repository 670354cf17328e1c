"""Scores of folders of pictures that are there already, whoever made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.evaluation.distances import compare, features_of
from unitok.evaluation.extractors import open_extractor
from unitok.evaluation.pair_metrics import pair_scores
from unitok.evaluation.picture_folder import PictureFolder, pairs
from unitok.evaluation.tallies import mean

# Passes items on, and shows their number and how many have come: of so many, called so.
Watch = Callable[[Iterable[Any], int, str], Iterable[Any]]


def unwatched(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    """Items whose progress is not shown."""
    return items


@dataclass(frozen=True)
class FolderScores:
    """What two folders come to.

    Attributes:
        real: How many pictures of the first were read.
        made: How many pictures of the second were read.
        scores: By name.
        notes: How they are to be read, and which files could not be.
    """

    real: int
    made: int
    scores: dict[str, float]
    notes: list[str]


def compare_folders(
    real: Path,
    made: Path,
    extractor: str | Path | None,
    device: str | None = None,
    seed: int = 0,
    watch: Watch = unwatched,
) -> FolderScores:
    """FID, KID and the Inception Score of a folder beside a folder of real pictures.

    Pictures may differ in size: each is resized as the extractor says. Files that are no readable
    pictures are left out, counted and named.

    Args:
        real: The real pictures.
        made: Those that are judged.
        extractor: As `open_extractor`.
        device: Where it computes; None for a GPU if there is one.
        seed: Chooses the subsets of KID and the splits of the Inception Score.
        watch: Shows the progress.

    Raises:
        FileNotFoundError: A folder or a file is not there.
        ValueError: There are too few pictures, or no extractor.
        ImportError: A library is not installed.
    """
    network = open_extractor(extractor, device)
    folders = PictureFolder(real), PictureFolder(made)
    theirs, ours = (
        features_of(network, watch(folder.pictures(), len(folder.files()), str(folder.folder)))
        for folder in folders
    )
    scores, notes = compare(theirs, ours, network, seed)
    notes += [note for folder in folders for note in folder.notes()]
    return FolderScores(folders[0].read, folders[1].read, scores, notes)


def compare_pairs(real: Path, made: Path, watch: Watch = unwatched) -> FolderScores:
    """The mean PSNR and SSIM of reconstructions beside originals of the same names.

    Args:
        real: The originals.
        made: The reconstructions: a file of the same name and size for each, of any format.
        watch: Shows the progress.

    Raises:
        FileNotFoundError: A folder is not there.
        ValueError: Pictures are missing or too many, differ in size, or cannot be read.
    """
    found = pairs(PictureFolder(real), PictureFolder(made))
    each = [named_scores(*pair) for pair in watch(found, len(found), "pairs")]
    scores = {name: mean([one[name] for one in each]) or 0.0 for name in ("psnr", "ssim")}
    return FolderScores(len(found), len(found), scores, [])


def named_scores(name: str, original: Path, made: Path) -> dict[str, float]:
    """PSNR and SSIM of a pair; an error names it."""
    try:
        return pair_scores(original, made)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
