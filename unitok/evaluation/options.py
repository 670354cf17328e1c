"""What a person asks of an evaluation, beside the model: the flags of `unitok eval`."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from unitok.requests import Option

# The options that only some suites have: those that their entries name.
OF_SUITES = ("images", "real", "extractor", "scorer", "detector")

# Every reader of JSON takes it, and the seeds of items, which follow one another, have room.
MOST_SEED = 2**53


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of every suite, and those of `OF_SUITES`."""

    limit: Annotated[
        int | None,
        Option("The most items of each group.", low=1, unset="all; emoji suites 100 of a kind"),
    ] = None
    seed: Annotated[
        int | None,
        Option("Of what the suite chooses by chance.", low=0, high=MOST_SEED, unset="its own"),
    ] = None
    only: Annotated[
        str | Sequence[str] | None,
        Option("Only this group of items, such as draw_count. draw_* are all of a kind.", unset=""),
    ] = ()
    settings: Annotated[
        str | Sequence[str] | None,
        Option(
            "An option of the requests, such as guidance=2, or of the baseline, such as steps=20.",
            metavar="KEY=VALUE",
            unset="",
            flag="set",
        ),
    ] = ()
    images: Annotated[
        str | None,
        Option(
            "The folder of the pictures that the data name.",
            metavar="FOLDER",
            unset="that of the data",
        ),
    ] = None
    real: Annotated[
        str | None,
        Option(
            "Real pictures, which drawings are compared with for FID.", metavar="FOLDER", unset=""
        ),
    ] = None
    extractor: Annotated[
        str | None,
        Option(
            "What FID compares features of: a file with the weights of FID's InceptionV3, the "
            "folder of an image encoder, or lite0.",
            metavar="FILE",
            unset="",
        ),
    ] = None
    scorer: Annotated[
        str | None,
        Option(
            "A CLIP that scores pictures with texts, its folder or hub id.",
            metavar="FOLDER",
            unset="",
        ),
    ] = None
    detector: Annotated[
        str | None,
        Option(
            "A model that finds things in drawings, its folder or hub id.",
            metavar="FOLDER",
            unset="",
        ),
    ] = None
    out: Annotated[
        str | None,
        Option(
            "The run's folder. The same command goes on with what is there.",
            metavar="FOLDER",
            unset="evaluations/SUITE-MODEL",
        ),
    ] = None
    as_json: Annotated[bool, Option("Print the scores as JSON.", flag="json")] = False


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """The values of KEY=VALUE. A value that is no number and no True or False is text.

    Raises:
        ValueError: One has no key or no value, or a key is there twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not (key and value):
            raise ValueError(f"--set takes KEY=VALUE, not {text!r}")
        if key in found:
            raise ValueError(f"--set names {key!r} twice")
        found[key] = parse_value(value)
    return found


def parse_value(text: str) -> Any:
    """A number, True or False, or the text itself."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return value if isinstance(value, int | float) else text
