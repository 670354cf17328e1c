"""The time that previews may take, by a clock that tests set, and who keeps to it."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from unitok.image_decoder import DecodeJob, ImageDecoder
from unitok.preview_budget import PreviewBudget, PreviewCost

CPU = torch.device("cpu")


class Clock:
    """Tells a time that stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Brush:
    """Decodes one pixel per token, in a quarter of a second a picture."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.decoded = clock, []

    def __call__(self, ids: Sequence[Sequence[int]]) -> Tensor:
        self.decoded += [one[0] for one in ids]
        self.clock.now += 0.25 * len(ids)
        return torch.zeros(len(ids), 3, 1, len(ids[0]))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def brush(clock: Clock) -> Brush:
    return Brush(clock)


@pytest.fixture
def decoder(clock: Clock) -> ImageDecoder:
    return ImageDecoder(CPU, background=False, clock=clock)


def preview(decoder: ImageDecoder, brush: Brush, first: int, share: float | None) -> DecodeJob:
    """A preview of a drawing that begins now."""
    budget = PreviewBudget(decoder.preview_cost, share)
    return decoder.submit_preview(brush, (first, 0), budget)


# --- the budget ----------------------------------------------------------------------------------


def test_previews_take_their_share_of_the_other_time(clock: Clock):
    cost = PreviewCost(clock)
    budget = PreviewBudget(cost, 0.25)
    cost.note(1.0, tokens=10, previews=False)  # 0.1 s a token
    assert not budget.allows(10)
    clock.now += 3.9
    assert not budget.allows(10)
    clock.now += 0.2
    assert budget.allows(10) and not budget.allows(20)
    cost.note(1.0, tokens=10, previews=True)  # while the clock went on by 1
    clock.now += 1.0
    assert cost.spent == 1.0 and not budget.allows(10)
    clock.now += 4.0
    assert budget.allows(10)


def test_without_a_share_there_is_no_limit(clock: Clock):
    cost = PreviewCost(clock)
    cost.note(1e6, tokens=1, previews=True)
    assert PreviewBudget(cost, None).allows(1000)


def test_what_was_spent_before_a_drawing_does_not_count(clock: Clock):
    cost = PreviewCost(clock)
    cost.note(50.0, tokens=500, previews=True)
    budget = PreviewBudget(cost, 0.5)
    clock.now += 2.0
    assert budget.allows(10)


def test_the_first_preview_is_of_unknown_cost_and_free(clock: Clock):
    cost = PreviewCost(clock)
    assert not cost.is_known and cost.expected(1000) == 0
    cost.note(1.0, tokens=2, previews=False)
    assert cost.is_known and cost.expected(4) == 2.0
    assert PreviewBudget(PreviewCost(clock), 0.01).allows(1000)


# --- the image decoder ---------------------------------------------------------------------------


def test_a_preview_waits_until_it_can_be_afforded(decoder, brush, clock):
    first = preview(decoder, brush, 1, 0.1)
    decoder.work()  # its cost is not known yet
    assert first.picture.done()
    second = decoder.submit_preview(brush, (2, 0), first.budget)
    for _ in range(47):  # each step takes 0.1 s; two previews of 0.25 s need 5 s of other time
        clock.now += 0.1
        decoder.work()
        assert not second.picture.done()
    clock.now += 0.4
    decoder.work()
    assert second.picture.done() and decoder.preview_cost.spent == 0.5


def test_previews_of_all_drawings_together_take_no_more_than_their_share(decoder, brush, clock):
    """16 drawings that begin together, each of which would always like to have a preview."""
    budgets = [PreviewBudget(decoder.preview_cost, 0.1) for _ in range(16)]
    jobs = [decoder.submit_preview(brush, (i, 0), budget) for i, budget in enumerate(budgets)]
    start = clock.now
    for _ in range(1000):
        clock.now += 0.1
        decoder.work()
        for i, job in enumerate(jobs):
            if job.picture.done():
                jobs[i] = decoder.submit_preview(brush, (i, 0), budgets[i])
    spent = decoder.preview_cost.spent
    assert 0.09 < spent / (clock.now - start - spent) <= 0.1
    counts = [brush.decoded.count(i) for i in range(16)]
    assert max(counts) - min(counts) <= 1, "they take turns"


def test_finished_pictures_come_first(decoder, brush):
    job = preview(decoder, brush, 1, None)
    picture = decoder.submit(brush, (2, 0))
    decoder.work()
    assert picture.done() and not job.picture.done()
    decoder.work()
    assert job.picture.done()
    assert brush.decoded == [2, 1]


def test_a_preview_that_waits_takes_newer_tokens_and_keeps_its_turn(decoder, brush):
    jobs = [preview(decoder, brush, i, None) for i in (1, 2)]
    assert decoder.renew(jobs[0], (11, 0))
    decoder.work()
    assert brush.decoded == [11] and not decoder.renew(jobs[0], (12, 0))
    decoder.work()
    assert brush.decoded == [11, 2]


def test_one_that_may_not_begin_holds_up_no_other(decoder, brush, clock):
    decoder.preview_cost.note(1.0, tokens=1, previews=False)
    poor, rich = preview(decoder, brush, 1, 0.001), preview(decoder, brush, 2, 1.0)
    clock.now += 10.0
    decoder.work()
    assert rich.picture.done() and not poor.picture.done()


def test_a_preview_that_is_cancelled_is_never_decoded(decoder, brush):
    job = preview(decoder, brush, 1, None)
    decoder.cancel([job.picture])
    decoder.work()
    assert brush.decoded == [] and not decoder._previews
    assert not decoder.renew(job, (2, 0))


def test_previews_alone_give_no_reason_to_go_on(decoder, brush):
    """Or the driver's thread would turn in vain until one can be afforded."""
    preview(decoder, brush, 1, None)
    assert not decoder.has_work


def test_in_batches_previews_go_together_as_far_as_the_budget_goes_but_not_with_pictures(clock):
    decoder, brush = ImageDecoder(CPU, False, batched=True, clock=clock), Brush(clock)
    picture = decoder.submit(brush, (0, 0))
    decoder.work()
    budget = PreviewBudget(decoder.preview_cost, 0.5)
    jobs = [decoder.submit_preview(brush, (i, 0), budget) for i in range(1, 5)]
    decoder.work()
    clock.now += 1.6  # three of 0.25 s fit into 0.8 s
    decoder.work()
    assert [job.picture.done() for job in jobs] == [True, True, True, False]
    assert picture.done() and brush.decoded == [0, 1, 2, 3]


def test_a_thread_decodes_previews_too_and_sleeps_while_none_may_begin(clock):
    decoder, brush = ImageDecoder(CPU, background=True, clock=clock), Brush(clock)
    decoder.preview_cost.note(1.0, tokens=2, previews=False)
    job = preview(decoder, brush, 1, 0.5)
    decoder.work()
    assert decoder._worker is not None and not decoder._worker._threads
    clock.now += 3.0
    decoder.work()
    assert job.picture.result(60).shape == (1, 2, 3)
    decoder.close()
