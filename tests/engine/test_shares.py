"""Shares get equally much: a lone request beside a crowd hardly waits, and nobody starves."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest

from tests.engine.test_faults import everything_is_back
from tests.engine.test_interrupts import lines_of
from tests.engine.tiny import IMAGE, TinyModel, caption, drawing, engine, finals, finished_ids
from unitok_engine import Branch, Engine, FixedPlan, Output, Request

MODEL = TinyModel()
CAPTION = caption(7, max_tokens=10, stop_ids=())
CROWDS = {
    "one request": [drawing(3, length=8, n=600)],
    "one share": [drawing(seed, length=8) for seed in range(600)],
}
ROOMS = {"lines": 4000, "blocks": 700}  # what runs out, with so many blocks


def ended(machine: Engine, outputs: list[Output]) -> dict[tuple[int, int], Output]:
    """Of all requests, once the engine has worked them off."""
    while machine.has_work:
        outputs += machine.step()
    everything_is_back(machine)
    return finals(outputs)


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("crowd", CROWDS)
def test_a_caption_beside_a_crowd_begins_within_three_steps(crowd: str, room: str):
    alone = engine(MODEL, num_blocks=ROOMS[room])
    for request in CROWDS[crowd]:
        alone.add(request, "crowd")
    expected = ended(alone, [])

    machine = engine(MODEL, num_blocks=ROOMS[room])
    for request in CROWDS[crowd]:
        machine.add(request, "crowd")
    outputs = [output for _ in range(5) for output in machine.step()]
    assert machine.stats.waiting > 300
    late = machine.add(CAPTION)
    three = [output for _ in range(3) for output in machine.step()]
    assert any(output.request_id == late for output in three)
    both = ended(machine, outputs + three)
    assert both.pop((late, 0)).token_ids == finished_ids(engine(MODEL), [CAPTION])[0]
    assert {key: o.token_ids for key, o in both.items()} == {
        key: o.token_ids for key, o in expected.items()
    }
    assert machine.stats.preemptions <= 2
    assert machine.stats.forwards <= 1.05 * alone.stats.forwards


@pytest.mark.parametrize("room", ROOMS)
def test_two_crowds_get_half_each(room: str):
    one, other = drawing(3, length=12, n=300), drawing(4, length=12, n=300)
    expected = [finished_ids(engine(MODEL, num_blocks=4000), [r]) for r in (one, other)]
    machine = engine(MODEL, num_blocks=ROOMS[room])
    machine.add(one, "one")
    outputs = [output for _ in range(4) for output in machine.step()]
    machine.add(other, "other")
    outputs += machine.step()  # the prompt of the other
    together = [machine.step() for _ in range(36)]
    emitted = Counter(output.request_id for step in together for output in step)
    assert 0.9 < emitted[0] / emitted[1] < 1.1
    outputs += chain.from_iterable(together)
    results = ended(machine, outputs)
    for request_id, ids in enumerate(expected):
        assert [results[request_id, sample].token_ids for sample in range(300)] == ids


def test_requests_of_one_share_come_by_arrival_and_shares_in_turn():
    machine = engine(MODEL, max_running=4, prefix_caching=False)
    for seed, share in enumerate("aaaabbc"):
        machine.add(caption(seed, 3, stop_ids=()), share)
    machine.step()
    running = [(s.share, s.request_id) for s in machine._scheduler.running]
    assert running == [("a", 0), ("a", 1), ("b", 4), ("c", 6)]


def test_a_share_without_a_hash_is_refused():
    machine = engine(MODEL)
    with pytest.raises(TypeError):
        machine.add(CAPTION, [])  # type: ignore[arg-type]
    everything_is_back(machine)


def test_captions_that_never_end_coming_starve_neither_a_crowd_nor_a_long_request():
    machine = engine(MODEL, num_blocks=40, max_running=12)
    crowd = machine.add(drawing(1, length=6, n=12), "crowd")
    long = machine.add(Request((Branch((3,) * 60),), FixedPlan(IMAGE, 60)))  # 30 of 40 blocks
    left = {(crowd, sample) for sample in range(12)} | {(long, 0)}
    for seed in range(2000):
        machine.add(caption(seed, max_tokens=12, stop_ids=()))
        left -= {(o.request_id, o.sample) for o in machine.step() if o.finished}
        if not left:
            return
    pytest.fail(f"{left} never ended")


def test_text_that_grows_takes_no_room_from_a_smaller_share():
    """A crowd of texts preempts its own, not the lone one that came last."""
    machine = engine(MODEL, num_blocks=60)
    for seed in range(30):
        machine.add(caption(seed, max_tokens=40, stop_ids=()), "crowd")
    outputs = [output for _ in range(6) for output in machine.step()]
    late = machine.add(caption(31, max_tokens=40, stop_ids=()))
    ids = []
    for step in range(43):
        new = machine.step()
        outputs += new
        ids += [i for o in new if o.request_id == late for i in o.token_ids]
        assert len(ids) >= step - 2
    assert len(ids) == 40
    assert machine.stats.preemptions > 5
    ended(machine, outputs)


@pytest.mark.parametrize("shares", ["one", "many"])
def test_a_step_costs_no_more_the_more_wait(shares: str):
    def lines_run(waiting: int) -> int:
        machine = engine(MODEL, max_running=8)
        if shares == "one":
            machine.add(replace(CAPTION, n=waiting))
        else:
            for seed in range(waiting):
                machine.add(replace(CAPTION, sampling=replace(CAPTION.sampling, seed=seed)))
        for _ in range(3):
            machine.step()
        assert machine.stats.waiting == waiting - 8
        seen: list[int] = []
        for _ in range(4):
            seen.append(len(lines_of(machine.step)))
        assert machine.stats.waiting == waiting - 8
        while machine.stats.waiting == waiting - 8:
            machine.step()
        return seen[0]

    assert lines_run(3000) <= 1.05 * lines_run(60)
