"""What a suite is: items that are asked, and how results are judged and summed up.

A suite knows no model, and a model knows no suite. `unitok.evaluation.run` brings them together:
it asks each item's request, lets the suite judge each result as it comes, and keeps the judgements
in a journal. The summary is made of judgements alone, so a run that was killed goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from unitok.evaluation.matching import Match
from unitok.requests import Caption, Draw, Edit
from unitok.results import DrawResult, Result

Cell = str | int | float | None


@dataclass(frozen=True)
class SuiteOptions:
    """What a suite is made of.

    Attributes:
        data: The file or folder that the user names; None for a suite that brings its own data.
        limit: The most items of each group; None for all of them, or for the suite's own number.
        seed: Of whatever the suite chooses by chance; None for the suite's own.
        images: The folder of the pictures that the data name; None if it is that of the data.
        real: The folder of the real pictures that drawings are compared with; None for none.
        extractor: "lite0", or the file or folder of a network whose features are compared; None for
            none.
        scorer: The folder of a CLIP that scores pictures with captions; None for none.
        detector: The folder of a model that finds things in drawings; None for none.
    """

    data: Path | None = None
    limit: int | None = None
    seed: int | None = None
    images: Path | None = None
    real: Path | None = None
    extractor: str | None = None
    scorer: str | None = None
    detector: str | None = None


@dataclass(frozen=True)
class Item:
    """Something that is asked.

    Attributes:
        key: Its name: unique in the suite, and the same in every run. The files of its pictures
            are named by it, so it has only letters, digits, "-", "_" and ".".
        group: What it is counted with, such as "draw_count".
        request: What the model is asked. A drawing has a seed, or a second run would differ.
        wanted: What a right result has, in values that JSON has; None if that is in the data.
    """

    key: str
    group: str
    request: Caption | Draw | Edit | Match
    wanted: Any = None


@dataclass(frozen=True)
class Judgement:
    """What became of an item. Its fields are a line of the journal.

    Attributes:
        key: Of the item.
        group: Of the item.
        ok: Whether the result is right; None if the suite only scores it.
        score: A number for the result, such as a PSNR; None if there is none.
        said: The answer, or for a drawing what the judge says of it.
        asked: The prompt, the question, or "" for a plain caption.
        wanted: Of the item.
        facts: What the summary needs beside that, in values that JSON has.
        picture: The drawing's file within the run's folder, which the run fills in; None if there
            is none.
        seconds: The time from the result before it to this one, which the run fills in. They add
            up to the time of the run.
        error: Why the request failed; None if it did not.
    """

    key: str
    group: str
    ok: bool | None
    score: float | None = None
    said: str = ""
    asked: str = ""
    wanted: Any = None
    facts: Any = None
    picture: str | None = None
    seconds: float = 0.0
    error: str | None = None


def judgement(
    item: Item, ok: bool | None, said: str, score: float | None = None, facts: Any = None
) -> Judgement:
    """A judgement of an item, with what the item says of itself filled in."""
    return Judgement(
        item.key, item.group, ok, score, said, asked_of(item), item.wanted, facts
    )  # fmt: skip


def asked_of(item: Item) -> str:
    """The prompt or the question of an item."""
    match item.request:
        case Caption(question=question):
            return question or ""
        case Match(texts=texts):
            return f"Which of {len(texts)} texts is true?"
        case request:
            return request.prompt


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        title: Its heading.
        columns: The names of the columns.
        rows: A cell for each column. Numbers are shown as they are rounded here.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Summary:
    """What a run comes to.

    Attributes:
        scores: By name, for machines and for the top of the report.
        tables: What the report shows beside the table of groups, which every report has.
        notes: Sentences about how the scores are to be read.
    """

    scores: dict[str, float]
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Suite(Protocol):
    """A set of items with a way to judge results."""

    @property
    def name(self) -> str:
        """What it is called on the command line, such as "emoji"."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the items, in values that JSON has: seed, limit, a digest of the data.

        A journal of other settings is refused.
        """
        ...

    def items(self) -> Sequence[Item]:
        """All that is asked, in a fixed order, each with a key of its own."""
        ...

    def judge(self, item: Item, result: Result) -> Judgement:
        """Judge a result without an error, as it comes. It is quick, as the model waits for it."""
        ...

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """Scores and tables of all judgements, in the order of the items.

        Those with an error are among them; their `ok` is False. A suite that a model was asked
        only a part of, such as the drawings, sums up what is there.
        """
        ...

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """Write the suite's official result format into the run's folder, if there is one."""
        ...


def picture_of(result: Result) -> Any:
    """The picture of a drawing; None for an answer.

    A suite judges the first picture of a drawing, and its items ask for one.
    """
    return result.image if isinstance(result, DrawResult) and result.images else None
