import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.engine import reference
from tests.engine.tiny import Waits
from unitok_engine import IdRange, Sampling
from unitok_engine.noise import gumbel, hashed_uniform, noise_at, noise_key
from unitok_engine.sampler import (
    SampledToken,
    SamplingInput,
    choose,
    collect,
    cutoff,
    filtered,
    mix,
    sample,
)

# On a grid, so that shifting and scaling keep apart what differs.
LOGITS = st.lists(st.integers(-1280, 1280).map(lambda i: i / 64), min_size=2, max_size=12)
SEEDS = st.integers(-(2**63), 2**64 - 1)


def sampled(logits: Tensor, id_range: IdRange, inputs: list[SamplingInput]) -> list[SampledToken]:
    """Sample, and wait for it."""
    return collect([sample(logits, id_range, inputs)])


def pick(sampling: Sampling, index: int = 0, mask: Tensor | None = None) -> SamplingInput:
    return SamplingInput((1.0,), sampling, 0, index, mask)


def ids(logits: list[float], sampling: Sampling, count: int = 1, start: int = 0) -> list[int]:
    """`count` ids sampled from the same logits, one generated index after the other."""
    picks = [pick(sampling, index) for index in range(count)]
    rows = torch.tensor([logits]).expand(count, -1)
    return chosen(rows, IdRange(start, start + len(logits)), picks)


def chosen(rows: Tensor, id_range: IdRange, picks: list[SamplingInput]) -> list[int]:
    return choose(filtered(rows, picks), id_range, picks).tolist()


@given(logits=LOGITS, seed=SEEDS, top_k=st.integers(0, 5), start=st.integers(0, 1000))
def test_greedy_takes_the_best_id_whatever_the_seed(logits, seed, top_k, start):
    best = start + logits.index(max(logits))
    greedy = Sampling(temperature=0, top_k=top_k, seed=seed)
    assert ids(logits, greedy, start=start) == [best]
    # Beside a row that is sampled, a greedy row is still greedy.
    rows = torch.tensor([logits, logits])
    picks = [pick(greedy), pick(Sampling(seed=seed))]
    both = chosen(rows, IdRange(start, start + len(logits)), picks)
    assert logits[both[0] - start] == max(logits)


@given(logits=LOGITS, top_k=st.integers(1, 12), seed=SEEDS)
def test_top_k_takes_only_the_k_best(logits, top_k, seed):
    limit = sorted(logits, reverse=True)[min(top_k, len(logits)) - 1]
    sampling = Sampling(temperature=5, top_k=top_k, seed=seed)
    assert all(logits[id] >= limit for id in ids(logits, sampling, count=8))


@given(logits=LOGITS, top_p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_fewest_best_ids_that_reach_it(logits, top_p):
    scores = torch.tensor([logits])
    limit = float(cutoff(scores, [0], [top_p]))
    probabilities = scores.double().softmax(1)[0]
    above = float(probabilities[scores[0] > limit].sum())
    kept = float(probabilities[scores[0] >= limit].sum())
    assert above < top_p + 1e-5 and kept >= top_p - 1e-5


@given(logits=LOGITS, top_k=st.integers(1, 12), top_p=st.floats(0.01, 1))
def test_filters_keep_at_least_the_best_and_no_more_together_than_each_alone(logits, top_k, top_p):
    scores = torch.tensor([logits])
    both = float(cutoff(scores, [top_k], [top_p]))
    assert float(cutoff(scores, [top_k], [1.0])) <= both <= max(logits)


def test_filters_that_are_off_keep_everything():
    scores = torch.tensor([[0.0, -50.0, 3.0], [1.0, 2.0, -90.0]])
    assert cutoff(scores, [0, 0], [1.0, 1.0])[:, 0].tolist() == [-50.0, -90.0]


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, temperature=st.sampled_from([0.5, 1.0, 2.0]))
def test_ids_are_drawn_as_often_as_their_probability_says(seed, temperature):
    logits = [2.0, 1.0, 0.0, -1.0]
    count = 4000
    drawn = torch.tensor(ids(logits, Sampling(temperature=temperature, seed=seed), count))
    share = torch.bincount(drawn, minlength=4) / count
    expected = (torch.tensor(logits) / temperature).softmax(0)
    assert (share - expected).abs().max() < 0.045  # more than 5 standard deviations


