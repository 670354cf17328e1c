"""MME: 14 tasks of perception and cognition, two questions a picture (https://arxiv.org/abs/2306.13394).

The data are the folder of the benchmark, with a folder for each task that holds pictures and a text
file beside each, or in `images` and `questions_answers_YN`; or the folder of the eval tool's
templates, with a file TASK.txt for each task. A picture has two questions, whose answers are yes
and no.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.evaluation.public.records import Once, digest, inside, need_pictures, read_lines
from unitok.evaluation.suite import Item, Judgement, SuiteOptions, Summary, Table, judgement
from unitok.evaluation.tallies import by_group
from unitok.picture_names import PICTURE_SUFFIXES
from unitok.requests import Caption
from unitok.results import Result, TextResult
from unitok.saving import make_folder, write_whole

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)
TASKS = (*PERCEPTION, *COGNITION)
LABELS = ("yes", "no")
BEGINNING = 4  # characters of an answer that the eval tool looks at
MAX_TOKENS = 64
RESULTS = "mme"  # the folder of the answers


@dataclass(frozen=True)
class MmeQuestion:
    """A question about a picture.

    Attributes:
        task: The name of the task.
        path: The picture's file.
        picture: Its name, as the eval tool writes it.
        text: The question.
        label: "yes" or "no".
    """

    task: str
    path: Path
    picture: str
    text: str
    label: str


def read_benchmark(folder: Path, images: Path | None) -> tuple[list[MmeQuestion], list[Path]]:
    """The questions of a folder, task by task, and the files that they are read from.

    Args:
        folder: Of the benchmark, or of the eval tool's templates.
        images: Of the benchmark, where `folder` holds templates.

    Raises:
        FileNotFoundError: There is no such folder, or pictures are missing.
        ValueError: It holds no task, or a file is wrong.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    questions, files = [], []
    for task in TASKS:
        if (folder / f"{task}.txt").is_file():
            files.append(folder / f"{task}.txt")
            questions += read_template(files[-1], task, (images or folder) / task)
        elif (folder / task).is_dir():
            found = question_files(folder / task)
            files += found
            questions += [q for path in found for q in read_pair(path, task)]
    if not questions:
        raise ValueError(f"{folder} holds no task of MME, such as {TASKS[0]} or {TASKS[0]}.txt")
    need_pictures((q.path for q in questions), "--images")
    check_pairs(questions)
    return questions, files


def question_files(folder: Path) -> list[Path]:
    """The text files of a task's folder, in order."""
    return sorted((folder / "questions_answers_YN").glob("*.txt")) or sorted(folder.glob("*.txt"))


def read_template(path: Path, task: str, folder: Path) -> list[MmeQuestion]:
    """The questions of a file of the eval tool: picture, question, answer, between tabs."""
    return [
        MmeQuestion(
            task, picture_file(folder, part[0], where), part[0], part[1], label_of(part[2], where)
        )
        for where, part in parts(path, 3)
    ]


def read_pair(path: Path, task: str) -> list[MmeQuestion]:
    """The questions of a picture's file: question and answer, between a tab."""
    folder = path.parent
    folder = folder.parent / "images" if folder.name == "questions_answers_YN" else folder
    picture = next(
        (
            p
            for p in sorted(folder.glob("*"))
            if p.stem == path.stem and p.suffix[1:].lower() in PICTURE_SUFFIXES
        ),
        folder / f"{path.stem}.jpg",
    )
    return [
        MmeQuestion(task, picture, picture.name, part[0], label_of(part[1], where))
        for where, part in parts(path, 2)
    ]


def picture_file(folder: Path, name: str, where: str) -> Path:
    """Where a task's picture lies; some tasks have them in a folder `images`."""
    path = inside(folder, name, where)
    return path if path.is_file() else inside(folder / "images", name, where)


def parts(path: Path, count: int) -> Iterable[tuple[str, list[str]]]:
    """The lines of a file, split at tabs, with their places."""
    for where, line in read_lines(path):
        found = [part.strip() for part in line.split("\t")]
        if len(found) < count or not all(found[:count]):
            raise ValueError(f"{where}: {count} parts with tabs between them are needed")
        yield where, found


def label_of(text: str, where: str) -> str:
    """The right answer of a question."""
    if text.lower() not in LABELS:
        raise ValueError(f"{where}: the answer must be Yes or No, not {text!r}")
    return text.lower()


