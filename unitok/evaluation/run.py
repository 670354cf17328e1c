"""A run: a suite's items are asked of a model, and each result is judged as it comes."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.baselines.protocols import Runner
from unitok.evaluation.journal import Identity, Journal
from unitok.evaluation.suite import Item, Judgement, Suite, asked_of, picture_of
from unitok.requests import known_names
from unitok.results import Result
from unitok.terminal import one_line

MOST_FAILURES = 16  # requests that may fail one after another
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class TooManyFailuresError(RuntimeError):
    """So many requests failed one after another that the rest would too."""


@dataclass(frozen=True)
class Judged:
    """An item with its result, before it is written anywhere.

    Attributes:
        item: What was asked.
        result: What came back.
        judgement: What the suite says of it.
    """

    item: Item
    result: Result
    judgement: Judgement


def run_items(
    runner: Runner,
    suite: Suite,
    items: Sequence[Item],
    clock: Callable[[], float] = time.perf_counter,
) -> Generator[Judged]:
    """Ask items, and judge each result as it comes. The requests are taken lazily, and batched.

    Args:
        runner: The model.
        suite: Judges the results.
        items: What is asked.
        clock: Tells the seconds.

    Raises:
        TooManyFailuresError: `MOST_FAILURES` requests failed one after another.
    """
    before, failures = clock(), 0
    for result in runner.run(item.request for item in items):
        item = items[result.index]
        judgement = judge(suite, item, result)
        now = clock()
        yield Judged(item, result, dataclasses.replace(judgement, seconds=round(now - before, 6)))
        before, failures = now, failures + 1 if judgement.error else 0
        if failures >= MOST_FAILURES:
            raise TooManyFailuresError(
                f"{failures} requests failed one after another, the last one, {item.key}, with: "
                f"{judgement.error}"
            )


def judge(suite: Suite, item: Item, result: Result) -> Judgement:
    """What a suite says of a result. One with an error, or one it cannot judge, is wrong."""
    error = result.error
    if error is None:
        try:
            return with_finite_score(suite.judge(item, result))
        except ValueError as wrong:  # of a drawing of a size that the judge cannot read, say
            error = f"it cannot be judged: {one_line(wrong)}"
    said = one_line(error)
    return Judgement(
        item.key, item.group, False, said=said, asked=asked_of(item), wanted=item.wanted, error=said
    )  # fmt: skip


def with_finite_score(judgement: Judgement) -> Judgement:
    """A judgement whose score is a number, as the journal needs it; ValueError for any other."""
    if judgement.score is not None and not math.isfinite(judgement.score):
        raise ValueError(f"its score is {judgement.score}")
    return judgement


def with_options(items: Sequence[Item], options: dict[str, Any]) -> list[Item]:
    """The items with options of their requests, each where its kind of request has it."""
    return [dataclasses.replace(item, request=_with(item.request, options)) for item in items]


def _with(request: Any, options: dict[str, Any]) -> Any:
    own = {name: options[name] for name in known_names(type(request)) if name in options}
    return dataclasses.replace(request, **own) if own else request


def check_keys(items: Sequence[Item]) -> None:
    """Check that keys are unique and can name files.

    Raises:
        ValueError: One is not, or there is no item.
    """
    seen: set[str] = set()
    for item in items:
        if not _KEY.fullmatch(item.key):
            raise ValueError(f"the key {item.key!r} cannot name a file")
        if item.key in seen:
            raise ValueError(f"two items have the key {item.key!r}")
        seen.add(item.key)
    if not items:
        raise ValueError("there is nothing to ask: the suite has no items for this model")


class Run:
    """A run that writes into a folder, and goes on where an earlier one stopped.

    Attributes:
        suite: What is asked.
        items: All that is asked, in order.
        folder: The run's folder.
        identity: What the run is of.
    """

    def __init__(
        self, suite: Suite, items: Sequence[Item], folder: Path, identity: Identity
    ) -> None:
        """Nothing is asked yet.

        Raises:
            ValueError: There are no items, or a key is wrong or there twice.
        """
        check_keys(items)
        self.suite, self.items, self.folder, self.identity = suite, items, folder, identity

    def outcomes(self, runner: Runner) -> Generator[tuple[Judgement, bool]]:
        """Ask what is not judged yet, or failed.

        Yields:
            Each judgement, and whether it is new. Those of earlier runs come first.

        Raises:
            OSError: The folder cannot be written.
            ValueError: The folder is of another run, or another run writes to it.
            TooManyFailuresError: As `run_items`. What came before is kept.
        """
        with Journal(self.folder, self.identity) as journal:
            done = {key: j for key, j in journal.done.items() if j.error is None}
            yield from ((done[item.key], False) for item in self.items if item.key in done)
            left = [item for item in self.items if item.key not in done]
            if left:
                with closing(run_items(runner, self.suite, left)) as judged:
                    for one in judged:
                        yield self._write(journal, one), True

    def _write(self, journal: Journal, judged: Judged) -> Judgement:
        judgement, picture = judged.judgement, picture_of(judged.result)
        if picture is not None and judgement.error is None:
            name = journal.save_picture(judgement.key, picture)
            judgement = dataclasses.replace(judgement, picture=name)
        journal.append(judgement)
        return judgement

    def judged(self) -> list[Judgement]:
        """All judgements, in the order of the items.

        Raises:
            ValueError: The folder is of another run, or some items are not judged yet.
        """
        with Journal(self.folder, self.identity) as journal:
            done = journal.done
            journal.warn_of_extra_pictures()
        missing = [item.key for item in self.items if item.key not in done]
        if missing:
            raise ValueError(f"{self.folder} has no result for {len(missing)} items: {missing[0]}")
        return [done[item.key] for item in self.items]
