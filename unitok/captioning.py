"""`unitok caption`: captions as lines or as JSON, in the order of the files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from unitok.reporting import WRONG_USE, facts, print_json, stopped
from unitok.requests import Caption
from unitok.screen import after, in_one_line, printable, write_live
from unitok.terminal import complain, uninterrupted

if TYPE_CHECKING:
    from unitok.api import Model
    from unitok.results import Result, TextResult

R = TypeVar("R", bound="Result")


def print_live(model: Model, asked: Caption) -> bool:
    """Print a caption on one line while it is generated.

    Returns:
        Whether there was a caption.
    """
    from unitok.api import checked_event

    try:
        events = map(checked_event, model.stream(asked))
        pieces = in_one_line(event.text for event in events)
        write_live(after(f"{asked.image}: ", pieces))
    except WRONG_USE as error:  # of this picture alone, as if it were one of several
        complain(error)
        return False
    return True


def print_all(model: Model, asked: Sequence[Caption], as_json: bool) -> bool:
    """Print all captions, each as soon as those before it are printed.

    Returns:
        Whether there was a caption of every picture.
    """
    results = cast("Iterable[TextResult]", model.run(asked))
    early: dict[int, TextResult] = {}
    printed: list[bool] = []
    try:
        for result in in_order(results, early):
            with uninterrupted():
                printed.append(print_caption(asked[result.index], result, as_json))
    except KeyboardInterrupt:
        printed += [print_caption(asked[i], early[i], as_json) for i in sorted(early)]
        done = f"{len(printed)} of {len(asked)} files are done" if printed else ""
        raise stopped(done) from None
    return all(printed)


def print_caption(asked: Caption, result: TextResult, as_json: bool) -> bool:
    """Print one caption on one line, or report its error.

    Returns:
        Whether there was a caption.
    """
    if result.error is not None:
        complain(result.error)
    elif as_json:
        print_json({"file": str(asked.image), "text": result.text} | facts(result))
    else:
        line = f"{asked.image}: {' '.join(result.text.split())}"
        print(printable(line) if sys.stdout.isatty() else line, flush=True)
    return result.error is None


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