def test_a_tiny_temperature_is_greedy_and_does_not_overflow():
    assert set(ids([1e30, 1.0, -1e30], Sampling(temperature=1e-30), count=9)) == {0}


@given(seeds=st.lists(SEEDS, min_size=2, max_size=5, unique=True))
@settings(max_examples=25, deadline=None)
def test_a_row_samples_the_same_alone_or_in_a_crowd(seeds):
    # Seeds count modulo 2**64: -1 and 2**64 - 1 are one seed, and one noise.
    rows = torch.randn(len(seeds), 50, generator=torch.Generator().manual_seed(0))
    samplings = [Sampling(seed=seed, top_k=i, top_p=1 - i / 10) for i, seed in enumerate(seeds)]
    picks = [pick(sampling, index=i) for i, sampling in enumerate(samplings)]
    id_range = IdRange(100, 150)
    alone = [chosen(rows[i : i + 1], id_range, [p])[0] for i, p in enumerate(picks)]
    assert chosen(rows, id_range, picks) == alone


@pytest.mark.parametrize("rows", [1, 2], ids=["alone", "two"])
@pytest.mark.parametrize("size", [5, 5000], ids=["few ids", "many ids"])
def test_noise_lies_where_the_scores_do(rows: int, size: int):
    id_range, places = IdRange(0, size), [(3, 0, 7)] * rows
    assert noise_at(places, id_range, torch.device("meta")).is_meta
    drawn = choose(torch.empty(rows, size, device="meta"), id_range, [pick(Sampling())] * rows)
    assert (drawn.shape, drawn.is_meta) == ((rows,), True)


def test_noise_belongs_to_the_id_and_not_to_its_place_in_the_range():
    keys = torch.tensor([noise_key(3, 0, 7)])
    wide, narrow = gumbel(keys, IdRange(0, 100)), gumbel(keys, IdRange(40, 60))
    assert torch.equal(wide[:, 40:60], narrow)


def test_noise_is_uniform_before_and_gumbel_after_and_never_0_or_1():
    keys = torch.tensor([noise_key(seed, 0, index) for seed in range(20) for index in range(20)])
    uniform = hashed_uniform(keys, IdRange(0, 1000))
    assert uniform.min() > 0 and uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=3e-3)
    assert uniform.var() == pytest.approx(1 / 12, abs=1e-3)
    noise = gumbel(keys, IdRange(0, 1000))
    assert noise.isfinite().all()
    assert noise.mean() == pytest.approx(0.5772, abs=0.01)
    assert noise.neg().exp().mean() == pytest.approx(1.0, abs=0.01)  # exponential, mean 1


def test_noise_of_neighbouring_keys_and_ids_is_not_related():
    keys = torch.tensor([noise_key(0, 0, index) for index in range(500)])
    uniform = hashed_uniform(keys, IdRange(0, 500)) - 0.5
    assert abs((uniform[1:] * uniform[:-1]).mean()) < 1e-3
    assert abs((uniform[:, 1:] * uniform[:, :-1]).mean()) < 1e-3


@given(st.tuples(SEEDS, st.integers(0, 99), st.integers(0, 9999)))
def test_a_noise_key_fits_a_signed_64_bit_integer_and_follows_each_part(parts):
    seed, sample_index, index = parts
    key = noise_key(seed, sample_index, index)
    assert -(2**63) <= key < 2**63
    others = [(seed ^ 1, sample_index, index), (seed, sample_index + 1, index)]
    others += [(seed, sample_index, index + 1), (seed, index + 1, sample_index)]
    assert all(noise_key(*o) != key for o in others if o != parts)


