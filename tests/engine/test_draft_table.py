"""What stands between two neighbours is learned by votes, within bounds."""

from random import Random

import pytest

from unitok_engine import DraftTable


def test_an_empty_table_knows_nothing():
    table = DraftTable()
    assert (len(table), table.get(1, 2), table.get(None, None)) == (0, None, None)


def test_the_token_that_mostly_stands_there_is_known():
    table = DraftTable()
    for token in (7, 7, 9, 7):
        table.learn(1, 2, token)
    assert table.get(1, 2) == 7


def test_a_new_habit_takes_the_place_of_an_old_one():
    table = DraftTable()
    for token in [7] * 1000 + [9] * 20:
        table.learn(1, 2, token)
    assert table.get(1, 2) == 9


def test_a_token_without_votes_is_still_the_best_guess_until_another_comes():
    table = DraftTable()
    table.learn(1, 2, 7)
    table.learn(1, 2, 8)
    assert table.get(1, 2) == 7
    table.learn(1, 2, 8)
    assert table.get(1, 2) == 8


def test_edges_left_and_above_are_told_apart():
    table = DraftTable()
    places = [(0, 1), (1, 0), (None, 0), (0, None), (None, None), (0, 0)]
    for token, (left, above) in enumerate(places):
        table.learn(left, above, token)
    assert [table.get(left, above) for left, above in places] == list(range(6))


def test_a_full_table_forgets_what_it_saw_least():
    table = DraftTable(capacity=10)
    for left in range(100):
        table.learn(500, 500, 1)
        table.learn(left, 0, 2)
        assert len(table) <= 10
    assert table.get(99, 0) == 2 and table.get(0, 0) is None
    assert table.get(500, 500) == 1


def test_a_table_of_frequent_pairs_alone_has_room_for_another():
    table = DraftTable(capacity=4)
    for left in range(4):
        for _ in range(40):
            table.learn(left, 0, left)
    table.learn(9, 9, 9)
    assert table.get(9, 9) == 9 and len(table) <= 4


def test_entries_restore_a_table():
    random, table, other = Random(0), DraftTable(), DraftTable()
    for _ in range(300):
        table.learn(random.randrange(5), random.choice((None, 3)), random.randrange(3))
    other.restore(table.entries())
    assert sorted(other.entries()) == sorted(table.entries()) and len(other) == 10
    for learner in (table, other):
        learner.learn(0, 3, 4)
        learner.learn(0, 3, 4)
    assert sorted(other.entries()) == sorted(table.entries())


def test_a_smaller_table_takes_what_it_has_room_for():
    table, small = DraftTable(), DraftTable(capacity=5)
    for left in range(20):
        table.learn(left, 0, 1)
    small.restore(table.entries())
    assert 1 <= len(small) <= 5


def test_a_table_needs_room_for_a_pair():
    with pytest.raises(ValueError, match="capacity must be at least 1, not 0"):
        DraftTable(0)


def test_a_full_table_that_is_restored_again_keeps_all():
    table = DraftTable(2)
    for _ in range(2):
        table.restore([(1, 5, 1), (2, 6, 1)])
    assert len(table) == 2
