"""Packed layers, layers with adapters and layers of few bits are exchanged by one function."""

from collections.abc import Sequence
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.unitok.tiny import tiny_model
from unitok.nn.layers import Attention, PreparedRMSNorm, RMSNorm
from unitok.nn.linear import LinearReplacement, Linears, find_linears, replace_linears
from unitok.nn.model import UnifiedModel
from unitok.nn.packed_linear import PackedLinear

RANK = 2


class LoRALike(LinearReplacement):
    """Frozen weights, and a trainable product of low rank beside them."""

    def __init__(self, layers: Linears) -> None:
        super().__init__(layers)
        self._frozen = [layer.weight.detach() for layer in layers.values()]
        self._biases = [layer.bias.detach() for layer in layers.values() if layer.bias is not None]
        self.down = nn.Parameter(torch.randn(RANK, self.in_features))
        self.up = nn.Parameter(torch.zeros(sum(self.out_features), RANK))

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat(self._biases) if self._biases else None
        frozen = F.linear(x, torch.cat(self._frozen), bias)
        return frozen + F.linear(F.linear(x, self.down), self.up)

    def weights(self) -> Sequence[Tensor]:
        return self._frozen

    def biases(self) -> Sequence[Tensor]:
        return self._biases


class Int8Like(LinearReplacement):
    """Weights of 8 bits, with a scale for each output."""

    def __init__(self, layers: Linears) -> None:
        super().__init__(layers)
        weight = torch.cat([layer.weight.detach() for layer in layers.values()])
        self._scale = weight.abs().amax(1, keepdim=True) / 127
        self._int8 = (weight / self._scale).round().to(torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self._int8.to(x.dtype)) * self._scale[:, 0]

    def weights(self) -> Sequence[Tensor]:
        return (self._int8 * self._scale).split(self.out_features)


def int8_where_possible(layers: Linears) -> nn.Module | None:
    """A layer with a bias is left as it is."""
    return Int8Like(layers) if all(layer.bias is None for layer in layers.values()) else None


def hidden(model: UnifiedModel) -> Tensor:
    return model(model.embed(torch.arange(30, 50)), torch.arange(20))


def blocks_of(model: UnifiedModel) -> list[str]:
    return [type(m).__name__ for m in model.decoder.blocks.modules()]


def attention_of(model: UnifiedModel) -> Attention:
    return next(m for m in model.modules() if isinstance(m, Attention))


def test_adapters_take_the_place_of_linear_layers_and_train():
    model = tiny_model()
    before, names = hidden(model), list(model.decoder.state_dict())
    assert replace_linears(model.decoder, LoRALike) == 14
    assert blocks_of(model).count("LoRALike") == 8, "q, k, v are one, and gate and up"
    torch.testing.assert_close(hidden(model), before, atol=1e-5, rtol=0)
    hidden(model).sum().backward()
    adapter = attention_of(model).qkv
    assert isinstance(adapter, LoRALike) and adapter.up.grad is not None
    assert adapter.up.grad.abs().max() > 0
    own = {name for name in model.decoder.state_dict() if name.endswith((".up", ".down"))}
    assert len(own) == 16
    assert set(model.decoder.state_dict()) - own == set(names)


def test_layers_of_few_bits_take_their_place_by_the_same_function():
    model = tiny_model()
    before, state = hidden(model), model.state_dict()
    count = replace_linears(model, int8_where_possible)
    assert count == 14 + 1, "the decoder's and the text head; projectors have biases"
    after = hidden(model)
    assert 0 < (after - before).abs().max() < 0.2
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], atol=0.01, rtol=0)


def test_what_one_maker_leaves_another_may_take():
    model = tiny_model()
    before = hidden(model)
    replace_linears(model, int8_where_possible)
    changed = hidden(model)
    model.prepare()
    kinds = [type(m) for m in model.modules()]
    assert kinds.count(Int8Like) == 9 and kinds.count(PackedLinear) > 0
    assert nn.Linear not in kinds
    torch.testing.assert_close(hidden(model), changed, atol=1e-5, rtol=0)
    assert not torch.equal(before, changed)


def test_fused_projections_that_are_left_are_offered_one_by_one():
    offered: list[tuple[str, ...]] = []

    def keys_alone(layers: Linears) -> nn.Module | None:
        offered.append(tuple(layers))
        return Int8Like(layers) if tuple(layers) == ("k",) else None

    model = tiny_model()
    before = hidden(model)
    attention = attention_of(model)
    assert replace_linears(attention, keys_alone) == 1
    assert offered == [("q", "k", "v"), ("q",), ("k",), ("v",), ("o",)]
    assert attention.qkv is None and isinstance(attention.k, Int8Like)
    assert 0 < (hidden(model) - before).abs().max() < 0.1


def test_shared_weights_and_subclasses_are_not_offered():
    class Special(nn.Linear):
        pass

    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), Special(4, 4))
    tied[1].weight = tied[0].weight
    assert [group.name for group in find_linears(tied)] == ["2"]


# --- hooks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RMSNorm, nn.Linear])
def test_hooks_of_a_model_that_is_not_prepared_are_called(kind: type[nn.Module]):
    model, called = tiny_model(), []
    modules = [m for m in model.decoder.modules() if type(m) is kind]
    for module in modules:
        module.register_forward_hook(lambda module, *_: called.append(module))
    hidden(model)
    assert len(modules) >= 5
    assert set(map(id, called)) == set(map(id, modules))


def test_prepared_norms_share_the_weight_and_agree():
    model = tiny_model()
    plain = deepcopy(model)
    model.prepare()
    norms = [m for m in model.modules() if isinstance(m, RMSNorm)]
    assert norms and all(type(m) is PreparedRMSNorm for m in norms)
    assert not any(isinstance(m, PreparedRMSNorm) for m in plain.modules())
    assert model.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(hidden(model), hidden(plain), atol=1e-5, rtol=0)
