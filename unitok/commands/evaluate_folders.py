"""`unitok eval fid` and `unitok eval pairs`: scores of pictures that are there already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from unitok.evaluation.options import MOST_SEED
from unitok.extras import missing_is_wrong_use
from unitok.flags import Common, with_flags
from unitok.reporting import print_json
from unitok.screen import counted as with_bar
from unitok.screen import printable, stdout_console
from unitok.terminal import say, stopped_at_once

if TYPE_CHECKING:
    from unitok.evaluation.folders import FolderScores, Watch

OF_FID = ("device", "verbose", "quiet")  # the flags of every command that it has
OF_PAIRS = ("verbose", "quiet")

Real = Annotated[Path, typer.Argument(metavar="REAL", show_default=False, help="Real pictures.")]
Made = Annotated[
    Path, typer.Argument(metavar="MADE", show_default=False, help="The pictures that are judged.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@with_flags(only=OF_FID)
def fid(
    common: Common,
    real: Real,
    made: Made,
    extractor: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="A file with the weights of FID's InceptionV3, the folder of an image encoder, or "
            "lite0, whose numbers cannot be compared with published ones.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the subsets of KID.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare a folder of pictures with a folder of real ones: FID, KID and Inception Score.

    Pictures may differ in size. Files that cannot be read are left out, and named.

    Example: unitok eval fid real made --extractor lite0
    """
    with stopped_at_once():
        from unitok.evaluation.folders import compare_folders

    with missing_is_wrong_use():
        found = compare_folders(real, made, extractor, common.device, seed, watch(common))
    report(found, as_json)


@with_flags(only=OF_PAIRS)
def pairs(common: Common, real: Real, made: Made, as_json: Json = False) -> None:
    """Compare reconstructions with originals of the same names: PSNR and SSIM.

    Every picture needs its partner, of the same size; the formats may differ.

    Example: unitok eval pairs originals reconstructions
    """
    with stopped_at_once():
        from unitok.evaluation.folders import compare_pairs

    report(compare_pairs(real, made, watch(common)), as_json)


def watch(common: Common) -> Watch:
    """Shows the progress of what is read, if bars are shown."""
    return lambda items, total, what: with_bar(items, total, as_it_is(what), common.bars)


def report(found: FolderScores, as_json: bool) -> None:
    """Print scores, and on stderr how they are to be read."""
    for note in found.notes:
        say(note)
    if as_json:
        print_json(vars(found))
        return
    print_table(found.scores)
    print(f"{found.made:,} pictures beside {found.real:,} real ones")


def print_table(scores: Mapping[str, float]) -> None:
    """Print scores, one a line. The groups of users are in their names."""
    table = Table(show_header=False, box=None)
    for name, score in scores.items():
        table.add_row(as_it_is(name), f"{score:.4f}")
    stdout_console().print(table)


def as_it_is(text: str) -> str:
    """Text of users for rich, which would take [b] for a command, as a terminal does others."""
    return escape(printable(text))
