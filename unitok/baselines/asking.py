"""Requests to a model of others: options that it cannot honour are refused, and batches are run."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from unitok.api import check_several
from unitok.baselines.batches import batches
from unitok.requests import RequestOptions, check_ranges, options_of
from unitok.results import failure

WINDOW = 4  # batches whose requests are looked at together, so that those that go together meet

Answer = Callable[[Sequence[Any]], Sequence[Any]]
Key = Callable[[Any], object]


def check_request(asked: object, kind: type, honoured: Container[str], name: str) -> None:
    """Check that a model can do what a request asks for.

    Args:
        asked: The request.
        kind: The class of requests that it takes.
        honoured: The options that it honours.
        name: The model's name in messages.

    Raises:
        TypeError: It is another kind of request.
        ValueError: An option is out of its range, or the model cannot honour it.
    """
    if not isinstance(asked, kind) or not isinstance(asked, RequestOptions):
        raise TypeError(f"{name} takes {kind.__name__} requests, not {type(asked).__name__}")
    check_ranges(asked)
    for option, spec in options_of(kind).items():
        given = getattr(asked, option)
        if option not in honoured and given != spec.default and given != ():
            raise ValueError(f"{name} has no option {option}: leave it out")


def run_in_batches(answer: Answer, requests: Iterable[Any], size: int, key: Key) -> Generator[Any]:
    """Results of requests, in batches of those that have the same key.

    A request that fails gives a result that says so, and the others go on.

    Args:
        answer: Answers requests of the same key, in their order.
        requests: The requests, which are taken as they are needed.
        size: How many are answered at once.
        key: What those of one batch have in common.

    Raises:
        TypeError: The requests are no list or other iterable.
    """
    check_several(requests, "run")
    return _run(answer, requests, size, key, failure)


def answer_all(answer: Answer, asked: Sequence[Any], size: int, key: Key) -> list[Any]:
    """The results of requests in their order, in batches; the first error is raised."""
    results = _run(answer, asked, size, key, raise_error)
    return sorted(results, key=lambda result: result.index)


def raise_error(asked: object, index: int, error: Exception) -> NoReturn:
    """Raise an error, where a result could not hold it."""
    raise error


def _run(
    answer: Answer, requests: Iterable[Any], size: int, key: Key, fail: Callable[..., Any]
) -> Generator[Any]:
    for window in batches(enumerate(requests), WINDOW * size):
        groups: dict[object, list[tuple[int, Any]]] = {}
        for index, asked in window:
            try:
                groups.setdefault(key(asked), []).append((index, asked))
            except Exception as error:  # whatever it is, it is this request's
                yield fail(asked, index, error)
        for group in groups.values():
            for batch in batches(group, size):
                yield from _answered(answer, batch, fail)


def _answered(
    answer: Answer, batch: Sequence[tuple[int, Any]], fail: Callable[..., Any]
) -> Iterator[Any]:
    """The results of a batch. If it fails, each is tried alone, so that one fails alone."""
    try:
        results = answer([asked for _, asked in batch])
    except Exception as error:
        if len(batch) == 1:
            yield fail(batch[0][1], batch[0][0], error)
            return
        for one in batch:
            yield from _answered(answer, [one], fail)
    else:
        for (index, _), result in zip(batch, results, strict=True):
            yield replace(result, index=index)
