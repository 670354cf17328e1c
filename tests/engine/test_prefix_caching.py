from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.engine.tiny import (
    IMAGE,
    TEXT,
    TinyModel,
    caption,
    drawing,
    engine,
    finals,
    finish,
    finished_ids,
    vectors,
)
from unitok_engine import (
    Branch,
    Embeddings,
    Engine,
    FixedPlan,
    FreePlan,
    Request,
    Sampling,
)

BLOCK = 4  # of `engine`
PROMPT = tuple(range(2, 15))  # three full blocks and one id


def text(ids: tuple[int, ...] = PROMPT, max_tokens: int = 5, **branch) -> Request:
    return Request((Branch(ids, **branch),), FreePlan(TEXT, frozenset(), max_tokens))


def picture(digest: str, seed: int, start: int = 1) -> Embeddings:
    return Embeddings(start, 6, digest, lambda: vectors(seed, 6))


def watched(machine: Engine) -> list[tuple[int, ...]]:
    """The query lengths of every batch that will run."""
    seen: list[tuple[int, ...]] = []
    run = machine.runner.run

    def spy(batch):
        seen.append(batch.attention.query_lengths)
        return run(batch)

    machine.runner.run = spy
    return seen


def test_a_prompt_that_was_computed_is_found_again_but_for_its_partial_block():
    machine = engine()
    first = finished_ids(machine, [text()])
    seen = watched(machine)
    assert finished_ids(machine, [text()]) == first
    assert seen[0] == (1,)
    longer = text((*PROMPT, 30, 31, 32))
    assert finished_ids(machine, [longer]) == finished_ids(engine(), [longer])
    assert machine.stats.cached_tokens == 12 + 12


def test_a_full_hit_recomputes_one_id_in_a_block_of_its_own():
    whole = text(PROMPT[:12])
    machine = engine()
    expected = finished_ids(engine(), [whole])[0]
    seen = watched(machine)
    assert finished_ids(machine, [whole, whole, whole]) == [expected] * 3
    assert seen[0] == (12,)  # the other two wait for what the first one computes
    assert seen[1] == (1, 1, 1)
    assert machine.stats.free_blocks == 400


def test_what_was_emitted_is_found_by_the_next_turn():
    machine = engine()
    (answer,) = finished_ids(machine, [text(max_tokens=10)])
    turn = text((*PROMPT, *answer, 20, 21))
    seen = watched(machine)
    assert finished_ids(machine, [turn]) == finished_ids(engine(), [turn])
    # The last id of the answer was never fed: 22 are cached, so 20 lie in full blocks.
    assert seen[0] == (25 - 20,)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (text(), text((3, *PROMPT[1:]))),
        (text(), text(first_position=1)),
        (text(embeddings=(picture("cat", 1),)), text(embeddings=(picture("dog", 2),))),
        (text(embeddings=(picture("cat", 1),)), text()),
        (text(embeddings=(picture("cat", 1),)), text(embeddings=(picture("cat", 1, start=2),))),
    ],
    ids=["ids", "position", "picture", "no picture", "place"],
)
def test_lines_that_differ_share_nothing(one: Request, other: Request):
    machine = engine()
    finish(machine, [one])
    seen = watched(machine)
    assert finished_ids(machine, [other]) == finished_ids(engine(), [other])
    assert seen[0] == (13,)


def test_blocks_before_a_picture_are_shared_whatever_it_shows():
    cat, dog = (text(embeddings=(picture(name, i, start=4),)) for i, name in enumerate("cd"))
    machine = engine()
    finish(machine, [cat])
    seen = watched(machine)
    assert finished_ids(machine, [dog]) == finished_ids(engine(), [dog])
    assert seen[0] == (13 - 4,)  # the first block ends where the picture begins


def test_a_picture_that_was_read_is_not_read_again():
    calls = []

    def compute() -> Tensor:
        calls.append(1)
        return vectors(3, 6)

    request = text(embeddings=(Embeddings(1, 6, "cat", compute),))
    machine = engine()
    first = finished_ids(machine, [request])
    assert finished_ids(machine, [request]) == first
    assert len(calls) == 1


