"""What commands share when they report: JSON of results, and the end after Ctrl-C."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from unitok.flags import flag_name
from unitok.requests import PictureOptions, TextOptions, check_ranges
from unitok.terminal import STOPPED, complain

if TYPE_CHECKING:
    from unitok.results import Result

WRONG_USE = (ValueError, OSError, TypeError, RuntimeError)  # a TimeoutError is an OSError
FACTS = ("seed", "finish_reason", "prompt_tokens", "completion_tokens", "seconds")
LOGPROBS = ("logprobs", "branch_logprobs")


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


def facts(result: Result | None) -> dict[str, object]:
    """The keys that the JSON of every result has."""
    values = {name: getattr(result, name) for name in (*FACTS, *LOGPROBS)}
    several = getattr(result, "seeds", ())
    values["seeds"] = several if len(set(several)) > 1 else None
    return {name: value for name, value in values.items() if value is not None}


def print_json(data: dict[str, object]) -> None:
    """Print an object as a line of JSON."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


def stopped(what: str = "") -> typer.Exit:
    """Report that Ctrl-C stopped the command.

    Args:
        what: What is done and kept; "" for nothing.

    Returns:
        The exception that ends the command.
    """
    complain(f"stopped; {what}" if what else "stopped")
    return typer.Exit(STOPPED)