def check_pairs(questions: Sequence[MmeQuestion]) -> None:
    """Check that each picture has two questions, which differ."""
    once = Once("question")
    for q in questions:
        once.add((q.task, q.picture, q.text), f"{q.task}, {q.picture}")
    for (task, picture), count in Counter((q.task, q.picture) for q in questions).items():
        if count != 2:
            raise ValueError(f"{task}, {picture}: a picture has 2 questions, and this has {count}")


def answer_of(text: str) -> str:
    """What MME's eval tool takes an answer for: what its first four characters hold, or "other"."""
    beginning = text.lower()[:BEGINNING]
    return next((label for label in LABELS if label in beginning), "other")


def task_scores(judged: Sequence[Judgement]) -> dict[str, float]:
    """The score of a task, in [0, 200]: the accuracy of questions and that of pictures, in %."""
    pictures: dict[str, list[bool]] = {}
    for j in judged:
        pictures.setdefault(j.wanted["picture"], []).append(bool(j.ok))
    accuracy = 100 * sum(bool(j.ok) for j in judged) / len(judged)
    plus = 100 * sum(all(right) for right in pictures.values()) / len(pictures)
    return {"acc": accuracy, "acc_plus": plus, "score": accuracy + plus}


class MmeSuite:
    """The suite of a folder of MME."""

    name = "mme"

    def __init__(self, options: SuiteOptions) -> None:
        assert options.data is not None
        questions, files = read_benchmark(options.data, options.images)
        self.questions = first_pictures(questions, options.limit)
        self.settings: dict[str, Any] = {"data": digest(files), "limit": options.limit}

    def items(self) -> Sequence[Item]:
        """The questions, task by task."""
        return [
            Item(
                f"{q.task}-{i:05d}",
                q.task,
                Caption(q.path, q.text, max_tokens=MAX_TOKENS),
                {"label": q.label, "picture": q.picture},
            )
            for i, q in enumerate(self.questions)
        ]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Compare the beginning of the answer with the label."""
        assert isinstance(result, TextResult)
        said = " ".join(result.text.split())  # as it is written for the eval tool
        return judgement(item, answer_of(said) == item.wanted["label"], said)

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The score of each task, and their sums. What failed counts as wrong."""
        found = {task: task_scores(members) for task, members in by_group(judged).items()}
        scores = {task: numbers["score"] for task, numbers in found.items()}
        sums = totals(scores)
        rows = tuple((task, *map(rounded, numbers.values())) for task, numbers in found.items())
        table = Table("Tasks", ("task", "acc", "acc+", "score of 200"), rows)
        lacking = [task for task in TASKS if task not in found]
        notes = (
            [f"There is no sum where tasks are missing: {', '.join(lacking)}."] if lacking else []
        )
        return Summary(sums | scores, [table], notes)

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """Write a file for each task, as MME's calculation.py reads it.

        What failed has an empty answer, as that script would take an error's first characters for
        one.
        """
        make_folder(folder / RESULTS)
        for task, members in by_group(judged).items():
            lines = [
                "\t".join(
                    (
                        j.wanted["picture"],
                        j.asked,
                        j.wanted["label"].capitalize(),
                        "" if j.error else j.said,
                    )
                )
                for j in members
            ]
            text = "".join(f"{line}\n" for line in lines)
            write_whole(text.encode(), folder / RESULTS / f"{task}.txt")


def totals(scores: Mapping[str, float]) -> dict[str, float]:
    """The sums of perception and cognition, each if all of its tasks are there."""
    parts = {"perception": PERCEPTION, "cognition": COGNITION}
    return {
        name: sum(scores[task] for task in tasks)
        for name, tasks in parts.items()
        if all(task in scores for task in tasks)
    }


def first_pictures(questions: Sequence[MmeQuestion], limit: int | None) -> list[MmeQuestion]:
    """The questions of a task's first pictures: at most `limit`, and both of each picture."""
    if limit is None:
        return list(questions)
    kept: dict[str, list[str]] = {}
    for q in questions:
        pictures = kept.setdefault(q.task, [])
        if q.picture not in pictures and 2 * len(pictures) < limit:
            pictures.append(q.picture)
    return [q for q in questions if q.picture in kept[q.task]]


def rounded(number: float) -> float:
    """As a table shows it."""
    return round(number, 2)
