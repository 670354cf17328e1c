"""The store of responses: its limits, and what conversations share."""

from typing import Any

import pytest

from unitok.openai_wire.responses_input import Item
from unitok.server.errors import ApiError
from unitok.server.keys import Owner
from unitok.server.response_store import ResponseStore
from unitok.server.settings import ServerSettings

ANN, BOB = Owner("ann"), Owner("bob")


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def item(id: str, text: str = "") -> Item:
    part = {"type": "output_text", "text": text}
    return Item(id, {"type": "message", "role": "user", "content": [part]}, {})


def store(**limits: Any) -> ResponseStore:
    return ResponseStore(ServerSettings(**limits), Clock())


def add(kept: ResponseStore, owner: Owner, id: str, *read: Item, text: str = "") -> list[Item]:
    """Add a response, and give the items of its conversation."""
    kept.add(owner, {"id": id}, read, item(f"of {id}", text))
    return kept.find(owner, id).items


def ids(kept: ResponseStore, owner: Owner) -> list[str]:
    found = []
    for id in map(str, range(20)):
        try:
            found.append(kept.find(owner, id).id)
        except ApiError as error:
            assert (error.status, error.code) == (404, "response_not_found")
    return found


def test_the_oldest_of_a_key_makes_room():
    kept = store(max_responses_per_key=2)
    for id in "123":
        add(kept, ANN, id)
    add(kept, BOB, "4")
    assert (ids(kept, ANN), ids(kept, BOB), kept.count) == (["2", "3"], ["4"], 3)


def test_the_key_that_has_most_makes_room():
    kept = store(max_responses=3)
    add(kept, BOB, "0")
    for id in "123456":
        add(kept, ANN, id)
    assert (ids(kept, ANN), ids(kept, BOB)) == (["5", "6"], ["0"])


def test_bytes_are_counted_once_for_all_that_share_them():
    kept = store()
    first = add(kept, ANN, "1", item("a", "x" * 100_000))
    assert 100_000 < kept.size < 107_000
    add(kept, ANN, "2", *first, item("b"))
    assert 100_000 < kept.size < 112_000
    kept.remove(ANN, "1")
    assert kept.find(ANN, "2").items[0].body["content"][0]["text"] == "x" * 100_000
    assert kept.item(ANN, "of 1", "x").id == "of 1"
    kept.remove(ANN, "2")
    assert (kept.size, kept.count) == (0, 0)


def test_the_largest_key_makes_room_for_bytes():
    kept = store(max_response_bytes=350_000)
    add(kept, BOB, "0", text="x" * 50_000)
    for id in "123":
        add(kept, ANN, id, text="x" * 120_000)
    assert (ids(kept, ANN), ids(kept, BOB)) == (["2", "3"], ["0"])
    kept.add(ANN, {"id": "4"}, (), item("c", "x" * 900_000))  # which alone is too large
    assert (ids(kept, ANN), ids(kept, BOB)) == ([], ["0"])


def test_old_ones_are_dropped():
    clock = Clock()
    kept = ResponseStore(ServerSettings(keep_seconds=100), clock)
    add(kept, ANN, "1")
    clock.now = 60
    add(kept, BOB, "2")
    clock.now = 120
    assert (ids(kept, ANN), ids(kept, BOB)) == ([], ["2"])
    with pytest.raises(ApiError):
        kept.item(ANN, "of 1", "x")
    clock.now = 200
    add(kept, ANN, "3")
    assert (kept.count, ids(kept, BOB)) == (1, [])


def test_nothing_of_another_key_is_seen():
    kept = store()
    add(kept, ANN, "1")
    for ask in (
        lambda: kept.find(BOB, "1"),
        lambda: kept.remove(BOB, "1"),
        lambda: kept.item(BOB, "of 1", "input[0].id"),
    ):
        with pytest.raises(ApiError) as caught:
            ask()
        assert caught.value.status == 404
    assert ids(kept, ANN) == ["1"]
