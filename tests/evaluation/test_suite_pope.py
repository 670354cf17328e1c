"""POPE: the file's form, how answers are read, the five numbers, and the answers' form."""

import json
from pathlib import Path

import pytest

from tests.evaluation.suites import answered, failed, judge_answers, save_pictures, write_lines
from unitok.evaluation.public.pope import PopeSuite, answer_of, confusion_scores
from unitok.evaluation.suite import SuiteOptions

PICTURES = ("COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg")


def question(number: int, picture: str, label: str, **changed: object) -> dict[str, object]:
    text = f"Is there a thing {number} in the image?"
    record = {"question_id": number, "image": picture, "text": text, "label": label}
    return record | changed


def made_suite(tmp_path: Path, *records: object, limit: int | None = None) -> PopeSuite:
    images = save_pictures(tmp_path / "val2014", *PICTURES)
    data = write_lines(tmp_path / "coco_pope_random.json", *records)
    return PopeSuite(SuiteOptions(data, limit, images=images))


@pytest.fixture
def suite(tmp_path: Path) -> PopeSuite:
    labels = ("yes", "no", "yes", "no", "yes")
    records = [question(i + 1, PICTURES[i % 2], label) for i, label in enumerate(labels)]
    return made_suite(tmp_path, *records)


def test_answers_are_read_as_the_official_script_does():
    assert answer_of("Yes, there is a dog.") == "yes"
    assert answer_of("No, there is no dog.") == "no"
    assert answer_of("There is not, I fear. Yes!") == "no"
    assert answer_of("yes. But no cat") == "yes"
    assert answer_of("NO") == "yes"  # that script knows No, no and not alone
    assert answer_of("nothing") == "yes"


def test_the_five_numbers_are_those_worked_by_hand(suite: PopeSuite, tmp_path: Path):
    judged = judge_answers(suite, ["Yes.", "yes", "No", "no, there is none", "A thing."])
    # 2 hits of 3 that were to be found, 1 false alarm, 1 right no.
    summary = suite.summary(judged)
    assert summary.scores == pytest.approx(
        {"accuracy": 3 / 5, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "yes_ratio": 3 / 5}
    )
    assert [j.ok for j in judged] == [True, False, False, True, True]
    assert summary.tables[0].rows == (("yes", 3, 2), ("no", 2, 1))
    suite.export(judged, tmp_path)
    lines = [json.loads(x) for x in (tmp_path / "pope_answers.jsonl").read_text().splitlines()]
    assert lines[1] == {
        "question_id": 2,
        "image": PICTURES[1],
        "question": "Is there a thing 2 in the image?",
        "answer": "yes",
    }
    assert len(lines) == 5


def test_a_question_without_an_answer_is_left_out_and_counted(suite: PopeSuite, tmp_path: Path):
    first, *others = suite.items()
    judged = [suite.judge(first, answered(first, "yes")), *map(failed, others)]
    summary = suite.summary(judged)
    assert summary.scores["accuracy"] == 1
    assert summary.notes == ["4 questions without an answer are left out."]
    suite.export(judged, tmp_path)
    assert len((tmp_path / "pope_answers.jsonl").read_text().splitlines()) == 1
    assert suite.summary([failed(first)]).scores == {}


def test_a_model_that_never_says_yes_has_no_precision():
    scores = confusion_scores(["no", "no"], ["yes", "no"])
    assert scores == {"accuracy": 0.5, "precision": 0, "recall": 0, "f1": 0, "yes_ratio": 0}


def test_a_limit_takes_the_first_of_each_label(tmp_path: Path):
    records = [question(i, PICTURES[0], "yes" if i < 4 else "no") for i in range(8)]
    suite = made_suite(tmp_path, *records, limit=2)
    assert [item.key for item in suite.items()] == ["000000", "000001", "000004", "000005"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", r"line 2: not a JSON object but \[1\]"),
        (question(1, PICTURES[0], "yes"), "line 2: the question_id 1 is at .*line 1 already"),
        (question(2, PICTURES[0], "maybe"), "line 2: label must be yes or no, not 'maybe'"),
        (question(2, PICTURES[0], "yes", text=""), "line 2: text must be text"),
        (question(2, PICTURES[0], "yes", question_id="2"), "line 2: question_id must be a whole"),
        (question(2, "../x.jpg", "yes"), r"line 2: '\.\./x\.jpg' is no name within"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, record: object, message: str):
    with pytest.raises(ValueError, match=rf"coco_pope_random\.json, {message}"):
        made_suite(tmp_path, question(1, PICTURES[0], "yes"), record)


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"1 pictures are missing, such as .*x\.jpg"):
        made_suite(tmp_path, question(1, "x.jpg", "yes"))
    with pytest.raises(FileNotFoundError, match="no such file"):
        PopeSuite(SuiteOptions(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="is empty"):
        made_suite(tmp_path, "")
