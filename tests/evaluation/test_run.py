"""A run: judged as it comes, kept in a journal, and continued where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice

import pytest

from tests.evaluation.colours import Colourist, ColourSuite
from unitok.evaluation.finishing import finish_run
from unitok.evaluation.journal import JOURNAL, Identity, read_journal, read_lines
from unitok.evaluation.run import MOST_FAILURES, Run, TooManyFailuresError, check_keys
from unitok.evaluation.suite import Item, judgement
from unitok.requests import Draw

Make = Callable[..., Run]


def test_every_item_is_asked_once_and_judged(make_run: Make):
    model, run = Colourist(wrong=["red"]), make_run()
    outcomes = list(run.outcomes(model))
    assert len(outcomes) == len(model.asked) == 8 and all(new for _, new in outcomes)
    judged = run.judged()
    assert [j.key for j in judged] == [item.key for item in run.items]
    assert [j.key for j in judged if not j.ok] == ["d0", "q0"]
    assert [j.said for j in judged[:2]] == ["another colour", "as wanted"]


def test_a_drawing_is_saved_before_its_line_and_named_in_it(make_run: Make):
    run = make_run()
    for judged, _ in run.outcomes(Colourist()):
        if judged.picture:
            assert (run.folder / judged.picture).is_file()
    assert sorted(p.name for p in (run.folder / "pictures").iterdir()) == [
        f"d{i}.png" for i in range(4)
    ]


def test_requests_are_taken_lazily(make_run: Make):
    model, run = Colourist(), make_run()
    outcomes = run.outcomes(model)
    list(islice(outcomes, 2))
    assert len(model.asked) == 2
    outcomes.close()


def test_the_seconds_of_all_items_add_up_to_the_time_of_the_run():
    from unitok.evaluation.run import run_items

    ticks = iter(range(0, 1000, 3))
    suite = ColourSuite(drawings=3, questions=0)
    judged = list(run_items(Colourist(), suite, suite.items(), lambda: float(next(ticks))))
    assert [one.judgement.seconds for one in judged] == [3, 3, 3]


def test_a_run_that_stopped_goes_on_and_ends_as_one_that_did_not(make_run: Make):
    whole, broken = make_run("whole"), make_run("broken")
    list(whole.outcomes(Colourist(wrong=["blue"])))
    first = Colourist(wrong=["blue"])
    outcomes = broken.outcomes(first)
    list(islice(outcomes, 3))
    outcomes.close()
    with (broken.folder / JOURNAL).open("ab") as journal:
        journal.write(b'{"key": "d3", "gro')  # what a kill leaves
    second = Colourist(wrong=["blue"])
    kept = [j.key for j, new in make_run("broken").outcomes(second) if not new]
    assert len(kept) == 3 and len(second.asked) == 5
    assert scores(whole) == scores(make_run("broken"))


def scores(run: Run) -> dict[str, object]:
    finished = finish_run(run, {}).to_json()
    return {name: value for name, value in finished.items() if name != "seconds"}


def test_an_ended_run_asks_nothing_again(make_run: Make):
    list(make_run().outcomes(Colourist()))
    again = Colourist()
    assert not any(new for _, new in make_run().outcomes(again))
    assert again.asked == []


def test_a_request_that_fails_is_wrong_and_named_and_the_run_goes_on(make_run: Make):
    run = make_run()
    outcomes = {j.key: j for j, _ in run.outcomes(Colourist(fails=["green"]))}
    assert len(outcomes) == 8
    assert (outcomes["d1"].ok, outcomes["d1"].error) == (False, "out of paint")
    finished = finish_run(run, {})
    assert finished.overall.failed == 2 and finished.summary.scores["draw"] == 0.75


def test_what_failed_is_asked_again_by_the_next_run(make_run: Make):
    list(make_run().outcomes(Colourist(fails=["green"])))
    model = Colourist()
    list(make_run().outcomes(model))
    assert len(model.asked) == 2
    assert all(judgement.ok for judgement in make_run().judged())


def test_many_failures_in_a_row_stop_the_run_with_the_reason(make_run: Make):
    suite, model = ColourSuite(drawings=200, questions=0), Colourist(fails=["red", "green"])
    list(make_run("mixed", suite).outcomes(model))  # never so many one after another
    broken = Colourist(fails=["red", "green", "blue", "yellow"])
    with pytest.raises(TooManyFailuresError, match=r"16 requests failed .*: out of paint"):
        list(make_run("broken", suite).outcomes(broken))
    assert len(read_journal(make_run("broken").folder)[1]) == MOST_FAILURES
    list(make_run("broken", suite).outcomes(Colourist()))
    assert all(judgement.ok for judgement in make_run("broken", suite).judged())


def test_what_a_suite_cannot_judge_is_wrong_and_named(make_run: Make):
    class Blind(ColourSuite):
        def judge(self, item, result):
            raise ValueError("too small")

    judged = [j for j, _ in make_run(suite=Blind(1, 0)).outcomes(Colourist())]
    assert [(j.ok, j.error) for j in judged] == [(False, "it cannot be judged: too small")]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "other"}, "the model is 'colourist' there and 'other' here"),
        ({"digest": "1" * 64}, "the digest of the model's files is"),
        ({"options": {"guidance": 2}}, "guidance is None there and 2 here"),
        ({"suite": ColourSuite(seed=7)}, "seed is 0 there and 7 here"),
        ({"suite": ColourSuite(drawings=3)}, "limit is 4 there and 3 here"),
    ],
)
def test_a_journal_of_another_run_is_refused_by_what_differs(make_run: Make, changed, words):
    list(make_run().outcomes(Colourist()))
    before = (make_run().folder / JOURNAL).read_bytes()
    with pytest.raises(ValueError, match=words):
        list(make_run(**changed).outcomes(Colourist()))
    assert (make_run().folder / JOURNAL).read_bytes() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{}\n", "line 2 is no judgement"),
        (b"[1]\n", "line 2 is no judgement"),
        (b"nonsense\n", "line 2 is no judgement"),
    ],
)
def test_a_damaged_line_is_named(make_run: Make, line: bytes, words: str):
    run = make_run()
    list(run.outcomes(Colourist()))
    lines = (run.folder / JOURNAL).read_bytes().splitlines(keepends=True)
    (run.folder / JOURNAL).write_bytes(b"".join([lines[0], line, *lines[2:]]))
    with pytest.raises(ValueError, match=words):
        list(make_run().outcomes(Colourist()))


def test_a_line_cannot_name_a_picture_elsewhere(make_run: Make):
    run = make_run()
    list(run.outcomes(Colourist()))
    path = run.folder / JOURNAL
    path.write_text(path.read_text().replace("pictures/d0.png", "pictures/../../secret.png"))
    with pytest.raises(ValueError, match="is no judgement"):
        list(make_run().outcomes(Colourist()))


def test_a_file_that_is_no_journal_is_refused(make_run: Make):
    run = make_run()
    run.folder.mkdir()
    (run.folder / JOURNAL).write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="is no journal of an evaluation"):
        list(run.outcomes(Colourist()))


def test_lost_pictures_are_told_and_drawn_again(make_run: Make):
    list(make_run().outcomes(Colourist()))
    (make_run().folder / "pictures" / "d2.png").unlink()
    model = Colourist()
    with pytest.warns(UserWarning, match=r"has lost pictures, .*: pictures/d2\.png"):
        list(make_run().outcomes(model))
    assert [request.prompt for request in model.asked] == ["blue"]


def test_extra_pictures_are_told(make_run: Make):
    run = make_run()
    list(run.outcomes(Colourist()))
    (run.folder / "pictures" / "mine.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"files of no item.*: pictures/mine\.png"):
        run.judged()


def test_two_runs_do_not_write_to_one_folder(make_run: Make):
    outcomes = make_run().outcomes(Colourist())
    next(outcomes)
    with pytest.raises(ValueError, match="another run is writing"):
        next(make_run().outcomes(Colourist()))
    outcomes.close()


def test_a_run_that_is_not_done_has_no_scores(make_run: Make):
    run = make_run()
    outcomes = run.outcomes(Colourist())
    next(outcomes)
    outcomes.close()
    with pytest.raises(ValueError, match="has no result for 7 items"):
        finish_run(run, {})


def test_scores_and_the_official_format_are_written(make_run: Make):
    run = make_run()
    list(run.outcomes(Colourist(wrong=["red"])))
    finish_run(run, {"device": "easel"})
    written = json.loads((run.folder / "scores.json").read_text())
    assert written["scores"] == {"draw": 0.75, "ask": 0.75}
    assert written["groups"]["draw"]["right"] == 3
    assert written["facts"] == {"device": "easel"}
    assert (run.folder / "official.txt").read_text().split() == [i.key for i in run.items]


@pytest.mark.parametrize("key", ["", "a/b", "../a", ".a", "a b", "ü", "a" * 200])
def test_a_key_that_cannot_name_a_file_is_refused(key: str):
    with pytest.raises(ValueError, match="cannot name a file"):
        check_keys([Item(key, "g", Draw("red"))])


def test_two_items_of_one_key_are_refused():
    with pytest.raises(ValueError, match="two items have the key 'a'"):
        check_keys([Item("a", "g", Draw("red")), Item("a", "g", Draw("blue"))])


def test_a_suite_without_items_is_refused():
    with pytest.raises(ValueError, match="nothing to ask"):
        check_keys([])


def test_runs_that_are_the_same_do_not_differ():
    own = Identity("s", "m", "d", {"seed": 1}, {})
    assert own.differences(own) == []


def test_a_setting_is_not_hidden_by_an_option_of_its_name():
    one = Identity("s", "m", "d", {"seed": 1}, {"seed": 5})
    other = Identity("s", "m", "d", {"seed": 2}, {"seed": 5})
    assert one.differences(other) == ["seed is 2 there and 1 here"]


def test_a_journal_of_another_run_keeps_even_its_half_written_line(make_run: Make):
    list(make_run().outcomes(Colourist()))
    with (make_run().folder / JOURNAL).open("ab") as journal:
        journal.write(b'{"key": "d3", "gro')
    before = (make_run().folder / JOURNAL).read_bytes()
    with pytest.raises(ValueError, match="is of another run"):
        list(make_run(model="other").outcomes(Colourist()))
    assert (make_run().folder / JOURNAL).read_bytes() == before
    list(make_run().outcomes(Colourist()))
    assert (make_run().folder / JOURNAL).read_bytes() == before[: before.rindex(b"\n") + 1]


def test_the_lines_of_a_journal_are_read_one_by_one(make_run: Make):
    list(make_run().outcomes(Colourist()))
    path = make_run().folder / JOURNAL
    lines = read_lines(path)
    end, first = next(lines)
    assert end == len(first)
    assert [place for place, _ in lines][-1] == path.stat().st_size


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error_of_its_item_alone(make_run: Make, score: float):
    class Dazed(ColourSuite):
        def judge(self, item, result):
            return judgement(item, None, "", score if item.key == "d0" else 1.0)

    run = make_run(suite=Dazed(2, 0))
    judged = [j for j, _ in run.outcomes(Colourist())]
    assert {j.key: j.error for j in judged} == {
        "d0": f"it cannot be judged: its score is {score}",
        "d1": None,
    }
