"""A sample with a seed of its own emits what a request with this seed emits."""

from dataclasses import replace

import pytest

from tests.engine.tiny import IMAGE, TinyModel, caption, drawing, engine, finish, finished_ids
from unitok_engine import (
    Engine,
    EngineConfig,
    FixedPlan,
    GridDrafter,
    GridPlan,
    Request,
    Sampling,
)

MODEL = TinyModel()
SEEDS = (5, 6, 5, 2**64 - 1)


def single(request: Request, seed: int) -> Request:
    return replace(request, n=1, sampling=replace(request.sampling, seed=seed), seeds=())


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("request_", [drawing(1), caption(2, stop_ids=())], ids=["drawing", "text"])
def test_samples_with_seeds_of_their_own_emit_what_each_emits_alone(
    request_: Request, every_step: bool
):
    several = replace(request_, n=4, seeds=SEEDS)
    machine = engine(MODEL, num_blocks=60, preempt_every_step=every_step)
    together = finished_ids(machine, [several, caption(9)])[:4]
    assert together == [finished_ids(engine(MODEL), [single(request_, s)])[0] for s in SEEDS]
    assert together[0] == together[2] and len(set(together)) == 3


def test_one_seed_for_all_samples_differs_from_a_list_of_it():
    request = drawing(1, n=2)
    assert len(set(finished_ids(engine(MODEL), [request]))) == 2
    same = finished_ids(engine(MODEL), [replace(request, seeds=(1, 1))])
    assert same == finished_ids(engine(MODEL), [single(request, 1)]) * 2


def test_samples_are_told_apart_though_their_seeds_are_equal():
    outputs = finish(engine(MODEL), [replace(drawing(3), n=3, seeds=(4, 4, 4))])
    assert [output.sample for output in outputs] == [0, 1, 2]


def test_seeds_must_be_one_for_each_sample_and_fit_in_64_bits():
    with pytest.raises(ValueError, match="2 seeds are not one for each of 3 samples"):
        replace(drawing(1), n=3, seeds=(1, 2))
    with pytest.raises(ValueError, match="64 bits"):
        replace(drawing(1), n=2, seeds=(1, 2**64))
    with pytest.raises(ValueError, match="64 bits"):
        Sampling(seed=-(2**63) - 1)


def test_the_noise_of_a_sample_is_named_by_its_seed_and_number():
    request = drawing(8, n=3)
    assert [request.noise_of(i) for i in range(3)] == [(8, 0), (8, 1), (8, 2)]
    own = replace(request, seeds=(4, 9, 4))
    assert [own.noise_of(i) for i in range(3)] == [(4, 0), (9, 0), (4, 0)]


def test_the_tries_of_a_sample_have_its_seed_and_numbers_of_their_own():
    one = replace(drawing(8, n=3), tries=3)
    two = replace(drawing(1, n=6), tries=3, seeds=(8, 4) * 3)
    assert [two.noise_of(i) for i in (0, 2, 4)] == [one.noise_of(i) for i in range(3)]


def test_a_sample_with_a_plan_of_its_own_emits_what_it_emits_alone():
    plans = tuple(
        GridPlan(IMAGE, 3, 4, known=tuple(45 if cell % 5 == place else None for cell in range(12)))
        for place in range(3)
    )
    for drafter in (None, GridDrafter()):
        for tries in (1, 2):
            seeds, n = (4, 9, 4) * tries, 3 * tries
            request = replace(drawing(2, n=n), plans=plans * tries, seeds=seeds, tries=tries)
            machine = Engine(TinyModel(), EngineConfig(max_context=256), drafter=drafter)
            outputs = finish(machine, [request])
            for sample, plan in enumerate(plans):
                seed = Sampling(seed=seeds[sample])
                alone = replace(drawing(2, n=tries), plan=plan, sampling=seed, tries=tries)
                assert [output.token_ids for output in outputs[sample::3]] == [
                    output.token_ids for output in finish(engine(), [alone])
                ]


def test_plans_of_samples_are_checked():
    request = drawing(1, n=2, length=4)
    with pytest.raises(ValueError, match="1 plans are not one for each of 2 samples"):
        replace(request, plans=(request.plan,))
    long = replace(request, plans=(request.plan, FixedPlan(IMAGE, 1000)))
    assert long.max_length == 1000
    with pytest.raises(ValueError, match="exceed max_context"):
        engine().add(long)
