"""POPE: does a model see things that are not there? (https://arxiv.org/abs/2305.10355)

The data are a file such as coco_pope_random.json: a line for each question, with `question_id`,
`image`, `text` and `label`. The pictures are those of COCO's val2014.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.evaluation.public.records import (
    Once,
    digest,
    first_of_each,
    inside,
    need_pictures,
    number_of,
    read_records,
    text_of,
)
from unitok.evaluation.suite import Item, Judgement, SuiteOptions, Summary, Table, judgement
from unitok.evaluation.tallies import by_group
from unitok.requests import Caption
from unitok.results import Result, TextResult
from unitok.saving import write_whole

LABELS = ("yes", "no")
NEGATIONS = {"No", "no", "not"}
ANSWERS = "pope_answers.jsonl"
MAX_TOKENS = 64  # the first sentence counts
MEASURES = ("accuracy", "precision", "recall", "f1", "yes_ratio")


@dataclass(frozen=True)
class PopeQuestion:
    """A line of the file."""

    number: int
    picture: str
    text: str
    label: str


def read_questions(path: Path) -> list[PopeQuestion]:
    """The questions of a file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is wrong, or a question is there twice.
    """
    once, found = Once("question_id"), []
    for where, record in read_records(path):
        number, label = number_of(record, "question_id", where), text_of(record, "label", where)
        if label not in LABELS:
            raise ValueError(f"{where}: label must be yes or no, not {label!r}")
        once.add(number, where)
        picture, text = text_of(record, "image", where), text_of(record, "text", where)
        inside(Path("images"), picture, where)
        found.append(PopeQuestion(number, picture, text, label))
    return found


def answer_of(text: str) -> str:
    """What POPE's own script takes an answer for: no if its first sentence negates, else yes."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if NEGATIONS.intersection(words) else "yes"


def confusion_scores(said: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of "yes", and the share of "yes", each in [0, 1]."""
    pairs = list(zip(said, labels, strict=True))
    hits, yes = pairs.count(("yes", "yes")), list(said).count("yes")
    precision, recall = hits / max(1, yes), hits / max(1, list(labels).count("yes"))
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    right = sum(s == label for s, label in pairs) / len(pairs)
    return dict(zip(MEASURES, (right, precision, recall, f1, yes / len(pairs)), strict=True))


class PopeSuite:
    """The suite of a file of POPE."""

    name = "pope"

    def __init__(self, options: SuiteOptions) -> None:
        assert options.data is not None
        self.questions = read_questions(options.data)
        chosen = first_of_each((q.label for q in self.questions), options.limit)
        self.questions = [self.questions[i] for i in chosen]
        self.images = options.images or options.data.parent
        need_pictures((self.images / q.picture for q in self.questions), "--images")
        self.settings: dict[str, Any] = {"data": digest([options.data]), "limit": options.limit}

    def items(self) -> Sequence[Item]:
        """A question for each line."""
        return [
            Item(
                f"{q.number:06d}",
                q.label,
                Caption(self.images / q.picture, q.text, max_tokens=MAX_TOKENS),
                {"label": q.label, "picture": q.picture},
            )
            for q in self.questions
        ]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Compare the answer with the label."""
        assert isinstance(result, TextResult)
        said = answer_of(result.text)
        return judgement(item, said == item.wanted["label"], result.text, facts={"answer": said})

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The five numbers of POPE. A question without an answer is left out, and counted."""
        answered = [j for j in judged if j.error is None]
        if not answered:
            return Summary({}, notes=["No question was answered."])
        said = [j.facts["answer"] for j in answered]
        scores = confusion_scores(said, [j.wanted["label"] for j in answered])
        lost = len(judged) - len(answered)
        rows = tuple(
            (label, len(members), sum(bool(j.ok) for j in members))
            for label, members in by_group(answered).items()
        )
        table = Table("Answers by label", ("label", "questions", "right"), rows)
        notes = [f"{lost} questions without an answer are left out."] if lost else []
        return Summary(scores, [table], notes)

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """Write the answers in the form that POPE's evaluate.py reads."""
        lines = [
            json.dumps(
                {
                    "question_id": int(j.key),
                    "image": j.wanted["picture"],
                    "question": j.asked,
                    "answer": j.said,
                },
                ensure_ascii=False,
            )
            for j in judged
            if j.error is None
        ]
        write_whole("".join(f"{line}\n" for line in lines).encode(), folder / ANSWERS)
