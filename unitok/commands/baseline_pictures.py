"""`unitok baseline classify | search | detect | segment`: what is in pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unitok.commands.baseline_models import (
    FAILED,
    SHARED,
    TOGETHER,
    WITH_DTYPE,
    BatchSize,
    Files,
    Json,
    Labels,
    Model,
    distinct,
    numbers,
    opened,
    picture_of,
    pictures_in,
    run_each,
)
from unitok.drawing import check_picture_name, numbered
from unitok.flags import Common, with_flags
from unitok.reporting import from_stdin, print_json
from unitok.saving import make_folder, save_whole
from unitok.screen import counted
from unitok.terminal import complain, uninterrupted

if TYPE_CHECKING:
    from PIL import Image

    from unitok.baselines.protocols import Detector, ImageTextScorer, Segmentation


# --- texts ---------------------------------------------------------------------------------------


@with_flags(only=WITH_DTYPE)
def classify(
    common: Common,
    files: Files,
    source: Model,
    labels: Labels,
    batch_size: BatchSize = None,
    as_json: Json = False,
) -> None:
    """Say how likely each label is for each picture, with CLIP, SigLIP or a model of open_clip.

    Labels are texts as the model was trained with, such as "a photo of a cat". A CLIP's
    probabilities sum to 1. A SigLIP judges each label alone.

    Example: unitok baseline classify pet.png --label "a cat" --label "a dog" --model out/clip
    """
    known = distinct(labels)
    given = {"batch_size": batch_size, "dtype": common.dtype}
    with opened(common, source, "scorer", **given) as scorer:
        done = classified(scorer, files, known, as_json)
        with closing(counted(done, len(files), "classifying", common.bars)) as shown:
            run_each(shown, len(files))


def classified(
    scorer: ImageTextScorer, files: Sequence[Path], labels: Sequence[str], as_json: bool
) -> Iterator[bool]:
    """Print the labels of files; whether each file could be read."""
    from unitok.baselines.adapter import batches

    for batch in batches(files, TOGETHER):
        found = [(file, picture_of(file)) for file in batch]
        read = [(file, image) for file, image in found if image is not None]
        chances = scorer.classify([image for _, image in read], labels) if read else ()
        for (file, _), row in zip(read, chances, strict=True):
            print_chances(file, dict(zip(labels, row.tolist(), strict=True)), as_json)
        yield from (image is not None for _, image in found)


def print_chances(file: Path, chances: dict[str, float], as_json: bool) -> None:
    """Print the probability of each label, the likeliest first."""
    ordered = dict(sorted(chances.items(), key=lambda item: -item[1]))
    if as_json:
        print_json({"file": str(file), "label": next(iter(ordered)), "probabilities": ordered})
    else:
        told = ", ".join(f"{label} {chance:.3f}" for label, chance in ordered.items())
        print(f"{file}: {told}", flush=True)


@with_flags(only=WITH_DTYPE)
def search(
    common: Common,
    text: Annotated[str, typer.Argument(show_default=False, help="What to look for.")],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", show_default=False, help="Pictures, or folders with pictures."
        ),
    ],
    source: Model,
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="How many are found.")] = 10,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Keep the pictures' features in this safetensors file, for the next search.",
        ),
    ] = None,
    batch_size: BatchSize = None,
    as_json: Json = False,
) -> None:
    """Find the pictures that a text describes best, with CLIP, SigLIP or a model of open_clip.

    The score of a picture is its logit, and the best comes first. Pictures that cannot be read are
    left out, and the exit code is then 1.

    Example: unitok baseline search "a cat on a chair" photos -k 5 --model out/clip
    """
    if not text.strip():
        raise ValueError("the text is empty; say what to look for")
    found = list(dict.fromkeys(pictures_in(files)))
    given = {"batch_size": batch_size, "dtype": common.dtype}
    with opened(common, source, "scorer", **given) as scorer:
        from unitok.baselines.feature_store import FeatureStore

        wrong: list[Path] = []

        def leave_out(file: Path, error: Exception) -> None:
            complain(error)
            wrong.append(file)

        with closing(counted(found, len(found), "reading", common.bars)) as shown:
            features = FeatureStore(store).features(scorer, shown, leave_out)
        read = [file for file in found if file not in wrong]
        for match in scorer.search_features(text, features, k):
            print_match(read[match.index], match.score, as_json)
    if wrong:
        raise typer.Exit(FAILED)


def print_match(file: Path, score: float, as_json: bool) -> None:
    """Print a picture that was found."""
    if as_json:
        print_json({"file": str(file), "score": score})
    else:
        print(f"{file}: {score:.3f}", flush=True)


# --- places --------------------------------------------------------------------------------------


@with_flags(only=SHARED)
def detect(
    common: Common,
    files: Files,
    source: Model,
    labels: Labels,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="The least score of what is printed.")
    ] = 0.3,
    as_json: Json = False,
) -> None:
    """Find things in pictures by their names, with Grounding DINO.

    A box is left, top, right and bottom, in pixels.

    Example: unitok baseline detect cat.png --label cat --label ball --model out/grounding-dino
    """
    known = distinct(labels)
    with opened(common, source, "detector") as detector:
        done = (detected(detector, file, known, threshold, as_json) for file in files)
        with closing(counted(done, len(files), "detecting", common.bars)) as shown:
            run_each(shown, len(files))


def detected(
    detector: Detector, file: Path, labels: Sequence[str], threshold: float, as_json: bool
) -> bool:
    """Print what is in a picture; whether it could be read."""
    if (picture := picture_of(file)) is None:
        return False
    try:
        found = detector.detect(picture, labels, threshold)
    except RuntimeError as error:  # of this picture; the others may do
        complain(f"{file}: {error}")
        return False
    if as_json:
        print_json({"file": str(file), "detections": [vars(thing) for thing in found]})
    for thing in () if as_json else found:
        print(f"{file}: {thing.label} {thing.score:.3f} at {in_pixels(thing.box)}", flush=True)
    if not found and not as_json:
        print(f"{file}: nothing", flush=True)
    return True


def in_pixels(box: Sequence[float]) -> str:
    """A box in whole pixels, as --box takes it."""
    return ",".join(str(round(side)) for side in box)


@with_flags(only=SHARED)
def segment(
    common: Common,
    file: Annotated[Path, typer.Argument(show_default=False, help="A picture; - is stdin.")],
    source: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Several masks get -0, -1, ... in the name."
        ),
    ],
    points: Annotated[
        list[str] | None,
        typer.Option(
            "--point", metavar="X,Y", show_default=False, help="On a thing. Given once for each."
        ),
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="L,T,R,B",
            show_default=False,
            help="Around a thing: left, top, right, bottom. Given once for each.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Cut things out of a picture with SAM or SAM 2: a mask of each point, then of each box.

    A mask is white on the thing, black elsewhere, and as large as the picture.

    Example: unitok baseline segment cat.png --point 120,80 -o mask.png --model out/sam
    """
    at = [numbers(point, 2, "--point", "120,80") for point in points or ()]
    within = [numbers(box, 4, "--box", "10,20,200,180") for box in boxes or ()]
    if not at and not within:
        raise ValueError("give --point or --box for each thing that is cut out")
    check_picture_name(output)
    make_folder(output.parent)
    with opened(common, source, "segmenter") as segmenter:
        found = segmenter.segment(from_stdin(file), points=at, boxes=within)
    save_masks(found, output, [*(points or ()), *(boxes or ())], as_json)


def save_masks(found: Segmentation, output: Path, places: Sequence[str], as_json: bool) -> None:
    """Save masks, and print their files and scores."""
    paths = numbered(output, len(found.scores))
    for path, mask, score, place in zip(paths, found.masks, found.scores, places, strict=True):
        with uninterrupted():
            save_whole(picture_of_mask(mask), path)
        if as_json:
            print_json({"file": str(path), "place": place, "score": score})
        else:
            print(f"{path}: {place}, score {score:.3f}", flush=True)


def picture_of_mask(mask: Any) -> Image.Image:
    """A mask [H, W] of truth values in black and white."""
    from PIL import Image

    return Image.fromarray(mask.numpy().astype("uint8") * 255)
