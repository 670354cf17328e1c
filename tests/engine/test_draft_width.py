"""The width of a step follows how often guesses are right, and how much runs beside them."""

import pytest

from unitok_engine import DraftWidth
from unitok_engine.draft_width import WIDTHS


def after(right: int, of: int, times: int = 400) -> DraftWidth:
    """A width that saw so many of so many guesses right, again and again."""
    width = DraftWidth()
    for _ in range(times):
        width.note(of, right)
    return width


def test_guesses_that_are_mostly_wrong_do_not_pay():
    assert after(right=0, of=1).choose(2, 0) == 1
    assert after(right=1, of=20).choose(2, 0) == 1


def test_one_picture_alone_takes_wide_steps_when_guesses_are_right():
    assert after(right=7, of=8).choose(2, 0) == 8
    assert after(right=19, of=20).choose(2, 0) == WIDTHS[-1]


def test_steps_get_narrower_with_each_row_that_runs_already():
    width = after(right=7, of=8)
    widths = [width.choose(rows, 0) for rows in (2, 8, 16, 32, 64, 128, 256)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == 8 and widths[-1] == 1


def test_rows_that_have_no_drafts_are_not_held_up_for_a_few_that_have():
    width = after(right=7, of=8)
    assert width.choose(2, 0) > width.choose(2, 200) >= 1
    assert after(right=1, of=4).choose(2, 200) == 1


def test_it_begins_with_drafts_for_one_picture_and_with_none_for_many():
    assert DraftWidth().choose(2, 0) == 8
    assert DraftWidth().choose(128, 0) == 1


def test_it_learns_a_change_within_a_few_hundred_guesses():
    width = after(right=1, of=1)
    for _ in range(600):
        width.note(1, 0)
    assert width.acceptance < 0.15 and width.choose(2, 0) == 1
    for _ in range(200):
        width.note(4, 4)
    assert width.acceptance > 0.9 and width.choose(2, 0) > 4


def test_nothing_noted_changes_nothing():
    width = DraftWidth()
    width.note(0, 0)
    assert width.acceptance == DraftWidth().acceptance


@pytest.mark.parametrize("free_rows", [1.0, 24.0, 1000.0])
def test_the_more_a_step_can_compute_while_it_reads_the_wider_it_is(free_rows: float):
    narrow, wide = DraftWidth(free_rows), DraftWidth(4 * free_rows)
    for rows in (2, 16, 64):
        assert narrow.choose(rows, 0) <= wide.choose(rows, 0)
