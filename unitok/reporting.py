"""What commands share: requests checked, results in order and as JSON, the end after Ctrl-C."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from unitok.flags import flag_name
from unitok.picture_sources import read_stdin
from unitok.requests import Caption, Edit, PictureOptions, TextOptions, check_ranges
from unitok.terminal import STOPPED, complain

if TYPE_CHECKING:
    from unitok.pictures import PictureLike
    from unitok.results import Result

WRONG_USE = (ValueError, OSError, TypeError, RuntimeError)  # a TimeoutError is an OSError
FACTS = ("seed", "finish_reason", "prompt_tokens", "completion_tokens", "seconds")
LOGPROBS = ("logprobs", "branch_logprobs")
STDIN = Path("-")  # stands for the picture that is piped into the program

R = TypeVar("R", bound="Result")
Shown = TypeVar("Shown", Caption, Edit)


def check(asked: TextOptions | PictureOptions, as_json: bool) -> None:
    """Check a request before a model is loaded.

    Args:
        asked: The request.
        as_json: Whether JSON will be printed.

    Raises:
        ValueError: An option is out of its range, or needs JSON.
    """
    check_ranges(asked)
    for name in LOGPROBS:
        if getattr(asked, name) and not as_json:
            raise ValueError(f"{flag_name(name)} appears only in JSON: add --json")


def with_stdin(asked: Shown) -> Shown:
    """The same request, with the picture from stdin if its picture is `-`.

    Raises:
        ValueError: Stdin is a terminal, empty or too large.
    """
    return dataclasses.replace(asked, image=from_stdin(asked.image))


def from_stdin(picture: PictureLike) -> PictureLike:
    """The picture from stdin instead of `-`; every other one as it is.

    Raises:
        ValueError: Stdin is a terminal, empty or too large.
    """
    return read_stdin() if picture == STDIN else picture


def in_order(results: Iterable[R], early: dict[int, R] | None = None) -> Iterator[R]:
    """Results by their index, each as soon as those before it have come.

    Args:
        results: Results in any order, with the indices 0, 1, ...
        early: Holds the results that still wait for one before them.
    """
    early = {} if early is None else early
    following = 0
    for result in results:
        early[result.index] = result
        while following in early:
            yield early.pop(following)
            following += 1


def facts(result: Result | None) -> dict[str, object]:
    """The keys that the JSON of every result has."""
    values = {name: getattr(result, name) for name in (*FACTS, *LOGPROBS)}
    several = getattr(result, "seeds", ())
    values["seeds"] = several if len(set(several)) > 1 else None
    return {name: value for name, value in values.items() if value is not None}


def print_json(data: dict[str, object]) -> None:
    """Print an object as a line of JSON."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


def print_counts(place: str | Path, counts: Mapping[str, int]) -> None:
    """Print how many lines of a batch are new, kept and failed."""
    print(f"{place}: {', '.join(f'{count} {status}' for status, count in counts.items())}")


def stopped(what: str = "") -> typer.Exit:
    """Report that Ctrl-C stopped the command.

    Args:
        what: What is done and kept; "" for nothing.

    Returns:
        The exception that ends the command.
    """
    complain(f"stopped; {what}" if what else "stopped")
    return typer.Exit(STOPPED)