def test_the_noise_is_pinned_so_that_a_seed_means_the_same_picture_for_ever():
    uniform = hashed_uniform(torch.tensor([noise_key(1, 2, 3)]), IdRange(4, 7))
    expected = [reference.hashed_uniform(1, 2, 3, id) for id in (4, 5, 6)]
    assert uniform[0].tolist() == expected


def test_branches_are_mixed_by_weight_in_fp32():
    logits = torch.randn(6, 5).bfloat16()
    mixed = mix(logits, [(1.0,), (3.0, -2.0), (2.0, -1.5, 0.5)])
    rows = logits.float()
    expected = [rows[0], 3 * rows[1] - 2 * rows[2], 2 * rows[3] - 1.5 * rows[4] + 0.5 * rows[5]]
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, torch.stack(expected))


def test_a_mask_leaves_only_what_it_allows_and_logprobs_know_it():
    mask = torch.tensor([False, True, False, True])
    picks = [
        SamplingInput((1.0,), Sampling(seed=s), 0, 0, mask if s % 2 else None, logprob=True)
        for s in range(60)
    ]
    logits = torch.zeros(60, 4)
    choices = sampled(logits, IdRange(10, 14), picks)
    assert {c.id for c in choices[1::2]} == {11, 13}
    assert {c.id for c in choices[0::2]} == {10, 11, 12, 13}
    assert all(c.logprob == pytest.approx(-math.log(2)) for c in choices[1::2])
    assert all(c.logprob == pytest.approx(-math.log(4)) for c in choices[0::2])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_gives_no_id_and_leaves_the_others_alone(bad: float):
    logits = torch.randn(3, 8)
    picks = [pick(Sampling(seed=5, top_k=3))] * 3
    clean = [choice.id for choice in sampled(logits, IdRange(0, 8), picks)]
    logits[1, 4] = bad
    spoilt = [choice.id for choice in sampled(logits, IdRange(0, 8), picks)]
    assert spoilt == [clean[0], None, clean[2]]


@given(logits=LOGITS, min_p=st.floats(0.01, 1), temperature=st.sampled_from([0.5, 1.0, 2.0]))
def test_min_p_keeps_what_is_near_enough_to_the_best(logits, min_p, temperature):
    picks = [pick(Sampling(temperature=temperature, min_p=min_p))]
    kept = filtered(torch.tensor([logits]), picks)[0].isfinite()
    probabilities = (torch.tensor(logits).double() / temperature).softmax(0)
    share = probabilities / probabilities.max()
    sure = (share - min_p).abs() > 1e-5
    assert torch.equal(kept[sure], share[sure] >= min_p)
    assert kept[int(torch.tensor(logits).argmax())]


def test_min_p_looks_at_what_top_k_and_top_p_left():
    sampling = Sampling(top_k=3, top_p=0.9, min_p=0.2)
    probabilities = torch.tensor([[0.5, 0.3, 0.08, 0.07, 0.05]])
    kept = filtered(probabilities.log(), [pick(sampling)])[0].isfinite().tolist()
    assert kept == [True, True, False, False, False]


