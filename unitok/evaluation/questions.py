"""The user's own pictures with questions and accepted answers, as JSON lines.

    {"image": "cat.png", "question": "how many cats are there?", "answers": ["one"]}
    {"image": "cat.png", "answers": ["a cat on a sofa"], "kind": "outdoor", "id": "cat-1"}

A line without a question wants a caption. Paths of pictures are relative to the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.batch.keys import file_digest
from unitok.batch.source import MAX_LINE, Source
from unitok.evaluation.metrics import rate
from unitok.evaluation.suite import Item, Judgement, SuiteOptions, Summary, judgement
from unitok.evaluation.tallies import mean, shares
from unitok.evaluation.words import best_f1, is_accepted
from unitok.requests import Caption
from unitok.results import Result, TextResult
from unitok.shown import shown
from unitok.strict_json import parse_json
from unitok.terminal import one_line

KEYS = ("image", "question", "answers", "kind", "id")
NAMED = 5  # pictures or lines that a message names; the others are counted


@dataclass(frozen=True)
class Question:
    """A line of the file.

    Attributes:
        number: Of the line, from 1 on.
        image: The file of the picture.
        question: What is asked; None for a caption.
        answers: What is accepted.
        kind: What it is counted with.
        id: The user's name for it; None if it has none.
    """

    number: int
    image: Path
    question: str | None
    answers: tuple[str, ...]
    kind: str
    id: str | None

    @property
    def key(self) -> str:
        """The key of its item: its line, so that any id may be given."""
        return f"line-{self.number:07}"


class QuestionSuite:
    """Questions and captions of the user's own. It is a `Suite`."""

    name = "questions"

    def __init__(self, options: SuiteOptions) -> None:
        """Read and check all lines.

        Raises:
            OSError: The file cannot be read.
            ValueError: A line is wrong, two lines are the same, or pictures are missing.
        """
        assert options.data is not None  # the command line sees to it
        self.file, self.limit = options.data, options.limit
        self.questions = limited(read_questions(self.file), options.limit)

    @property
    def settings(self) -> dict[str, Any]:
        """See `Suite`."""
        return {"limit": self.limit, "the digest of the questions": file_digest(self.file)}

    def items(self) -> list[Item]:
        """An item for each line."""
        return [
            Item(q.key, q.kind, Caption(q.image, question=q.question), list(q.answers))
            for q in self.questions
        ]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Compare an answer with those that are accepted."""
        assert isinstance(result, TextResult)
        text, f1 = result.text, best_f1(result.text, item.wanted)
        return judgement(item, is_accepted(text, item.wanted), text, round(f1, 4))

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The share of accepted answers of each kind and of all, and the mean F1 of words."""
        scores = {f"accepted_{kind}": share for kind, share in shares(judged).items()}
        scores["accepted"] = round(rate([bool(j.ok) for j in judged]), 4)
        scores["f1"] = round(mean([j.score or 0.0 for j in judged]) or 0.0, 4)
        return Summary(scores, notes=[HOW_JUDGED])

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """There is no format of others for it."""


HOW_JUDGED = (
    "An answer is right if it is one of those that are accepted, but for case, punctuation and "
    "articles; a number may be a word. Where only yes and no are accepted, the first word decides. "
    "The score is the F1 of an answer's words with those of the nearest accepted answer."
)


def limited(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """The first questions of each kind, in order."""
    counts: dict[str, int] = {}
    kept = []
    for question in questions:
        counts[question.kind] = counts.get(question.kind, 0) + 1
        if limit is None or counts[question.kind] <= limit:
            kept.append(question)
    return kept


def read_questions(file: Path) -> list[Question]:
    """All lines of a file of questions.

    Raises:
        OSError: The file cannot be read.
        ValueError: A line is wrong, two lines are the same, or pictures are missing.
    """
    found = list(_lines(file))
    if not found:
        raise ValueError(f"{file} is empty: it has no line with a question")
    check_duplicates(file, found)
    check_pictures(file, found)
    return found


def _lines(file: Path) -> Iterator[Question]:
    for line in Source(file).lines():
        try:
            if line.too_long:
                raise ValueError(f"the line is longer than {MAX_LINE:,} bytes")
            yield parse_question(parse_json(line.data), line.number, file.parent)
        except ValueError as error:
            raise ValueError(f"{file}:{line.number}: {one_line(error)}") from None


def parse_question(record: Any, number: int, folder: Path) -> Question:
    """The question of a line.

    Args:
        record: The value of the line.
        number: Of the line.
        folder: What paths are relative to.

    Raises:
        ValueError: A key is missing, unknown or of a wrong type.
    """
    if not isinstance(record, dict):
        raise ValueError(f"a line is an object with {', '.join(KEYS)}, not {shown(record)}")
    for key in record:
        if key not in KEYS:
            raise ValueError(f"there is no key {shown(key)}; the keys are {', '.join(KEYS)}")
    image, question = _text(record, "image"), _text(record, "question", None)
    kind = _text(record, "kind", "caption" if question is None else "question")
    answers = record.get("answers")
    if not isinstance(answers, list) or not answers:
        raise ValueError(f"answers must be a list of accepted answers, not {shown(answers)}")
    for answer in answers:
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError(f"an accepted answer must be text, not {shown(answer)}")
    assert image is not None and kind is not None
    return Question(
        number, folder / image, question, tuple(answers), kind, _text(record, "id", None)
    )


_NEEDED = "needed"


def _text(record: dict[str, Any], key: str, default: str | None = _NEEDED) -> str | None:
    """The text of a key."""
    if key not in record and default is not _NEEDED:
        return default
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} must be text, not {shown(value)}")
    return value


def check_duplicates(file: Path, questions: Sequence[Question]) -> None:
    """Check that no two lines ask the same or have one id.

    Raises:
        ValueError: Two do. The message names both.
    """
    seen: dict[object, int] = {}
    for question in questions:
        names: dict[object, str] = {
            (question.image, question.question): "the picture and the question"
        }
        if question.id is not None:
            names[question.id] = f"the id {shown(question.id)}"
        for name, words in names.items():
            if name in seen:
                raise ValueError(
                    f"{file}:{question.number} has {words} of line {seen[name]}; remove one of them"
                )
            seen[name] = question.number


def check_pictures(file: Path, questions: Sequence[Question]) -> None:
    """Check that all pictures are there, before a model is loaded.

    Raises:
        FileNotFoundError: Some are missing. The message names the first.
    """
    missing = [question for question in questions if not question.image.is_file()]
    if missing:
        names = ", ".join(f"{q.image} (line {q.number})" for q in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise FileNotFoundError(f"{file} names pictures that are not there: {names}{more}")
