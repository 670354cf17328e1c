"""Guesses at a picture's tokens, from neighbours, from memory, and from what is usual."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.engine.tiny import IMAGE as TINY_IMAGE
from tests.engine.tiny import TinyModel, caption, drawing, finished_ids
from unitok_engine import (
    Branch,
    DraftTable,
    DraftWidth,
    Engine,
    EngineConfig,
    FixedPlan,
    FreePlan,
    GridDrafter,
    GridPlan,
    IdRange,
    Plan,
    Request,
    Sampling,
    StepRecord,
)
from unitok_engine.attention.cpu import MAX_QUERIES
from unitok_engine.draft_width import WIDTHS
from unitok_engine.grid_drafter import PROBE_EVERY, PictureDrafter

MODEL = TinyModel()
CONFIG = EngineConfig(max_context=256, num_blocks=400)

IMAGE = IdRange(10, 60)
PLAIN = GridPlan(IMAGE, rows=3, columns=4)
ROWS = GridPlan(IMAGE, rows=3, columns=4, row_end=5, closing=(6, 7))
GUIDED = (Branch((1, 2), 2.0), Branch((1,), -1.0))


def request(plan: Plan, branches: tuple[Branch, ...] = GUIDED, **options) -> Request:
    return Request(branches, plan, Sampling(**options))


def of(plan: GridPlan, table: DraftTable | None = None) -> PictureDrafter:
    drafter = GridDrafter(table).begin(request(plan))
    assert drafter is not None
    return drafter


def table_of(*known: tuple[int | None, int | None, int]) -> DraftTable:
    table = DraftTable()
    for left, above, token in known:
        table.learn(left, above, token)
    return table


def test_only_guided_grids_without_a_penalty_are_drafted():
    drafter = GridDrafter()
    assert drafter.begin(request(PLAIN)) is not None
    assert drafter.begin(request(PLAIN, (Branch((1, 2)),))) is None
    assert drafter.begin(request(PLAIN, repetition_penalty=1.2)) is None
    assert drafter.begin(request(FixedPlan(IMAGE, 12))) is None
    assert drafter.begin(request(FreePlan(IdRange(0, 60), frozenset(), 12))) is None


@pytest.mark.parametrize("plan", [PLAIN, ROWS], ids=["rows follow on each other", "row ends"])
def test_a_guess_is_what_mostly_stands_between_its_neighbours(plan: GridPlan):
    table = table_of((11, None, 12), (12, None, 13), (13, None, 14), (None, 11, 21), (21, 12, 22))
    assert of(plan, table).propose([11], 5) == [12, 13, 14, 21, 22]


def test_guesses_go_on_behind_a_forced_row_end():
    table = table_of((None, 11, 21), (21, 12, 22))
    drafter = of(ROWS, table)
    assert drafter.propose([11, 12, 13, 14, 5], 2) == [21, 22]
    assert drafter.propose([11, 12, 13, 14, 5, 21], 1) == [22]


@pytest.mark.parametrize("plan", [PLAIN, ROWS], ids=["rows follow on each other", "row ends"])
def test_nothing_is_guessed_behind_the_last_cell(plan: GridPlan):
    emitted = (
        [11, 12, 13, 14, 5] * 2 + [11, 12] if plan is ROWS else [11, 12, 13, 14] * 2 + [11, 12]
    )
    assert len(of(plan).propose(emitted, 16)) == 2
    assert of(plan).propose([*emitted, 13, 14], 16) == []


def test_what_is_unknown_is_the_most_frequent_token_of_the_picture():
    assert of(PLAIN).propose([11, 12, 12], 3) == [12, 12, 12]


def test_without_a_token_nothing_is_guessed():
    assert of(PLAIN, table_of((None, None, 11))).propose([], 4) == []


def test_no_more_is_proposed_than_may_run():
    assert of(PLAIN).propose([11], 0) == []
    assert of(PLAIN).propose([11], 1) == [11]


def test_a_token_sampled_behind_a_wrong_guess_is_remembered_while_its_neighbours_stay():
    drafter = of(PLAIN)
    assert drafter.propose([11, 12], 3) == [11, 11, 11]
    # Cell 2 is 15 instead of 11, so cell 3 was sampled behind another neighbour, cell 4 was not.
    drafter.sampled([11, 12], [11, 11, 11], [15, 16, 17, 18])
    guesses = drafter.propose([11, 12, 15], 3)
    assert guesses[0] != 16  # its left neighbour is no longer the guess of that step
    assert guesses[1] == 17  # it has no left neighbour, and the one above is the same
    assert guesses[2] != 18  # its left neighbour was guessed as 11 and is guessed as 17 now


def test_memory_goes_before_the_table():
    drafter = of(PLAIN, table_of((None, 11, 30)))
    drafter.sampled([11, 12], [11, 11], [15, 16, 17])
    assert drafter.propose([11, 12, 15], 2)[1] == 17


def test_only_what_is_emitted_is_learned():
    table = DraftTable()
    drafter = of(PLAIN, table)
    drafter.sampled([], [], [11])
    drafter.sampled([11], [12, 99, 14], [12, 13, 44, 45])
    assert table.get(None, None) == 11
    assert table.get(11, None) == 12
    assert table.get(12, None) == 13
    assert table.get(99, None) is None and len(table) == 3


@pytest.mark.parametrize("plan", [PLAIN, ROWS], ids=["rows follow on each other", "row ends"])
def test_what_was_painted_is_guessed_the_next_time(plan: GridPlan):
    table = DraftTable()
    picture = list(range(20, 32))
    forced = plan.row_end is not None
    paint(of(plan, table), picture, forced)
    assert of(plan, table).propose(picture[:1], 16) == picture[1:]


def paint(drafter: PictureDrafter, picture: Sequence[int], row_ends: bool) -> None:
    """Have a picture painted cell by cell."""
    emitted: list[int] = []
    for cell, token in enumerate(picture):
        drafter.sampled(emitted, [], [token])
        emitted.append(token)
        if row_ends and cell % 4 == 3:
            emitted.append(5)


def test_guesses_that_did_not_run_count_too_so_that_narrow_steps_know_when_to_widen():
    width = DraftWidth()
    drafter = PictureDrafter(GridPlan(IMAGE, rows=8, columns=8), DraftTable(), width)
    emitted, shares = [11], [width.acceptance]
    for token in [11] * 11 + [12, 13, 14, 15] * 4:
        assert drafter.propose(emitted, 0) == []
        drafter.sampled(emitted, [], [token])
        emitted.append(token)
        shares.append(width.acceptance)
    assert shares[0] < shares[11] > shares[-1]
    changes = sum(one != next for one, next in pairwise(shares))
    assert changes == (len(shares) - 1) // PROBE_EVERY, "one now and then is enough"


def test_guesses_behind_the_first_wrong_one_count_neither_way():
    class Log(DraftWidth):
        def note(self, tried: int, right: int) -> None:
            notes.append((tried, right))

    notes: list[tuple[int, int]] = []
    drafter = PictureDrafter(PLAIN, DraftTable(), Log())
    drafter.propose([11], 4)
    drafter.sampled([11], [11, 11, 11, 11], [11, 12, 11, 11, 11])
    drafter.propose([11, 11, 12], 3)
    drafter.sampled([11, 11, 12], [11, 11, 11], [11, 11, 11, 11])
    drafter.sampled([11, 11, 12, 11, 11, 11], [], [11])  # nothing was proposed
    assert notes == [(2, 1), (3, 3)]


# -- in an engine


class Steps:
    """Notes the longest row of each step."""

    def __init__(self) -> None:
        self.longest: list[int] = []

    def stepped(self, record: StepRecord) -> None:
        self.longest.append(record.query_lengths[-1])


def pictures(plan: Plan) -> list[Request]:
    return [replace(drawing(seed, n=2), plan=plan) for seed in range(3)]


@pytest.mark.parametrize("row_end", [None, 5], ids=["rows follow on each other", "row ends"])
def test_pictures_are_the_same_in_fewer_steps_once_the_like_was_painted(row_end: int | None):
    closing = () if row_end is None else (6, 7)
    plan = GridPlan(TINY_IMAGE, rows=4, columns=5, row_end=row_end, closing=closing)
    expected = finished_ids(Engine(MODEL, CONFIG), pictures(plan))
    table, steps = DraftTable(), Steps()
    assert (
        finished_ids(Engine(MODEL, CONFIG, drafter=GridDrafter(table)), pictures(plan)) == expected
    )
    machine = Engine(MODEL, CONFIG, steps, GridDrafter(table))
    assert finished_ids(machine, pictures(plan)) == expected
    tokens, stats = 6 * plan.rows * plan.columns, machine.stats
    assert stats.sampling_steps + stats.accepted_tokens == tokens
    assert stats.sampling_steps < 0.5 * tokens and stats.acceptance > 0.5
    assert 2 < max(steps.longest[1:]) <= max(WIDTHS) <= MAX_QUERIES


def test_a_picture_that_cannot_be_guessed_is_drawn_a_token_a_step():
    plan = GridPlan(TINY_IMAGE, rows=8, columns=8)
    steps, hopeless = Steps(), DraftWidth()
    hopeless.note(1000, 0)
    machine = Engine(MODEL, CONFIG, steps, GridDrafter(width=hopeless))
    finished_ids(machine, pictures(plan)[:1])
    assert set(steps.longest[1:]) == {1} and machine.stats.tokens_per_step == 1


def test_answers_run_beside_drafts_a_token_a_step():
    plan = GridPlan(TINY_IMAGE, rows=4, columns=5)
    requests = [*pictures(plan), caption(4, max_tokens=9)]
    expected = finished_ids(Engine(MODEL, CONFIG), requests)
    machine = Engine(MODEL, CONFIG, drafter=GridDrafter())
    for _ in range(2):
        assert finished_ids(machine, requests) == expected
    assert machine.stats.accepted_tokens > 0
