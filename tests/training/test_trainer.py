"""Parts of the trainer: averages, means by token, weights without a gradient, schedules."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unitok.training.ema import Ema
from unitok.training.losses import Loss, Losses, merge
from unitok.training.ranks import Anchored, Ranks
from unitok.training.schedule import WarmupConstant, WarmupLinear


def test_means_are_of_tokens_where_their_number_is_known():
    one = Losses({"text": 1.0, "image": 2.0}, 10, {"text": 30, "image": 1})
    other = Losses({"text": 5.0}, 5, {"text": 10, "image": 0})
    merged = merge([one, other])
    assert merged.parts == pytest.approx({"text": 2.0, "image": 2.0})
    assert merged.counts == {"text": 40, "image": 1} and merged.tokens == 15


def test_a_rank_with_no_work_of_its_own_has_no_losses():
    filler = Losses({"text": 9.0, "z_loss": 1.0}, 2, {"text": 0, "image": 0, "z_loss": 0})
    assert merge([filler]) == Losses({}, 2, {})
    some = Losses({"text": 1.0}, 10, {"text": 3, "image": 0, "z_loss": 3})
    assert merge([some, filler]).parts == {"text": 1.0}


def test_averages_follow_the_weights_and_can_stand_in_their_place():
    weight = nn.Parameter(torch.tensor([0.0, 4.0]))
    ema = Ema({"w": weight}, decay=0.75)
    with torch.no_grad():
        weight.copy_(torch.tensor([4.0, 0.0]))
    ema.update()
    assert torch.equal(ema.averages["w"], torch.tensor([1.0, 3.0]))
    with ema.in_place():
        assert torch.equal(weight, torch.tensor([1.0, 3.0]))
    assert torch.equal(weight, torch.tensor([4.0, 0.0]))
    assert torch.equal(ema.averages["w"], torch.tensor([1.0, 3.0]))


class OneOfTwo(nn.Module):
    """A loss that uses one of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(2, 1), nn.Linear(2, 1)
        self.unused.bias.requires_grad_(False)

    def forward(self, batch: Tensor, step: int) -> Loss:
        total = self.used(batch).sum()
        return Loss(total, {"sum": total}, len(batch))


def test_a_weight_that_a_batch_does_not_use_has_a_gradient_of_zero():
    plain, batch = OneOfTwo(), torch.ones(3, 2)
    anchored = Anchored(plain)
    assert torch.equal(anchored(batch, 0).total, plain(batch, 0).total)
    anchored(batch, 0).total.backward()
    gradients: Any = {name: p.grad for name, p in plain.named_parameters()}
    assert torch.equal(gradients["used.weight"], torch.full((1, 2), 3.0))
    assert torch.equal(gradients["unused.weight"], torch.zeros(1, 2))
    assert gradients["unused.bias"] is None, "it is frozen"


def test_one_process_is_all_the_ranks_there_are():
    ranks = Ranks()
    assert ranks.is_first and ranks.gather([1.0, 2.0]) == [[1.0, 2.0]]
    assert ranks.gather_text("ä, b") == ["ä, b"]


def test_schedules_warm_up_and_fall_or_stay():
    linear, constant = WarmupLinear(2.0, warmup=4, steps=100), WarmupConstant(2.0, warmup=4)
    assert linear(0) == constant(0) == 0.5
    assert linear(50) == 1.0 and linear(100) == linear(1000) == 0.0
    assert constant(50) == constant(1000) == 2.0
