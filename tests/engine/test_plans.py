"""What plans let come next, id by id."""

from collections.abc import Callable, Sequence

import pytest
import torch

from unitok_engine import Allow, FixedPlan, Force, FreePlan, GridPlan, IdRange, Plan, Stop

IMAGE = IdRange(10, 20)


def emitted_by(plan: Plan, sampled: Sequence[int]) -> tuple[list[int], Stop]:
    """All ids that a plan emits with these where it allows any, and how it ends."""
    emitted, left = [], list(sampled)
    while not isinstance(step := plan.next(emitted), Stop):
        if isinstance(step, Allow):
            assert (step.id_range, step.mask) == (IMAGE, None)
        emitted.append(step.id if isinstance(step, Force) else left.pop(0))
    assert left == []
    return emitted, step


@pytest.mark.parametrize(
    ("row_end", "closing", "expected"),
    [
        (None, (), [11, 12, 13, 14, 15, 16]),
        (5, (), [11, 12, 13, 5, 14, 15, 16, 5]),
        (None, (6,), [11, 12, 13, 14, 15, 16, 6]),
        (0, (0, 7), [11, 12, 13, 0, 14, 15, 16, 0, 0, 7]),
    ],
    ids=["plain", "row ends", "closing", "both, and id 0"],
)
def test_a_grid_is_its_rows_with_what_is_forced_between_and_behind_them(
    row_end: int | None, closing: tuple[int, ...], expected: list[int]
):
    plan = GridPlan(IMAGE, 2, 3, row_end, closing)
    assert emitted_by(plan, [11, 12, 13, 14, 15, 16]) == (expected, Stop("complete"))
    assert (plan.exact, plan.max_length) == (True, len(expected))
    assert plan.image_ids(expected) == [11, 12, 13, 14, 15, 16]


@pytest.mark.parametrize(
    ("row_end", "finished"),
    [(None, [0, 0, 0, 1, 1, 1, 2, 2]), (5, [0, 0, 0, 1, 1, 1, 1, 2, 2])],
    ids=["plain", "row ends"],
)
def test_a_row_is_finished_with_its_last_image_id(row_end: int | None, finished: list[int]):
    plan = GridPlan(IMAGE, 2, 3, row_end, closing=(6,))
    assert [plan.finished_rows(length) for length in range(len(finished))] == finished
    assert plan.row_length == (3 if row_end is None else 4)
    assert plan.finished_rows(plan.max_length) == 2


def test_the_smallest_plans_emit_one_id():
    for plan in (GridPlan(IMAGE, 1, 1), FixedPlan(IMAGE, 1), FreePlan(IMAGE, frozenset(), 1)):
        emitted, stop = emitted_by(plan, [13])
        assert emitted == [13] and stop.drop == 0
        assert plan.max_length == 1


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (-1, 3), (0, 0)])
def test_a_grid_without_rows_or_columns_is_refused(rows: int, columns: int):
    with pytest.raises(ValueError, match=f"rows and columns, not {rows} x {columns}"):
        GridPlan(IMAGE, rows, columns)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Stop("tired"), "the reason 'tired'"),  # type: ignore[arg-type]
        (lambda: Stop("stop", drop=2), "not the last 2"),
        (lambda: Stop("stop", drop=-1), "not the last -1"),
        (lambda: Allow(IMAGE, torch.ones(10)), "mask must be bool, not torch.float32"),
        (lambda: Allow(IMAGE, torch.ones(1, 10) > 0), r"mask must be \[10\], not \[1, 10\]"),
    ],
)
def test_what_no_engine_could_follow_is_refused(make: Callable[[], object], words: str):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("id", [IMAGE.start, IMAGE.stop - 1])
def test_the_first_and_the_last_id_of_a_range_may_end_a_text(id: int):
    plan = FreePlan(IMAGE, frozenset({id}), 5)
    assert plan.next([12, id]) == Stop("stop", drop=1)
    for outside in (IMAGE.start - 1, IMAGE.stop):
        with pytest.raises(ValueError, match=f"stop id {outside} lies outside"):
            FreePlan(IMAGE, frozenset({outside}), 5)
