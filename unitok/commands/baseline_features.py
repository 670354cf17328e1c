"""`unitok baseline features`: what an image encoder makes of pictures, in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from unitok.commands.baseline_models import (
    FAILED,
    SHARED,
    TOGETHER,
    Json,
    opened,
    picture_of,
    pictures_in,
)
from unitok.flags import Common, with_flags
from unitok.reporting import print_json
from unitok.saving import make_folder, write_whole
from unitok.screen import counted
from unitok.terminal import complain, one_line, uninterrupted


@with_flags(only=SHARED)
def features(
    common: Common,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            show_default=False,
            help="Pictures, or folders with pictures. For ViViT and V-JEPA 2 each is a folder with "
            "the frames of a clip, in the order of their names.",
        ),
    ],
    source: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="FOLDER",
            show_default=False,
            help="The model's folder or hub id, or lite0, which comes in a package.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The safetensors file."),
    ],
    pooling: Annotated[
        Literal["cls", "mean"] | None,
        typer.Option(
            help="The class token's vector, or the mean of the patches'.",
            show_default="the encoder's own",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the features of pictures or clips into a safetensors file.

    It opens ViT, MAE, BEiT, DINOv2, DINOv3, I-JEPA, ViViT, V-JEPA 2 and Lite0. The file has one
    tensor, "features", with a row for each file; its metadata name the files as a JSON list.
    Pictures that cannot be read are left out, and the exit code is then 1.

    Example: unitok baseline features photos -o photos.safetensors --model facebook/dinov2-small
    """
    if output.suffix != ".safetensors":
        raise ValueError(f"{output}: name a safetensors file, such as features.safetensors")
    make_folder(output.parent)
    with opened(common, source, "encoder", pooling=pooling) as encoder:
        from unitok.baselines.encoders import ClipEncoder

        of_clips = isinstance(encoder, ClipEncoder)
        found = files if of_clips else list(dict.fromkeys(pictures_in(files)))
        read: list[Path] = []
        done = encoded(encoder, found, read, of_clips)
        with closing(counted(done, None, "encoding", common.bars)) as shown:
            rows = list(shown)
        write_features(encoder, rows, read, output)
    report_features(output, read, encoder.width, as_json)
    if len(read) < len(found):
        raise typer.Exit(FAILED)


def encoded(encoder: Any, files: Sequence[Path], read: list[Path], of_clips: bool) -> Iterator[Any]:
    """Features [n, width] of batches of files; those that could be read are added to `read`."""
    from unitok.baselines.adapter import batches

    for batch in batches(files, 1 if of_clips else TOGETHER):
        found = [(file, clip_of(file) if of_clips else picture_of(file)) for file in batch]
        good = [(file, item) for file, item in found if item is not None]
        if good:
            yield encoder.features([item for _, item in good])
        read += [file for file, _ in good]


def clip_of(folder: Path) -> Any:
    """The frames of a folder as a clip; None, and a line on stderr, if one cannot be read."""
    from unitok.baselines.protocols import Video

    if not folder.is_dir():
        complain(f"{folder} is no folder; give one with the frames of a clip")
        return None
    try:
        frames = [picture_of(file) for file in pictures_in([folder])]
    except ValueError as error:
        complain(error)
        return None
    whole = tuple(frame for frame in frames if frame is not None)
    return Video(whole, 1.0) if len(whole) == len(frames) else None


def write_features(encoder: Any, rows: Sequence[Any], read: Sequence[Path], output: Path) -> None:
    """Write features, with the names of their files.

    Raises:
        ValueError: No file could be read.
    """
    import torch
    from safetensors.torch import save

    if not read:
        raise ValueError("no file could be read, so there are no features")
    names = json.dumps([str(file) for file in read], ensure_ascii=False)
    data = save({"features": torch.cat(list(rows))}, {"files": names, "model": encoder.name})
    with uninterrupted():
        write_whole(data, output)


def report_features(output: Path, read: Sequence[Path], width: int, as_json: bool) -> None:
    """Print what was written."""
    if as_json:
        print_json({"file": str(output), "files": [str(file) for file in read], "width": width})
    else:
        print(f"{one_line(str(output))}: {len(read):,} x {width:,} features")
