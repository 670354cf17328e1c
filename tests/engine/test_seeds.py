"""A sample with a seed of its own emits what a request with this seed emits."""

from dataclasses import replace

import pytest

from tests.engine.tiny import TinyModel, caption, drawing, engine, finish, finished_ids
from unitok_engine import Request, Sampling

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
