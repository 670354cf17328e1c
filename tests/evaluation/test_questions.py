"""The user's own questions: read strictly, asked, and compared with accepted answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unitok.evaluation.questions import QuestionSuite
from unitok.evaluation.run import judge
from unitok.evaluation.suite import SuiteOptions, asked_of
from unitok.evaluation.words import best_f1, is_accepted
from unitok.results import TextResult


@pytest.fixture
def write(tmp_path: Path):
    """Write lines into a file beside two pictures."""
    for name in ("cat.png", "dog.png"):
        Image.new("RGB", (8, 8), "pink").save(tmp_path / name)

    def write(*lines: Any) -> Path:
        file = tmp_path / "asked.jsonl"
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        return file

    return write


COUNT = {"image": "cat.png", "question": "how many cats?", "answers": ["one"], "kind": "number"}
CAPTION = {"image": "dog.png", "answers": ["a dog", "a puppy"], "id": "dog"}


def suite(file: Path, limit: int | None = None) -> QuestionSuite:
    return QuestionSuite(SuiteOptions(file, limit))


def test_lines_become_items_in_their_groups(write):
    items = suite(write(COUNT, "", CAPTION)).items()
    assert [(i.key, i.group, i.wanted) for i in items] == [
        ("line-0000001", "number", ["one"]),
        ("line-0000003", "caption", ["a dog", "a puppy"]),
    ]
    assert [asked_of(i) for i in items] == ["how many cats?", ""]


def test_answers_are_compared_with_all_that_are_accepted(write):
    own = suite(write(COUNT, CAPTION))
    said = ["1", "the big puppy"]
    judged = [
        judge(own, item, TextResult(text, 0, "stop", 1, 1, 0.0))
        for item, text in zip(own.items(), said, strict=True)
    ]
    assert [(j.ok, j.score) for j in judged] == [(True, 1.0), (False, 0.6667)]
    expected = {"accepted_number": 1.0, "accepted_caption": 0.0, "accepted": 0.5, "f1": 0.8333}
    assert own.summary(judged).scores == pytest.approx(expected, abs=1e-4)


def test_a_limit_is_of_each_kind(write):
    other = {**COUNT, "image": "dog.png"}
    assert [i.key[-1] for i in suite(write(COUNT, other, CAPTION), limit=1).items()] == ["1", "3"]


def test_another_file_has_other_settings(write):
    one = suite(write(COUNT)).settings
    assert one != suite(write(CAPTION)).settings


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "asked.jsonl:2: not JSON"),
        ("[]", "asked.jsonl:2: a line is an object"),
        ({"image": "cat.png"}, "asked.jsonl:2: answers must be a list"),
        ({**CAPTION, "answers": []}, "answers must be a list"),
        ({**CAPTION, "answers": [" "]}, "an accepted answer must be text"),
        ({**CAPTION, "answers": "a dog"}, "answers must be a list"),
        ({**CAPTION, "image": 3}, "image must be text, not 3"),
        ({**CAPTION, "question": None}, "question must be text, not None"),
        ({**CAPTION, "anwsers": ["a"]}, "there is no key 'anwsers'; the keys are image"),
        ({**CAPTION, "image": "bird.png"}, r"not there: .*bird\.png \(line 2\)"),
        (COUNT, "asked.jsonl:2 has the picture and the question of line 1"),
    ],
)
def test_a_wrong_line_is_named(write, line: Any, words: str):
    with pytest.raises((ValueError, OSError), match=words):
        suite(write(COUNT, line))


def test_two_lines_of_one_id_are_refused(write):
    with pytest.raises(ValueError, match="has the id 'dog' of line 1"):
        suite(write(CAPTION, {**COUNT, "id": "dog"}))


def test_many_missing_pictures_are_counted(write):
    lines = [{"image": f"{i}.png", "answers": ["x"]} for i in range(9)]
    with pytest.raises(FileNotFoundError, match="and 4 more"):
        suite(write(*lines))


def test_an_empty_file_is_refused(write):
    with pytest.raises(ValueError, match="is empty"):
        suite(write(""))


@pytest.mark.parametrize(
    ("accepted", "said", "right"),
    [
        ("A", "A.", True),
        ("A", "", False),
        ("A", "the", False),
        ("🐶", "🐶", True),
        ("🐶", "🐱", False),
        ("+", "-", False),
        ("a dog", "The dog", True),
    ],
)
def test_an_answer_without_a_word_that_counts_is_compared_as_it_is(accepted, said, right):
    assert is_accepted(said, [accepted]) is right
    assert (best_f1(said, [accepted]) == 1) is right
