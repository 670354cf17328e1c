"""The report: one file that shows what is right and wrong, whatever users wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tests.evaluation.colours import Colourist, ColourSuite
from unitok.evaluation.comparison import comparison, differences, read_runs, to_json
from unitok.evaluation.finishing import REPORT, SCORES, finish_run
from unitok.evaluation.journal import JOURNAL, read_journal
from unitok.evaluation.markup import element, page, table
from unitok.evaluation.plots import bins
from unitok.evaluation.report import worst_cases
from unitok.evaluation.run import Run
from unitok.evaluation.suite import Item, Judgement, Summary, Table, judgement
from unitok.evaluation.thumbnails import Thumbnails
from unitok.requests import Draw

Make = Callable[..., Run]
EVIL = "<script>alert('&')</script>"


class Balance(HTMLParser):
    """Checks that elements are closed in order, and collects what a page refers to."""

    VOID = ("img", "meta", "line", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(text: str) -> Balance:
    balance = Balance()
    balance.feed(text)
    balance.close()
    assert balance.open == []
    return balance


def ended(run: Run, model: Colourist) -> str:
    list(run.outcomes(model))
    finish_run(run, {"device": "easel"})
    return (run.folder / REPORT).read_text(encoding="utf-8")


def test_a_report_shows_scores_samples_and_what_went_wrong(make_run: Make):
    text = ended(make_run(), Colourist(wrong=["red"], fails=["blue"]))
    found = parsed(text)
    assert {"svg", "table", "figure", "img", "details"} <= found.tags
    for words in ("8 items, of which 2 failed", "another colour", "out of paint", "easel", "d0"):
        assert words in text
    low, high = re.findall(r"([\d.]+)%\xa0to\xa0([\d.]+)%", text)[0]
    assert (low, high) == ("15.0", "85.0")  # Wilson's of 2 of 4


def test_a_report_needs_nothing_beside_it(make_run: Make):
    found = parsed(ended(make_run(), Colourist()))
    assert found.addresses and all(a.startswith("data:image/") for a in found.addresses)
    assert not {"script", "link", "iframe"} & found.tags


def test_text_of_users_and_models_is_escaped(make_run: Make):
    class Evil(ColourSuite):
        name = EVIL

        def items(self):
            return [Item("a", EVIL, Draw(EVIL, seed=1), [EVIL, "x"])]

        def judge(self, item, result):
            return judgement(item, False, EVIL)

        def summary(self, judged):
            return Summary({EVIL: 1.0}, [Table(EVIL, (EVIL,), ((EVIL,),))], [EVIL])

    class Any(Colourist):
        def colour_of(self, request):
            return "red"

    run = make_run("evil", Evil(), model=EVIL, options={EVIL: EVIL})
    text = ended(run, Any())
    assert "script" not in parsed(text).tags and "<script" not in text
    assert text.count("&lt;script&gt;") >= 10
    list(make_run("evil2", Evil(), model=EVIL + "2").outcomes(Any()))
    finish_run(make_run("evil2", Evil(), model=EVIL + "2"), {})
    runs = read_runs([run.folder, run.folder.with_name("evil2")])
    assert "<script" not in comparison(runs)


def test_the_values_of_attributes_are_escaped():
    assert element("p", "<", title='"><b>') == '<p title="&quot;&gt;&lt;b&gt;">&lt;</p>'
    assert "\ud800" not in page("half \ud800", "half \ud800")


def test_a_table_leaves_out_columns_that_hold_nothing():
    shown = table(("a", "b", "c"), [("x", None, 1), ("y", None, 2)])
    assert "b</th>" not in shown and shown.count("<td") == 4


def test_the_worst_of_each_group_come_first():
    def one(key: str, group: str, ok: bool | None, score=None, error=None) -> Judgement:
        return Judgement(key, group, ok, score, error=error)

    judged = [
        one("a1", "a", False),
        one("a2", "a", False),
        one("a3", "a", False, error="no"),
        one("b1", "b", None, 3.0),
        one("b2", "b", None, 1.0),
        one("c1", "c", True),
    ]
    assert [j.key for j in worst_cases(judged)] == ["a3", "b2", "a1", "b1", "a2"]


def test_every_value_is_in_a_bin():
    assert sum(bins([0.0, 0.5, 1.0, 1.0])) == 4 and bins([0.0, 1.0])[-1] == 1
    assert bins([2.0, 2.0])[0] == 2


def test_pictures_stop_when_the_page_is_full():
    thumbnails = Thumbnails(budget=100)
    image = Image.effect_noise((300, 200), 90).convert("RGB")
    assert "data:image/jpeg" in thumbnails.picture(image, "noise")
    assert "left out" in thumbnails.picture(image, "noise") and thumbnails.left_out == 1


def test_a_picture_that_is_gone_leaves_a_note(tmp_path: Path):
    assert "no such file" in Thumbnails().picture(tmp_path / "gone.png", "gone")


# --- several runs --------------------------------------------------------------------------------


@pytest.fixture
def two(make_run: Make) -> list[Path]:
    """Two runs: the second draws red wrong, the first blue and yellow."""
    for name, wrong in (("one", ["blue", "yellow"]), ("two", ["red"])):
        ended(make_run(name, model=name), Colourist(wrong=wrong))
    return [make_run(name, model=name).folder for name in ("one", "two")]


def test_runs_are_compared_item_by_item(two: list[Path]):
    found = {d.group: d for d in differences(*read_runs(two))}
    one = found["draw"]
    assert (one.count, one.first, one.other, one.delta) == (4, 0.5, 0.75, 0.25)
    # The differences are -1, 0, 1, 1: mean 1/4, variance 11/12.
    assert (one.low, one.high) == pytest.approx((-0.68828, 1.18828), abs=1e-4)
    assert found["all"].count == 8


def test_the_same_prompts_stand_beside_each_other(two: list[Path]):
    text = comparison(read_runs(two))
    found = parsed(text)
    assert sum(a.startswith("data:image/png") for a in found.addresses) == 8
    assert "0.75 (+0.2500)" in text and "two against one" in text


def test_a_comparison_is_for_machines_too(two: list[Path]):
    made = to_json(read_runs(two))
    assert [run["scores"]["draw"] for run in made["runs"]] == [0.5, 0.75]
    assert made["differences"][0]["groups"][0]["group"] == "draw"


def test_runs_of_one_model_are_named_by_their_folders(make_run: Make):
    for name in ("one", "two"):
        ended(make_run(name), Colourist())
    runs = read_runs([make_run(name).folder for name in ("one", "two")])
    assert [run.name for run in runs] == [f"colourist ({run.folder})" for run in runs]


def test_what_cannot_be_compared_is_refused(two: list[Path], make_run: Make, tmp_path: Path):
    other = make_run("other", ColourSuite(seed=5))
    ended(other, Colourist())
    with pytest.raises(ValueError, match=r"did not ask the same .*: seed is 5 there and 0 here"):
        read_runs([two[0], other.folder])
    with pytest.raises(ValueError, match="at least two"):
        read_runs(two[:1])
    with pytest.raises(FileNotFoundError, match=r"has no journal\.jsonl"):
        read_runs([two[0], tmp_path])
    (two[1] / SCORES).unlink()
    with pytest.raises(ValueError, match="is not finished"):
        read_runs(two)
    (two[1] / JOURNAL).write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_journal(two[1])


class Scored(ColourSuite):
    """Drawings that are not judged one by one, in a group of an unlucky name."""

    def judge(self, item, result):
        one = judgement(item, None, "", 1.0 if item.key == "d0" else None)
        return replace(one, group="all" if item.key == "d0" else item.group)


def test_items_that_nothing_judges_have_no_differences(make_run: Make):
    folders = [make_run(name, Scored(3, 0), model=name).folder for name in ("one", "two")]
    for name in ("one", "two"):
        ended(make_run(name, Scored(3, 0), model=name), Colourist())
    runs = read_runs(folders)
    found = differences(*runs)
    assert [(d.group, d.count) for d in found] == [("all", 1), ("all", 1)]
    assert comparison(runs).count('class="pair"') == 3


def test_scores_that_are_no_json_are_named(two: list[Path]):
    (two[1] / SCORES).write_text("{")
    with pytest.raises(ValueError, match=r"scores\.json: not JSON.*; remove it"):
        read_runs(two)


def test_long_texts_do_not_fill_the_page(make_run: Make):
    class Talker(ColourSuite):
        def judge(self, item, result):
            return replace(judgement(item, False, "a" * 500_000), wanted=["b" * 500_000])

    text = ended(make_run(suite=Talker()), Colourist())
    assert len(text) < 500_000
    assert "... (500,000 characters)" in text
