"""Pictures of which some cells are known: these stay, and tell how well the others go with them."""

from collections.abc import Sequence as Seq
from dataclasses import replace

import pytest

from tests.engine.test_faults import everything_is_back
from tests.engine.tiny import IMAGE, TinyModel, caption, drawing, engine, finish
from unitok_engine import (
    Allow,
    Branch,
    DraftTable,
    DraftWidth,
    Engine,
    EngineConfig,
    Force,
    GridDrafter,
    GridPlan,
    Output,
    Request,
    Sampling,
    StepRecord,
    Stop,
    scheduler,
)
from unitok_engine.attention.cpu import MAX_QUERIES
from unitok_engine.embedding_store import EmbeddingStore
from unitok_engine.grid_drafter import PictureDrafter
from unitok_engine.sampler import SampledToken
from unitok_engine.scheduler import LONGEST_ROW
from unitok_engine.sequence import Sequence

ROWS, COLUMNS = 5, 6
PLAIN = GridPlan(IMAGE, ROWS, COLUMNS)
CLOSED = GridPlan(IMAGE, ROWS, COLUMNS, row_end=5, closing=(6, 7))
HOLE = tuple(row * COLUMNS + column for row in (1, 2, 3) for column in (2, 3))
KNOWN = tuple(
    None if cell in HOLE else IMAGE.start + cell * 7 % IMAGE.size for cell in range(ROWS * COLUMNS)
)
PLANS = [replace(plan, known=KNOWN) for plan in (PLAIN, CLOSED)]
SCORED = [replace(plan, scored=True) for plan in PLANS]
NAMES = ["rows follow on each other", "row ends"]


def request(plan: GridPlan, seed: int = 1, n: int = 1) -> Request:
    asked = replace(drawing(seed, n=n), plan=plan, logprobs=True, branch_logprobs=True)
    return replace(asked, sampling=Sampling(0.8, seed=seed))


def cells(output: Output, plan: GridPlan) -> list[int]:
    return plan.image_ids(output.token_ids)


# -- the plan


def test_known_cells_are_forced_and_the_others_sampled():
    for plan in PLANS:
        emitted: list[int] = []
        for id in KNOWN:
            step = plan.next(emitted)
            assert step == (Force(id) if id is not None else plan._allow)
            emitted.append(IMAGE.start if id is None else id)
            if plan.row_end is not None and plan.next(emitted) == Force(plan.row_end):
                emitted.append(plan.row_end)
        assert [id for id in plan.image_ids(emitted)] == [
            IMAGE.start if i is None else i for i in KNOWN
        ]


def test_only_what_lies_behind_the_first_free_cell_is_scored():
    plan, emitted = SCORED[0], [IMAGE.start if id is None else id for id in KNOWN]
    for cell, id in enumerate(KNOWN):
        step = plan.next(emitted[:cell])
        if id is None:
            assert isinstance(step, Allow) and step.given is None
        elif cell < HOLE[0]:
            assert step == Force(id)
        else:
            assert isinstance(step, Allow) and step.given == id
            assert step.allows(id) and not step.allows(IMAGE.start + (id - IMAGE.start + 1) % 32)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ((None, 41), "2 known cells are not one for each of 30"),
        ((None,) * 29 + (5,), "known id 5 lies outside the plan's id range"),
    ],
)
def test_known_cells_that_do_not_fit_are_refused(known: tuple[int | None, ...], message: str):
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, known=known)


def test_a_given_id_lies_in_the_range():
    with pytest.raises(ValueError, match="the given id 3 lies outside the id range"):
        Allow(IMAGE, given=3)


# -- in an engine


@pytest.mark.parametrize("plan", PLANS, ids=NAMES)
def test_known_cells_stay_and_take_no_step_of_their_own(plan: GridPlan):
    machine = engine()
    (output,) = finish(machine, [request(plan)])
    assert all(id in (None, made) for id, made in zip(KNOWN, cells(output, plan), strict=True))
    assert machine.stats.forwards == machine.stats.sampling_steps == len(HOLE)
    assert output.logprobs is not None
    told = plan.image_ids(output.logprobs)  # type: ignore[arg-type]
    assert [cell for cell, logprob in enumerate(told) if logprob] == list(HOLE)