def test_pads_of_equal_length_are_computed_once_for_all_prompts():
    def guided(seed: int) -> Request:
        prompt = tuple((seed + i) % 37 + 2 for i in range(13))
        pads = (0, *[1] * 11, 5)
        branches = (Branch(prompt, 3.0), Branch(pads, -2.0))
        return Request(branches, FixedPlan(IMAGE, 6), Sampling(seed=seed))

    requests = [guided(7 * seed) for seed in range(5)]
    machine = engine()
    assert finished_ids(machine, requests) == [finished_ids(engine(), [r])[0] for r in requests]
    assert machine.stats.cached_tokens == 4 * 12
    plain = engine(prefix_caching=False)
    assert finished_ids(plain, requests) == finished_ids(engine(), requests)
    assert (plain.stats.cached_tokens, plain.stats.cached_blocks) == (0, 0)


@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("length", [11, 12, 13])
def test_samples_of_a_request_share_its_prompt(caching: bool, length: int):
    request = text(PROMPT[:length])
    request = replace(request, n=5, sampling=Sampling(seed=3))
    machine = engine(prefix_caching=caching)
    seen = watched(machine)
    used = []
    run = machine.runner.run
    machine.runner.run = lambda batch: (used.append(machine.stats.free_blocks), run(batch))[1]
    outputs = finished_ids(machine, [request])
    assert outputs == finished_ids(engine(prefix_caching=False), [request])
    assert len(set(outputs)) > 1
    assert seen[:2] == [(length,), (1,) * 5]
    # Each sample has a block or two of its own beside the prompt's full ones.
    assert 400 - used[1] <= length // BLOCK + 5 * 2
    assert machine.stats.free_blocks == 400


def test_samples_that_share_are_the_same_whether_preempted_or_short_of_blocks():
    requests = [drawing(1, n=4), replace(caption(2, max_tokens=20), n=3)]
    expected = finished_ids(engine(prefix_caching=False), requests)
    for caching in (True, False):
        hard = engine(preempt_every_step=True, max_batch_tokens=5, prefix_caching=caching)
        assert finished_ids(hard, requests) == expected
        small = engine(num_blocks=17, prefix_caching=caching)
        assert finished_ids(small, requests) == expected


