"""Waiting requests of a lower priority number come first; what runs goes on."""

from dataclasses import replace

import pytest

from tests.engine.test_faults import everything_is_back
from tests.engine.tiny import TinyModel, caption, drawing, engine, finals, finished_ids
from unitok_engine import Engine, Request

MODEL = TinyModel()


def asked(seed: int, priority: int, max_tokens: int = 4) -> Request:
    return replace(caption(seed, max_tokens, stop_ids=()), priority=priority)


def order_of_ends(machine: Engine) -> list[int]:
    """The ids of requests in the order in which their first samples end."""
    ended: list[int] = []
    while machine.has_work:
        ended += [output.request_id for output in machine.step() if output.finished]
    everything_is_back(machine)
    return list(dict.fromkeys(ended))


@pytest.mark.parametrize("share", [None, "one"])
def test_requests_of_a_lower_number_are_admitted_first_and_equal_ones_by_arrival(share: str | None):
    machine = engine(MODEL, max_running=1)
    for seed, priority in enumerate([5, 2, 0, 2, -1, 0]):
        machine.add(asked(seed, priority), share)
    assert order_of_ends(machine) == [4, 2, 5, 1, 3, 0]


def test_one_share_may_not_pull_its_later_requests_before_those_of_a_lower_number():
    """The second of a share finds its prefix being computed, so one looks past it."""
    machine = engine(MODEL, max_running=8, max_batch_tokens=4)
    first, second = asked(1, 0), asked(1, 0)
    machine.add(first, "one")
    machine.step()
    machine.add(second, "one")  # it waits for the prefix of the first
    late = machine.add(asked(2, 7), "one")
    other = machine.add(asked(3, 3), "other")
    seen: list[int] = []
    while machine.has_work:
        machine.step()
        running = {s.request_id for s in machine._scheduler.running}
        seen += [i for i in (late, other) if i in running and i not in seen]
    assert seen == [other, late]


def test_shares_are_fair_among_requests_of_one_number():
    machine = engine(MODEL, max_running=4, prefix_caching=False)
    for seed, (share, priority) in enumerate(
        [("a", 1), ("a", 1), ("a", 0), ("a", 0), ("a", 0), ("b", 0), ("c", 1)]
    ):
        machine.add(asked(seed, priority), share)
    machine.step()
    running = {(s.share, s.request_id) for s in machine._scheduler.running}
    assert running == {("a", 2), ("a", 3), ("a", 4), ("b", 5)}


def test_what_runs_is_not_preempted_for_a_request_of_a_lower_number():
    machine = engine(MODEL, max_running=2)
    slow = [machine.add(asked(seed, 9, max_tokens=12)) for seed in range(2)]
    outputs = [output for _ in range(3) for output in machine.step()]
    urgent = machine.add(asked(5, -9))
    while machine.stats.running_requests == 2 and urgent not in running(machine):
        outputs += machine.step()
    assert {output.request_id for output in outputs if output.finished} & set(slow)
    assert order_of_ends(machine)[-1] == urgent
    assert machine.stats.preemptions == 0


def running(machine: Engine) -> set[int]:
    return {sequence.request_id for sequence in machine._scheduler.running}


@pytest.mark.parametrize(("number", "begins"), [(0, True), (1, False)])
def test_a_small_share_takes_room_from_a_crowd_of_its_own_number_only(number: int, begins: bool):
    machine = engine(MODEL, max_running=8)
    machine.add(drawing(3, length=20, n=40), "crowd")
    for _ in range(4):
        machine.step()
    late = machine.add(asked(1, number))
    for _ in range(3):
        machine.step()
    assert (late in running(machine)) == begins
    assert (machine.stats.preemptions > 0) == begins


def test_when_the_pool_runs_dry_the_highest_number_is_preempted_first():
    alone = [finished_ids(engine(MODEL), [asked(seed, 0, 60)])[0] for seed in range(3)]
    for urgent in range(3):
        machine = engine(MODEL, num_blocks=30, prefix_caching=False)
        for seed in range(3):
            machine.add(asked(seed, 0 if seed == urgent else 1, max_tokens=60))
        outputs = []
        while machine.has_work:
            outputs += machine.step()
            waiting = [s.request_id for s in machine._scheduler.waiting]
            assert urgent not in waiting or machine.stats.running == 0
        assert machine.stats.preemptions > 0
        ended = finals(outputs)
        assert [ended[seed, 0].token_ids for seed in range(3)] == alone
        everything_is_back(machine)


def test_priorities_change_no_token():
    requests = [caption(1), drawing(2, n=3), caption(3), drawing(4)]
    plain = finished_ids(engine(MODEL), requests)
    ranked = [replace(r, priority=p) for r, p in zip(requests, (3, 1, 2, -4), strict=True)]
    for every_step in (False, True):
        machine = engine(MODEL, max_running=3, num_blocks=30, preempt_every_step=every_step)
        assert finished_ids(machine, ranked) == plain


def test_a_priority_that_is_no_whole_number_is_refused():
    with pytest.raises(TypeError):
        replace(caption(1), priority="high")  # type: ignore[arg-type]


def test_stats_count_requests_tokens_and_the_cache():
    machine = engine(MODEL, max_running=2)
    machine.add(replace(drawing(1, length=6), n=3), "one")
    machine.add(asked(7, 0), "one")
    machine.step()
    stats = machine.stats
    assert (stats.running_requests, stats.waiting_requests) == (1, 1)
    assert (stats.running, stats.waiting) == (1, 3)
    assert stats.used_blocks == stats.num_blocks - stats.free_blocks > 0
    outputs = []
    while machine.has_work:
        outputs += machine.step()
    stats = machine.stats
    assert (stats.running_requests, stats.waiting_requests, stats.used_blocks) == (0, 0, 0)
    assert stats.generated_tokens == 3 * 6 + 4
    assert stats.computed_tokens + stats.cached_tokens == stats.prompt_tokens
    assert 0 < stats.hit_rate == stats.cached_tokens / stats.prompt_tokens < 1
    assert engine(MODEL).stats.hit_rate == 0