def test_a_repetition_penalty_makes_what_was_seen_less_likely_whatever_its_sign():
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]] * 2)
    seen = torch.tensor([True, True, False, False])
    strict, plain = Sampling(temperature=0, repetition_penalty=4.0), Sampling(temperature=0)
    picks = [
        SamplingInput((1.0,), strict, 0, 0, seen=seen, logprob=True),
        SamplingInput((1.0,), plain, 0, 0, logprob=True),
    ]
    one, other = sampled(logits, IdRange(0, 4), picks)
    assert (one.id, other.id) == (2, 0)
    expected = torch.tensor([0.5, -8.0, 2.0, -2.0]).log_softmax(0)[2]
    assert one.logprob == pytest.approx(float(expected))
    assert other.logprob == pytest.approx(float(logits[0].log_softmax(0)[0]))


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a plain row"])
def test_logprobs_are_those_of_the_distribution_that_is_drawn_from(beside: bool):
    torch.manual_seed(0)
    logits = torch.randn(2, 9)
    sampling = Sampling(temperature=0.7, top_k=6, top_p=0.8, min_p=0.05, seed=3)
    mask = torch.arange(9) != 4
    picks = [SamplingInput((3.0, -2.0), sampling, 0, i, mask, None, True, True) for i in range(400)]
    rows = logits.repeat(400, 1)
    if beside:
        picks.append(SamplingInput((1.0,), Sampling(), 0, 0))
        rows = torch.cat([rows, torch.randn(1, 9)])
    choices = sampled(rows, IdRange(20, 29), picks)[:400]
    probability: dict[int, float] = {}
    for choice in choices:
        assert choice.id is not None
        assert probability.setdefault(choice.id, choice.logprob) == choice.logprob
        own = float(logits[0].log_softmax(0)[choice.id - 20])
        assert choice.branch_logprob == pytest.approx(own, abs=1e-6)
    drawn = [choice.id for choice in choices]
    assert sum(map(math.exp, probability.values())) == pytest.approx(1, abs=1e-5)
    for id, logprob in probability.items():
        assert drawn.count(id) / 400 == pytest.approx(math.exp(logprob), abs=0.11)


def test_rows_mix_the_same_whatever_the_number_of_lines_beside_them():
    logits = torch.randn(5, 50)
    together = mix(logits, [(3.0, -2.0), (1.0,), (5.0, -4.0)])
    assert torch.equal(together[0], mix(logits[:2], [(3.0, -2.0)])[0])
    assert torch.equal(together[1], mix(logits[2:3], [(1.0,)])[0])
    assert torch.equal(together[2], mix(logits[3:], [(5.0, -4.0)])[0])


EVERYTHING = Sampling(
    temperature=0.9, top_k=5, top_p=0.8, min_p=0.01, repetition_penalty=1.1, seed=4
)


def mixed_groups() -> list[tuple[Tensor, IdRange, list[SamplingInput]]]:
    """Two ranges: text with every filter, a mask and logprobs; guided drawings, one not finite."""
    generator = torch.Generator().manual_seed(0)
    text, image = torch.randn(2, 12, generator=generator), torch.randn(5, 9, generator=generator)
    image[3, 4] = torch.nan
    mask, seen = torch.arange(12) % 3 > 0, torch.arange(12) < 4
    texts = [
        SamplingInput((1.0,), EVERYTHING, 0, 3, mask, seen, logprob=True),
        SamplingInput((1.0,), Sampling(temperature=0), 0, 7, branch_logprob=True),
    ]
    drawn = [
        SamplingInput((2.0, -1.0), Sampling(), 0, 0),
        SamplingInput((0.5, 1.0, -0.5), Sampling(seed=1), 0, 0),
    ]
    return [(text, IdRange(0, 12), texts), (image, IdRange(12, 21), drawn)]


def test_groups_collected_together_are_what_each_is_alone():
    groups = mixed_groups()
    together = collect([sample(*group) for group in groups])
    assert together == [choice for group in groups for choice in sampled(*group)]
    assert [choice.id is None for choice in together] == [False, False, False, True]
    assert together[0].logprob < 0 and together[1].branch_logprob < 0
    assert together[1].logprob == 0 and together[2].logprob == 0
    assert collect([]) == []


def test_drawing_never_waits_for_the_device():
    with Waits() as waits:
        drawn = [sample(*group) for group in mixed_groups()]
    assert waits.found == []
    with waits:
        bool(drawn[0].ids.any())
    assert waits.found == ["_local_scalar_dense"]
