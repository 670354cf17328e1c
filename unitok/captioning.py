"""`unitok caption`: captions as lines or as JSON, in the order of the files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from unitok.reporting import WRONG_USE, facts, in_order, print_json, stopped
from unitok.requests import Caption
from unitok.screen import after, in_one_line, printable, write_live
from unitok.terminal import complain, uninterrupted

if TYPE_CHECKING:
    from unitok.api import Model
    from unitok.results import TextResult


def print_live(model: Model, asked: Caption, name: str) -> bool:
    """Print a caption on one line while it is generated.

    Args:
        model: The model.
        asked: The request.
        name: The name of its picture.

    Returns:
        Whether there was a caption.
    """
    from unitok.api import checked_event

    try:
        events = map(checked_event, model.stream(asked))
        pieces = in_one_line(event.text for event in events)
        write_live(after(f"{name}: ", pieces))
    except WRONG_USE as error:  # of this picture alone, as if it were one of several
        complain(error)
        return False
    return True


def print_all(model: Model, asked: Sequence[Caption], names: Sequence[str], as_json: bool) -> bool:
    """Print all captions, each as soon as those before it are printed.

    Args:
        model: The model.
        asked: The requests.
        names: The names of their pictures.
        as_json: Whether JSON is wanted.

    Returns:
        Whether there was a caption of every picture.
    """
    results = cast("Iterable[TextResult]", model.run(asked))
    early: dict[int, TextResult] = {}
    printed: list[bool] = []
    try:
        for result in in_order(results, early):
            with uninterrupted():
                printed.append(print_caption(names[result.index], result, as_json))
    except KeyboardInterrupt:
        printed += [print_caption(names[i], early[i], as_json) for i in sorted(early)]
        done = f"{len(printed)} of {len(asked)} files are done" if printed else ""
        raise stopped(done) from None
    return all(printed)


def print_caption(name: str, result: TextResult, as_json: bool) -> bool:
    """Print one caption on one line, or report its error.

    Args:
        name: The name of its picture.
        result: The caption.
        as_json: Whether JSON is wanted.

    Returns:
        Whether there was a caption.
    """
    if result.error is not None:
        complain(result.error)
    elif as_json:
        print_json({"file": name, "text": result.text} | facts(result))
    else:
        line = f"{name}: {' '.join(result.text.split())}"
        print(printable(line) if sys.stdout.isatty() else line, flush=True)
    return result.error is None
