"""Models that take requests: what they cannot honour is refused, and the rest runs in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from unitok.api import check_several
from unitok.baselines.adapter import Adapter, batches, check_count
from unitok.requests import RequestOptions, check_ranges, options_of
from unitok.results import failure

WINDOW = 4  # batches whose requests are looked at together, so that those that go together meet

Answer = Callable[[Sequence[Any]], Sequence[Any]]
Key = Callable[[Any], Hashable]
Fail = Callable[[Any, int, Exception], Any]


class BatchRunner(Adapter, ABC):
    """A model that answers requests in batches. A subclass says how.

    Attributes:
        batch_size: How many are answered at once.
    """

    takes: ClassVar[tuple[type[RequestOptions], ...]]  # kinds of requests
    honoured: ClassVar[frozenset[str]]  # their options

    def __init__(self, folder: Path, device: str, batch_size: int) -> None:
        super().__init__(folder, device)
        self.batch_size = check_count("batch_size", batch_size)

    # -- what a subclass has

    @abstractmethod
    def _key(self, asked: Any) -> Hashable:
        """What is the same for all requests of a batch.

        Raises:
            ValueError, TypeError, OSError: The model cannot do what is asked.
        """

    @abstractmethod
    def _answer(self, asked: Sequence[Any]) -> Sequence[Any]:
        """The results of requests that have the same key, in their order."""

    # -- what all do

    def run(self, requests: Iterable[Any]) -> Generator[Any]:
        """Results as they finish, each with its `index` and its `request`.

        A request that fails gives a result with the finish reason "error" and an `error`. The
        others go on.

        Raises:
            TypeError: The requests are no list or other iterable of requests.
        """
        return run_in_batches(self._answer_open, requests, self.batch_size, self._key_open)

    def close(self) -> None:
        """Free the model. Closing again does nothing."""
        self._model = None

    def _all(self, asked: Sequence[Any]) -> list[Any]:
        """The results of requests in their order; the first error is raised."""
        answer, key = self._answer_open, self._key_open
        results = run_in_batches(answer, asked, self.batch_size, key, raise_error)
        return sorted(results, key=lambda result: result.index)

    def _check(self, asked: Any) -> None:
        """Check a request.

        Raises:
            TypeError: The model takes other kinds.
            ValueError: An option is out of its range, or the model cannot honour it.
        """
        if not isinstance(asked, self.takes):
            kinds = " or ".join(kind.__name__ for kind in self.takes)
            raise TypeError(f"{self.name} takes {kinds} requests, not {type(asked).__name__}")
        check_ranges(asked)
        for option, spec in options_of(type(asked)).items():
            if option in self.honoured or (value := getattr(asked, option)) is None:
                continue
            if spec.kind == "picture" or value not in (spec.default, ()):
                raise ValueError(f"{self.name} has no option {option}: leave it out")

    def _check_open(self) -> None:
        if self._model is None:
            raise RuntimeError(f"{self.name} is closed")

    def _key_open(self, asked: Any) -> Hashable:
        self._check_open()
        return self._key(asked)

    def _answer_open(self, asked: Sequence[Any]) -> Sequence[Any]:
        self._check_open()
        return self._answer(asked)


def run_in_batches(
    answer: Answer, requests: Iterable[Any], size: int, key: Key, fail: Fail = failure
) -> Generator[Any]:
    """Results of requests, in batches of those that have the same key.

    A request that fails gives a result that says so, and the others go on.

    Args:
        answer: Answers requests of the same key, in their order.
        requests: The requests, which are taken as they are needed.
        size: How many are answered at once.
        key: What those of one batch have in common; an error if one cannot be answered.
        fail: Makes the result of a request that fails.

    Raises:
        TypeError: The requests are no list or other iterable.
    """
    check_several(requests, "run")
    return _results(answer, requests, size, key, fail)


def _results(
    answer: Answer, requests: Iterable[Any], size: int, key: Key, fail: Fail
) -> Generator[Any]:
    for window in batches(enumerate(requests), WINDOW * size):
        groups: dict[Hashable, list[tuple[int, Any]]] = {}
        for index, asked in window:
            try:
                groups.setdefault(key(asked), []).append((index, asked))
            except Exception as error:  # whatever it is, it is this request's
                yield fail(asked, index, error)
        for group in groups.values():
            for batch in batches(group, size):
                yield from _answered(answer, batch, fail)


def _answered(answer: Answer, batch: Sequence[tuple[int, Any]], fail: Fail) -> Iterator[Any]:
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


def raise_error(asked: object, index: int, error: Exception) -> NoReturn:
    """Raise an error, where a result could not hold it."""
    raise error
