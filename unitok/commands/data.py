"""`unitok data check | make | pairs`: data sets to learn from."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from unitok.commands.data_pairs import pairs
from unitok.drawing import check_picture_name
from unitok.flags import Common, with_flags
from unitok.reporting import print_json
from unitok.saving import save_whole, write_whole
from unitok.screen import counted, stdout_console
from unitok.terminal import complain, say, stopped_at_once

if TYPE_CHECKING:
    from unitok.training.data.caption_pairs import CaptionPairs, Way
    from unitok.training.data.checking import DataReport, Samples
    from unitok.training.data.picture_folder import CaptionedPicture

FAILED = 1  # the exit code if a record is wrong
QUIET = ("verbose", "quiet")  # the flags of every command that need no model
MOST_SAMPLES = 200  # on a sheet

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Data sets to learn from: make them of pictures with captions or of the model's own "
    "answers, and check them.",
)

data.command()(pairs)

Question = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help="What the user asks about a picture that is to be read. Best is what the model is "
        "asked by default.",
    ),
]


@data.command()
@with_flags()
def check(
    common: Common,
    file: Annotated[
        Path,
        typer.Argument(
            show_default=False,
            help="JSON lines, a tar or parquet file, a folder of such, or one that the library "
            "datasets saved.",
        ),
    ],
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="PICTURE", help="Write a sheet of samples.", show_default=False),
    ] = None,
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, max=MOST_SAMPLES, help="How many are on the sheet.")
    ] = 12,
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="The most tokens of a sequence.", show_default="the model's context"
        ),
    ] = None,
    too_long: Annotated[
        Literal["drop", "cut"],
        typer.Option(help="What happens in training to an answer that does not fit."),
    ] = "drop",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is wrong with a data set, what is in it, and how long its sequences are.

    Every record is read, and every picture opened. Tokens are those of the model. If a record is
    wrong, the exit code is 1. An answer that is too long is told and counted, but is not wrong.

    Example: unitok data check train.jsonl --sheet samples.png
    """
    with stopped_at_once():
        from unitok.training.data.checking import DataReport, Samples, check_source
        from unitok.training.data.sequence_maker import SequenceMaker
        from unitok.training.data.sources import open_source

    if sheet is not None:
        check_place(sheet)
    source = open_source(file)
    with common.load() as model:
        maker = SequenceMaker(model.family, max_length, too_long, dropout=0)
        report, chosen = DataReport(), Samples(samples)
        passed = check_source(source, maker, report, chosen)
        with closing(counted(passed, source.size, "records", common.bars)) as shown:
            for _ in shown:
                pass
    if not report.conversations and not report.wrong:
        raise ValueError(f"{file} is empty: it has no conversation")
    if sheet is not None and chosen.conversations:
        write_sheet(chosen, sheet)
    tell(report, as_json)
    if report.wrong:
        raise typer.Exit(FAILED)


def check_place(sheet: Path) -> None:
    """Check that a sheet can be written, before all is read.

    Raises:
        ValueError: Its name is not that of a picture.
        OSError: It is a folder, or its folder does not exist.
    """
    check_picture_name(sheet)
    if not sheet.parent.is_dir():
        raise FileNotFoundError(f"{sheet.parent}: no such folder")


def write_sheet(samples: Samples, path: Path) -> None:
    """Write samples into a picture."""
    from unitok.training.data.sheet import sample_sheet

    save_whole(sample_sheet(samples.conversations), path)


def tell(report: DataReport, as_json: bool) -> None:
    """Print what was found."""
    for error in report.errors:
        complain(error)
    if (more := report.wrong - len(report.errors)) > 0:
        complain(f"and {more:,} more records are wrong")
    if report.long:
        shown = ", ".join(report.long[:5]) + (", ..." if len(report.long) > 5 else "")
        say(f"warning: {report.too_long:,} answers or pictures are too long, in {shown}")
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)


def print_report(report: DataReport) -> None:
    """Print the counts, and a histogram of lengths."""
    from unitok.training.data.checking import histogram_lines

    table = Table(show_header=False, box=None)
    for name, value in {
        "conversations": report.conversations,
        **({"pairs of answers": report.pairs} if report.pairs else {}),
        "wrong records": report.wrong,
        "turns": report.turns,
        "pictures to read": report.pictures_read,
        "pictures to paint": report.pictures_painted,
        "text tokens learned": report.text_tokens,
        "image tokens learned": report.image_tokens,
        "too long": report.too_long,
        "sequences": report.sequences,
        "median length": report.quantile(0.5),
        "longest": report.quantile(1),
    }.items():
        table.add_row(name, f"{value:,}")
    stdout_console().print(table)
    print("tokens of a sequence, up to")
    for line in histogram_lines(report.histogram()):
        print(line)


@data.command()
@with_flags(only=QUIET)
def make(
    common: Common,
    folder: Annotated[
        Path,
        typer.Argument(
            show_default=False,
            help="Pictures with captions: in metadata.jsonl, with the keys file_name and text, or "
            "in a text file beside each picture.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The JSON lines.")],
    read: Annotated[bool, typer.Option("--read", help="Only conversations that read.")] = False,
    paint: Annotated[bool, typer.Option("--paint", help="Only conversations that paint.")] = False,
    question: Question = "Describe the picture.",
    held_out: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="The share of pictures that is kept from FILE, for evaluation."
        ),
    ] = 0.0,
) -> None:
    """Make a data set of a folder of pictures with captions: JSON lines of conversations.

    Each picture gives two: the user shows it and asks, and the assistant says the caption; and the
    user says the caption, and the assistant paints the picture. With --read or --paint it gives the
    one or the other. What is held out is written beside FILE, with -held-out in its name. The same
    folder always gives the same files.

    Example: unitok data make pictures --out train.jsonl --held-out 0.1
    """
    from unitok.training.data.caption_pairs import CaptionPairs
    from unitok.training.data.picture_folder import read_picture_folder, split

    if not 0 <= held_out < 1:
        raise ValueError(f"--held-out must be a share from 0 to below 1, not {held_out:g}")
    if not question.strip():
        raise ValueError("--question is empty")
    found = read_picture_folder(folder)
    if found.without:
        say(
            f"warning: {len(found.without):,} pictures have no caption and are left out, such as "
            f"{found.without[0]}"
        )
    pairs = CaptionPairs(ways_of(read, paint), question)
    learned, held = split(found.pictures, held_out)
    write_lines(learned, out, pairs)
    if held:
        write_lines(held, out.with_stem(f"{out.stem}-held-out"), pairs)


def ways_of(read: bool, paint: bool) -> tuple[Way, ...]:
    """What is made of each picture: both, if neither is asked for."""
    ways: dict[Way, bool] = {"read": read, "paint": paint}
    return tuple(way for way, asked in ways.items() if asked or not (read or paint))


def write_lines(pictures: Iterable[CaptionedPicture], out: Path, pairs: CaptionPairs) -> None:
    """Write the conversations of pictures, and say how many there are."""
    from unitok.training.data.picture_folder import lines_of

    lines = list(lines_of(pictures, out.parent, pairs))
    write_whole(b"".join(lines), out)
    print(f"{out}: {len(lines):,} conversations of {len(lines) // len(pairs.ways):,} pictures")
