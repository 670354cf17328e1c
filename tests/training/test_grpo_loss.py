"""The loss of GRPO by hand, and the advantages that it is of."""

import math

import pytest
import torch
from torch import Tensor

from tests.training.learned import continued, janus
from unitok.training.finetuning_loss import FineTuningLoss
from unitok.training.packing import pack
from unitok.training.reinforcement.advantages import advantages_of, is_flat
from unitok.training.reinforcement.grpo_loss import (
    GrpoLoss,
    GrpoOptions,
    LearnedSample,
    RolloutBatch,
    kl,
    token_weights,
)
from unitok.training.reinforcement.policy import LearnedRollout
from unitok.training.sampling_shape import SamplingShape
from unitok.training.targets import text_range_of
from unitok_engine import Branch, Sampling
from unitok_engine.sampler import SamplingInput, filtered


class Learner:
    """Log-probabilities that are given."""

    def __init__(self, now: list[Tensor]) -> None:
        self.now, self.family = now, janus()

    def log_probabilities(self, rollouts: object) -> list[Tensor]:
        return self.now


def rollout(before: list[float]) -> LearnedRollout:
    sequence = continued(Branch((1,)), [9] * len(before), name="it")
    return LearnedRollout("it", (sequence,), None, torch.tensor(before))


def loss_of(
    now: list[list[float]],
    before: list[list[float]],
    advantages: list[float],
    options: GrpoOptions,
    reference: list[list[float]] | None = None,
    weights: list[float] | None = None,
):
    tensors = [torch.tensor(one, requires_grad=True) for one in now]
    rollouts = [rollout(one) for one in before]
    known = [None] * len(now) if reference is None else [torch.tensor(r) for r in reference]
    weights = weights or token_weights(rollouts, "sample")
    quads = zip(rollouts, advantages, weights, known, strict=True)
    batch = RolloutBatch(tuple(LearnedSample(*quad) for quad in quads))
    learner = Learner(tensors)
    model = learner.family.model
    supervised = FineTuningLoss(model, text_range_of(learner.family))
    loss = GrpoLoss(learner, options, supervised)(batch, 0)  # type: ignore[arg-type]
    loss.total.backward()
    return loss, [torch.zeros(0) if one.grad is None else one.grad for one in tensors]


def test_where_nothing_has_changed_the_gradient_is_that_of_reinforce():
    loss, grads = loss_of([[-1.0, -2.0], [-3.0]], [[-1, -2], [-3]], [2.0, -1.0], GrpoOptions())
    assert loss.total.item() == pytest.approx(-(2.0 - 1.0) / 2)
    assert torch.allclose(grads[0], torch.tensor([-0.5, -0.5]))  # 2 / (2 samples x 2 tokens)
    assert torch.allclose(grads[1], torch.tensor([0.5]))
    assert loss.parts["clipped"] == 0 and loss.parts["ratio"] == 1
    assert dict(loss.counts) == {"policy": 3, "clipped": 3, "ratio": 3}


def test_ratios_beyond_the_clip_have_no_gradient_where_they_are_rewarded_for_it():
    grown, shrunk = math.log(1.5), math.log(0.5)
    now = [[-1 + grown], [-1 + shrunk], [-1 + grown], [-1 + shrunk]]
    loss, grads = loss_of(now, [[-1.0]] * 4, [1.0, 1.0, -1.0, -1.0], GrpoOptions(0.2, 0.3))
    # min(1.5, 1.3), min(0.5, 0.8), min(-1.5, -1.3), min(-0.5, -0.8)
    assert loss.total.item() == pytest.approx(-(1.3 + 0.5 - 1.5 - 0.8) / 4)
    assert [float(g) for g in grads] == pytest.approx([0, -0.5 / 4, 1.5 / 4, 0])
    assert float(loss.parts["clipped"]) == 0.5


def test_the_divergence_from_the_reference_is_added_by_its_weight():
    now, reference = [-1.0, -2.0], [-1.5, -1.0]
    loss, _ = loss_of([now], [now], [0.0], GrpoOptions(kl=0.1), [reference])
    each = [math.exp(r - n) - (r - n) - 1 for n, r in zip(now, reference, strict=True)]
    assert loss.total.item() == pytest.approx(0.1 * sum(each) / 2)
    assert float(loss.parts["kl"]) == pytest.approx(sum(each) / 2)
    assert kl(torch.tensor(now), torch.tensor(now)).tolist() == [0, 0]
    assert (kl(torch.randn(99), torch.randn(99)) >= 0).all()


def test_a_token_weighs_as_its_sample_or_as_any_other():
    rollouts = [rollout([-1.0]), rollout([-1.0] * 3)]
    assert token_weights(rollouts, "sample") == pytest.approx([1 / 2, 1 / 6])
    assert token_weights(rollouts, "token") == pytest.approx([1 / 4, 1 / 4])


def test_conversations_beside_have_the_loss_of_fine_tuning():
    family = janus()
    supervised = FineTuningLoss(family.model, text_range_of(family))
    batch = pack([continued(Branch((1,)), [9, 10])], {"text": 0.5, "image": 0.5})
    learner = Learner([])
    loss = GrpoLoss(learner, GrpoOptions(), supervised)  # type: ignore[arg-type]
    assert torch.equal(loss(batch, 0).total, supervised(batch, 0).total)


def test_advantages_are_set_against_the_mean_of_the_group():
    assert advantages_of([1.0, 0.0, 0.0, 1.0], normalise=False) == [0.5, -0.5, -0.5, 0.5]
    assert advantages_of([1.0, 0.0, 0.0, 1.0], normalise=True) == [1, -1, -1, 1]
    assert sum(advantages_of([3.0, 1.0, 0.5], normalise=True)) == pytest.approx(0)
    assert is_flat([0.3, 0.3]) and is_flat([1.0]) and is_flat([]) and not is_flat([0.0, 0.1])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(temperature=2.0, top_k=5),
        Sampling(top_p=0.6),
        Sampling(temperature=0.9, top_k=20, top_p=0.8, min_p=0.05),
        Sampling(temperature=0, top_k=3),
    ],
    ids=str,
)
def test_filters_are_those_of_the_engine(sampling: Sampling):
    logits = 3 * torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    inputs = [SamplingInput((1.0,), sampling, 0, 0)] * 40
    expected = filtered(logits, inputs).log_softmax(1)
    best = logits.argmax(1)
    shape = SamplingShape.of(sampling).of_kind("text")
    found = shape(logits, best).log_softmax(1)
    assert torch.equal(found.isinf(), expected.isinf())
    torch.testing.assert_close(found.exp(), expected.exp(), atol=1e-5, rtol=0)
    worst = logits.argmin(1)
    kept = shape(logits, worst).gather(1, worst[:, None])
    assert kept.isfinite().all(), "what was sampled is kept"


def test_a_mask_of_text_leaves_image_tokens_alone():
    mask = torch.tensor([True, False, True])
    shape, logits = SamplingShape(text_mask=mask), torch.zeros(1, 3)
    wanted = torch.tensor([0])
    assert shape.of_kind("text")(logits, wanted)[0].isinf().tolist() == [False, True, False]
    assert shape.of_kind("image")(logits, wanted)[0].isfinite().all()
    with pytest.raises(ValueError, match="repetition penalty"):
        SamplingShape.of(Sampling(repetition_penalty=1.1))
