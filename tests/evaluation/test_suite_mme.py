"""MME: both forms of its data, how answers are read, accuracy and accuracy+, the answers' form."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.evaluation.suites import failed, judge_answers, save_pictures, write_lines
from unitok.evaluation.public.mme import COGNITION, PERCEPTION, MmeSuite, answer_of, totals
from unitok.evaluation.suite import SuiteOptions

ASK = "Please answer yes or no."


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A task of each form: text beside pictures, and in folders of their own."""
    folder = tmp_path / "MME"
    save_pictures(folder, "count/0001.png", "count/0002.jpg", "scene/images/tt7.jpg")
    for name in ("0001", "0002"):
        write_lines(
            folder / f"count/{name}.txt", f"Is it {name}? {ASK}\tYes", f"Is it 9? {ASK}\tNo", ""
        )
    write_lines(folder / "scene/questions_answers_YN/tt7.txt", "A hall?\tNo", "A sea?\tYes")
    return folder


def test_answers_are_read_as_the_eval_tool_does():
    assert [answer_of(t) for t in ("Yes, it is", "no", "No.", " yes", "It is, yes", "Not", "")] == [
        "yes",
        "no",
        "no",
        "yes",
        "other",
        "no",
        "other",
    ]


def test_scores_are_accuracy_of_questions_and_of_pictures(benchmark: Path, tmp_path: Path):
    suite = MmeSuite(SuiteOptions(benchmark))
    # The first picture of count has both right, the second one of two; scene has none.
    judged = judge_answers(suite, ["Yes", "No\n", "yes", "It has\tnot", "Yes", "maybe"])
    summary = suite.summary(judged)
    assert summary.scores == pytest.approx({"count": 75 + 50, "scene": 0})
    assert summary.tables[0].rows == (("count", 75, 50, 125), ("scene", 0, 0, 0))
    assert "existence" in summary.notes[0] and "count" not in summary.notes[0].split(": ")[1]
    suite.export(judged, tmp_path)
    assert (tmp_path / "mme" / "count.txt").read_text() == (
        f"0001.png\tIs it 0001? {ASK}\tYes\tYes\n"
        f"0001.png\tIs it 9? {ASK}\tNo\tNo\n"
        f"0002.jpg\tIs it 0002? {ASK}\tYes\tyes\n"
        f"0002.jpg\tIs it 9? {ASK}\tNo\tIt has not\n"
    )


def test_what_is_written_for_the_eval_tool_is_read_again(benchmark: Path, tmp_path: Path):
    suite = MmeSuite(SuiteOptions(benchmark))
    suite.export(judge_answers(suite, ["yes"] * 6), tmp_path)
    again = MmeSuite(SuiteOptions(tmp_path / "mme", images=benchmark))
    assert [i.wanted for i in again.items()] == [i.wanted for i in suite.items()]
    assert [i.request for i in again.items()] == [i.request for i in suite.items()]


def test_sums_need_all_tasks():
    scores = dict.fromkeys(PERCEPTION, 100.0)
    assert totals(scores) == {"perception": 1000}
    assert totals(scores | dict.fromkeys(COGNITION, 50.0)) == {"perception": 1000, "cognition": 200}
    assert totals({"count": 1.0}) == {}


def test_a_limit_takes_whole_pictures(benchmark: Path):
    suite = MmeSuite(SuiteOptions(benchmark, limit=1))
    assert [i.wanted["picture"] for i in suite.items()] == [
        "0001.png",
        "0001.png",
        "tt7.jpg",
        "tt7.jpg",
    ]


def test_errors_name_file_and_line(benchmark: Path, tmp_path: Path):
    path = benchmark / "count" / "0002.txt"

    def message(*lines: str) -> str:
        write_lines(path, *lines)
        with pytest.raises(ValueError) as caught:
            MmeSuite(SuiteOptions(benchmark))
        return str(caught.value)

    assert "0002.txt, line 1: 2 parts with tabs" in message("Is it?", "No?\tNo")
    assert "0002.txt, line 2: the answer must be Yes or No, not 'Perhaps'" in message(
        "A?\tYes", "B?\tPerhaps"
    )
    assert "count, 0002.jpg: a picture has 2 questions, and this has 1" in message("A?\tYes")
    assert "the question ('count', '0002.jpg', 'A?') is at" in message("A?\tYes", "A?\tNo")
    with pytest.raises(ValueError, match="holds no task of MME"):
        MmeSuite(SuiteOptions(tmp_path))
    write_lines(path, "A?\tYes", "B?\tNo")
    (benchmark / "count" / "0002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2|1 pictures are missing.*0002\.jpg"):
        MmeSuite(SuiteOptions(benchmark))


def test_an_error_is_no_answer_for_the_eval_tool(benchmark: Path, tmp_path: Path):
    suite = MmeSuite(SuiteOptions(benchmark))
    judged = [replace(failed(item), said="not enough memory") for item in suite.items()]
    suite.export(judged, tmp_path)
    lines = (tmp_path / "mme" / "scene.txt").read_text().splitlines()
    assert [line.split("\t")[3] for line in lines] == ["", ""]