@pytest.mark.parametrize("place", [0, 1], ids=NAMES)
def test_scoring_changes_no_cell_and_takes_one_step_more(place: int):
    plain, scored = engine(), engine()
    (expected,) = finish(plain, [request(PLANS[place])])
    (output,) = finish(scored, [request(SCORED[place])])
    assert output.token_ids == expected.token_ids
    assert scored.stats.forwards == plain.stats.forwards + 1


@pytest.mark.parametrize("place", [0, 1], ids=NAMES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_batch_tokens": 5},
        {"num_blocks": 24, "max_batch_tokens": 9},
        {"prefix_caching": False},
        {"preempt_every_step": True},
    ],
    ids=["plain", "small steps", "small pool", "no caching", "preempted at each step"],
)
def test_scores_are_those_of_the_whole_picture_alone_and_beside_others(options: dict, place: int):
    scored = [request(SCORED[place], seed, n=2) for seed in range(3)]
    machine = engine(**options)
    outputs = finish(machine, [*scored, caption(4), *map(request, PLANS)])
    everything_is_back(machine)
    alone = [output for one in scored for output in finish(engine(), [one])]
    whole = (PLAIN, CLOSED)[place]
    for number, (output, expected) in enumerate(zip(outputs, alone, strict=False)):
        assert output.token_ids == expected.token_ids
        rescored = replace(request(whole, number // 2), given=output.token_ids)
        (judged,) = finish(engine(), [rescored])
        check_scores(output, judged, whole)


def check_scores(output: Output, judged: Output, plan: GridPlan) -> None:
    for ours, theirs in (
        (output.logprobs, judged.logprobs),
        (output.branch_logprobs, judged.branch_logprobs),
    ):
        assert ours is not None and theirs is not None
        told, expected = (plan.image_ids(one)[HOLE[0] :] for one in (ours, theirs))  # type: ignore[arg-type]
        assert told == pytest.approx(expected, abs=1e-4)
        assert not any(plan.image_ids(ours)[: HOLE[0]])  # type: ignore[arg-type]


def test_a_step_makes_no_more_logits_of_known_cells_than_it_may(monkeypatch: pytest.MonkeyPatch):
    (expected,) = finish(engine(), [request(SCORED[0])])
    monkeypatch.setattr(scheduler, "_GIVEN_LOGITS", 3 * 2 * IMAGE.size)
    machine = engine()
    (output,) = finish(machine, [request(SCORED[0])])
    assert output.token_ids == expected.token_ids
    assert output.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert machine.stats.forwards > len(HOLE) + 1


def test_a_picture_that_is_known_as_a_whole_needs_no_step():
    known = tuple(id or IMAGE.start for id in KNOWN)
    machine = engine()
    (output,) = finish(machine, [request(replace(PLAIN, known=known))])
    assert output.token_ids == known and machine.stats.forwards == 0


class FourWide(DraftWidth):
    """Always takes three guesses, however they turn out."""

    def choose(self, drafted: int, others: int) -> int:
        return 4


@pytest.mark.parametrize("scored", [False, True], ids=["forced", "scored"])
@pytest.mark.parametrize("row_end", [None, 5], ids=NAMES)
def test_drafts_change_nothing_and_save_steps(row_end: int | None, scored: bool):
    config = EngineConfig(max_context=256, num_blocks=400)
    known = tuple(45 if cell % 3 == 1 else None for cell in range(64))
    plan = GridPlan(IMAGE, 8, 8, row_end, known=known, scored=scored)
    requests = [request(plan, seed, n=2) for seed in (1, 2)]
    plainly, drafter = Engine(TinyModel(), config), GridDrafter(width=FourWide())
    expected = finish(plainly, requests)
    for _ in range(3):
        machine = Engine(TinyModel(), config, drafter=drafter)
        for output, plain in zip(finish(machine, requests), expected, strict=True):
            assert output.token_ids == plain.token_ids
            assert output.logprobs == pytest.approx(plain.logprobs, abs=1e-4)
    assert machine.stats.accepted_tokens > plainly.stats.accepted_tokens
    assert machine.stats.forwards < 0.8 * plainly.stats.forwards


# -- the drafter


def test_a_decode_row_is_no_longer_than_what_attention_computes_token_by_token():
    assert LONGEST_ROW == MAX_QUERIES


def test_forced_cells_are_not_guessed_but_lie_between_guesses():
    plan = PLANS[1]
    drafter = GridDrafter().begin(request(plan))
    assert isinstance(drafter, PictureDrafter)
    drafter._table.learn(KNOWN[7], KNOWN[2], 50)
    drafter._table.learn(50, KNOWN[3], 51)
    drafter._table.learn(KNOWN[13], 50, 52)
    emitted = [*KNOWN[:6], 5, *KNOWN[6:8]]
    assert drafter.propose(emitted, 3) == [50, 51, 52]  # type: ignore[arg-type]
    drafter.sampled(emitted, [50, 51, 52], [50, 51, 52, 53])  # type: ignore[arg-type]
    assert drafter._table.get(52, 51) == 53


def test_scored_cells_are_no_guesses_and_nothing_is_learned_from_them():
    table = DraftTable()
    drafter = GridDrafter(table).begin(request(SCORED[0]))
    assert drafter is not None
    emitted = [id if id is not None else 50 for id in KNOWN[:9]]
    assert drafter.propose(emitted, 8) == [50] * 5  # cells 9, 14, 15, 20 and 21
    drafter.sampled(emitted, [50, 50, 50], [50, 50, 50, 51])
    learned = [(50, KNOWN[3]), (KNOWN[13], 50), (50, 50), (KNOWN[19], 50)]
    assert [table.get(*pair) for pair in learned] == [50, 50, 50, 51] and len(table) == 4


@pytest.mark.parametrize("place", [0, 1], ids=NAMES)
@pytest.mark.parametrize("drafts", [False, True], ids=["plain", "drafts"])
def test_given_tokens_count_as_no_guesses(drafts: bool, place: int):
    config = EngineConfig(max_context=256, num_blocks=400)
    drafter = GridDrafter(width=FourWide()) if drafts else None
    machine = Engine(TinyModel(), config, drafter=drafter)
    known = tuple(45 if cell % 3 == 1 else None for cell in range(ROWS * COLUMNS))
    finish(machine, [request(replace(SCORED[place], known=known), n=3)])
    stats = machine.stats
    assert stats.sampling_steps + stats.accepted_tokens == 3 * known.count(None)
    assert (stats.drafted_tokens > 0) == drafts


def test_of_a_run_of_given_tokens_all_are_drafted_or_none():
    known = tuple(None if cell in (0, 1, 5, 25) else 45 for cell in range(30))
    asked = request(replace(PLAIN, known=known, scored=True))
    sequence = Sequence(0, 0, 0, asked, EmbeddingStore(), (IMAGE,))
    sequence.advance()
    for most, drafts in ((0, []), (1, [50]), (4, [50]), (5, [50, 51, 45, 45, 45])):
        sequence.draft([50, 51, 52, 53], most)
        assert (sequence.drafts, sequence.guesses) == (drafts, [id for id in drafts if id != 45])
        assert len(sequence.targets) == len(drafts) + 1
    sequence.draft([50, 51, 52, 53], 24)
    assert sequence.drafts == [50, 51, 45, 45, 45]
    sequence.draft([50, 51, 52, 53], 29)  # the last given token is never fed
    assert sequence.drafts == [50, 51, 45, 45, 45, 52, *[45] * 19, 53, *[45] * 3]
    assert len(sequence.targets) == 30


class Rows:
    """Notes how many tokens each step runs, and in which rows."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.long: list[int] = []  # of all steps

    def stepped(self, record: StepRecord) -> None:
        self.tokens.append(record.tokens)
        self.long += [length for length in record.query_lengths if length > LONGEST_ROW]


@pytest.mark.parametrize("scored", [False, True], ids=["forced", "scored"])
@pytest.mark.parametrize("every", [99, 12], ids=["long runs", "short runs"])
@pytest.mark.parametrize("budget", [12, 64, 450])
def test_a_step_runs_no_more_known_cells_than_it_may(budget: int, every: int, scored: bool):
    known = tuple(None if cell % every == 0 else 45 for cell in range(100))
    plan = GridPlan(IMAGE, 10, 10, known=known, scored=scored)
    requests = [request(plan, seed) for seed in range(6)]
    config, rows = EngineConfig(max_context=256, num_blocks=800, max_batch_tokens=budget), Rows()
    outputs = finish(Engine(TinyModel(), config, rows), requests)
    branches = 2 * len(requests)
    assert max(rows.tokens) <= branches + budget * (1 if every == 99 else 2)
    alone = Rows()
    (first,) = finish(Engine(TinyModel(), config, alone), requests[:1])
    assert outputs[0].token_ids == first.token_ids
    assert sorted(rows.long) == sorted(6 * alone.long), "in the rows in which each runs alone"


class Wide(DraftWidth):
    """Always takes as many guesses as a row holds."""

    def choose(self, drafted: int, others: int) -> int:
        return LONGEST_ROW


def test_no_guess_makes_a_row_long_one_branch_of_which_waits_for_more_than_the_other():
    known = tuple(45 if 1 <= cell < 55 else None for cell in range(100))
    plan, config = (
        GridPlan(IMAGE, 10, 10, known=known),
        EngineConfig(max_batch_tokens=133),
    )  # 100 for a run
    plain, drafted = Rows(), Rows()
    (expected,) = finish(Engine(TinyModel(), config, plain), [request(plan)])
    drafter = GridDrafter(width=Wide())
    (output,) = finish(Engine(TinyModel(), config, drafted, drafter), [request(plan)])
    assert output.token_ids == expected.token_ids
    assert drafted.long == plain.long == [46, 54], "the rest of the second branch is a short row"
    assert len(drafted.tokens) < len(plain.tokens)


def test_no_sample_waits_because_of_its_guesses():
    oldest = tuple(45 if 9 <= cell < 99 else None for cell in range(100))  # a long run, later on
    short = tuple(None if cell % 5 == 0 else 45 for cell in range(100))
    plans = [GridPlan(IMAGE, 10, 10, known=known) for known in (oldest, short, ())]
    config = EngineConfig(max_context=256, num_blocks=800, max_batch_tokens=12)
    machine = Engine(TinyModel(), config, drafter=GridDrafter(width=FourWide()))
    free = [machine.add(request(plan)) for plan in plans][-1]
    told: list[bool] = []
    while machine.has_work:
        told.append(any(output.request_id == free for output in machine.step()))
    assert all(told[told.index(True) : len(told) - told[::-1].index(True)])


def test_a_plan_that_raises_behind_given_tokens_fails_alone():
    class Breaks:
        max_length, exact = 8, True

        def next(self, emitted: Seq[int]) -> Allow:
            if len(emitted) >= 4:
                raise ValueError("the plan is broken")
            return Allow(IMAGE, given=IMAGE.start)

    made = engine()
    broken, fine = replace(drawing(1), plan=Breaks()), drawing(2)
    first, second = finish(made, [broken, fine])
    assert first.finish_reason == "error" and "the plan is broken" in (first.error or "")
    assert second.finish_reason == "complete"
    everything_is_back(made)


def test_a_place_of_what_is_emitted_is_a_known_cell_or_not():
    for plan in PLANS:
        places = [place for place in range(plan.max_length) if plan.is_known(place)]
        cells = [place // plan.row_length * COLUMNS + place % plan.row_length for place in places]
        assert cells == [cell for cell in range(ROWS * COLUMNS) if cell not in HOLE]


def free_at(*cells: int, of: int) -> tuple[int | None, ...]:
    return tuple(None if cell in cells else 45 for cell in range(of))


def test_prefill_goes_on_beside_any_number_of_long_runs():
    known = free_at(*range(0, 320, 32), of=320)  # runs of 2 x 32 tokens, and so two in a step
    config = EngineConfig(max_context=512, num_blocks=4000, max_batch_tokens=128)
    machine = Engine(TinyModel(), config)
    for seed in range(12):
        machine.add(request(GridPlan(IMAGE, 10, 32, known=known), seed))
    for _ in range(8):
        machine.step()
    asked = machine.add(replace(caption(4), branches=(Branch(tuple([3, 7] * 30)),)))
    told = [{output.request_id for output in machine.step()} for _ in range(3)]
    assert asked in told[1], "32 tokens of its prompt run in each step"
    assert all(len(outputs) > 1 for outputs in told), "and runs go on"


def test_all_of_a_step_is_for_runs_if_nothing_else_waits():
    known, rows = free_at(0, 24, of=48), Rows()
    config = EngineConfig(max_context=512, num_blocks=800, max_batch_tokens=96)
    machine = Engine(TinyModel(), config, rows)
    finish(machine, [request(GridPlan(IMAGE, 2, 24, known=known), seed) for seed in range(4)])
    assert max(rows.tokens) == 96, "two runs of 2 x 24 tokens"


def test_runs_of_a_lower_priority_number_come_first():
    known = free_at(0, 24, 48, of=72)
    config = EngineConfig(max_context=512, num_blocks=4000, max_batch_tokens=64)
    machine = Engine(TinyModel(), config)
    plan = GridPlan(IMAGE, 3, 24, known=known)
    for seed in range(5):
        machine.add(replace(request(plan, seed), priority=1))
    urgent, ended = machine.add(request(plan, 9)), []
    while machine.has_work:
        ended += [output.request_id for output in machine.step() if output.finished]
    assert ended[0] == urgent and ended[1:] == sorted(ended[1:])


def test_given_tokens_are_taken_without_copying_those_before():
    lists: set[int] = set()

    class Watched(GridPlan):
        """Notes which list of drafts is there whenever it is asked."""

        def next(self, emitted: Seq[int]) -> Allow | Force | Stop:
            lists.add(id(sequence.drafts))
            return super().next(emitted)

    plan = Watched(IMAGE, 8, 8, known=free_at(0, of=64), scored=True)
    sequence = Sequence(0, 0, 0, request(plan), EmbeddingStore(), (IMAGE,))
    sequence.advance()
    sequence.emit(SampledToken(50))
    sequence.advance()
    drafts = sequence.drafts
    lists.clear()
    assert sequence.draft_given(99) and len(sequence.drafts) == 62
    assert len(lists) == 1 and len(sequence.targets) == 63
    assert drafts == [], "what others hold does not change"


def test_drafts_that_are_dropped_take_no_logits(monkeypatch: pytest.MonkeyPatch):
    """Those of the first do not fit into the budget; those of the second do."""
    plans = [
        GridPlan(IMAGE, 4, 32, known=free_at(*range(0, 128, d), of=128), scored=True)
        for d in (11, 4)
    ]
    monkeypatch.setattr(scheduler, "_GIVEN_LOGITS", 12 * 2 * IMAGE.size)
    machine = Engine(
        TinyModel(), EngineConfig(max_context=256, num_blocks=800, max_batch_tokens=12)
    )
    second = [machine.add(request(plan)) for plan in plans][-1]
    told: list[bool] = []
    while machine.has_work:
        told.append(any(output.request_id == second for output in machine.step()))
    assert all(told[told.index(True) : len(told) - told[::-1].index(True)])