def test_one_that_waits_for_a_prefix_goes_on_when_the_other_fails_or_ends():
    broken = Embeddings(8, 4, "gone", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    first, second = text(embeddings=(broken,)), text()
    machine = engine(max_batch_tokens=4)  # the broken one computes two blocks before it fails
    outputs = finish(machine, [first, second])
    assert [o.finish_reason for o in outputs] == ["error", "length"]
    assert outputs[1].token_ids == finished_ids(engine(), [second])[0]

    machine = engine(max_batch_tokens=4)
    leader = machine.add(text())
    follower = machine.add(text())
    outputs = machine.step()
    assert (machine.stats.running, machine.stats.waiting) == (1, 1)
    machine.abort(leader)
    while machine.has_work:
        outputs += machine.step()
    assert finals(outputs)[follower, 0].token_ids == outputs_of(second)


def outputs_of(request: Request) -> tuple[int, ...]:
    return finished_ids(engine(), [request])[0]


def test_blocks_are_kept_until_others_need_the_room():
    machine = engine(num_blocks=8)
    finish(machine, [text()])  # 17 cached ids, 4 full blocks
    assert (machine.stats.free_blocks, machine.stats.cached_blocks) == (8, 4)
    finish(machine, [text((9,) * 13, max_tokens=15)])  # 27 ids, 7 blocks
    seen = watched(machine)
    assert finished_ids(machine, [text()])[0] == outputs_of(text())
    assert seen[0] == (9,)  # three blocks had to go, those at the line's end first
    assert machine.stats.free_blocks == 8


def test_what_nothing_goes_on_behind_keeps_its_prompt_alone():
    machine = engine(num_blocks=9)
    finish(machine, [text()])
    for seed in range(3):  # each takes five blocks, of which its prompt fills one
        picture = replace(text((9, *PROMPT[:4]), max_tokens=12), continued=False)
        finish(machine, [replace(picture, sampling=Sampling(seed=seed))])
    assert (machine.stats.free_blocks, machine.stats.cached_blocks) == (9, 4 + 1)
    seen = watched(machine)
    assert finished_ids(machine, [text()])[0] == outputs_of(text())
    assert seen[0] == (1,)


@pytest.mark.parametrize("continued", [True, False])
def test_a_preempted_request_finds_its_own_blocks_again(continued: bool):
    requests = [
        replace(caption(seed, max_tokens=40, stop_ids=()), continued=continued) for seed in range(4)
    ]
    machine = engine(preempt_every_step=True)
    assert finished_ids(machine, requests) == finished_ids(engine(), requests)
    stats = machine.stats
    assert stats.preemptions == 4 * 39
    assert stats.cached_tokens > 0.8 * stats.prompt_tokens


def test_what_a_line_of_nan_left_is_not_found_again():
    poison = Embeddings(0, 12, "nan", lambda: torch.full((12, 32), torch.nan))
    cured = Embeddings(0, 12, "nan", lambda: vectors(0, 12))
    machine = engine(TinyModel())
    sick, well = (text((2,) * 13, embeddings=(features,)) for features in (poison, cured))
    (output,) = finish(machine, [sick])
    assert output.finish_reason == "error"
    assert machine.stats.cached_blocks == 0
    assert finished_ids(machine, [well]) == finished_ids(engine(), [well])


def test_one_waits_for_a_prefix_that_an_older_one_computes_but_for_no_younger_ones():
    machine = engine(max_batch_tokens=8)
    p, q = PROMPT[:5], (*PROMPT[5:], 3, 2, 4, 6, 7)
    lines = (Branch(p, 2.0), Branch(q, -1.0))
    machine.add(text(p, max_tokens=9))
    both = machine.add(Request(lines, FixedPlan(IMAGE, 3)))
    machine.add(text(q, max_tokens=9))
    machine.step()  # the first one computes p; so the second waits, and the third goes ahead
    assert [s.request_id for s in machine._scheduler.running] == [0, 2]
    machine.step()
    assert (
        machine._scheduler._prefixes._computing
    )  # the third still computes the last full block of q
    machine.step()
    assert both in [s.request_id for s in machine._scheduler.running]
    while machine.has_work:
        machine.step()
    assert machine.stats.free_blocks == 400


def test_a_sample_copies_from_one_that_is_itself_about_to_be_copied():
    one = text(PROMPT[:5], max_tokens=9)
    machine = engine()
    finish(machine, [one])
    machine.add(replace(one, n=2))
    outputs = [output for _ in range(3) for output in machine.step()]
    for sequence in list(machine._scheduler.running):
        machine._scheduler._preempt(sequence)
    copies = []
    copy = machine._cache.copy
    machine._cache.copy = lambda pairs: (copies.append(pairs), copy(pairs))[1]
    while machine.has_work:
        outputs += machine.step()
    # The first sample, of 8 ids, is found in full; the second begins as its last block does.
    assert len({source for source, _ in copies[0]}) == 1 and len(copies[0]) == 2
    ids = [output.token_ids for _, output in sorted(finals(outputs).items())]
    assert ids == finished_ids(engine(prefix_caching=False), [replace(one, n=2)])


def test_blocks_that_are_found_are_not_counted_as_room_for_others():
    machine = engine(num_blocks=8)
    finish(machine, [text()])
    beside = Request((Branch((9,) * 13),), FixedPlan(IMAGE, 4))  # 4 blocks
    again = Request((Branch(PROMPT),), FixedPlan(IMAGE, 11))  # 6, of which 3 are found
    requests = [beside, again]
    assert finished_ids(machine, requests) == finished_ids(engine(), requests)
    assert machine.stats.free_blocks == 8
