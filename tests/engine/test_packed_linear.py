from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from tests.engine.tiny import TinyModel
from unitok_engine import Engine, EngineConfig, packed_linear
from unitok_engine.packed_linear import PackedForward, pack_linears


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(24, 40)
    assert pack_linears(layer, True) == 1
    return layer


def is_right(layer: nn.Linear, x: Tensor) -> bool:
    with torch.inference_mode():
        return torch.allclose(layer(x), linear(x, layer.weight, layer.bias), atol=1e-5)


@pytest.mark.parametrize(
    "shape", [(24,), (1, 24), (7, 24), (2, 3, 24), (0, 24), (300, 24), (2, 128, 24)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_gives_what_it_gave(shape: tuple[int, ...], bias: bool):
    layer = nn.Linear(24, 40, bias=bias)
    pack_linears(layer, True)
    assert is_right(layer, torch.randn(shape))


def test_few_kernels_serve_all_numbers_of_rows(layer: nn.Linear, monkeypatch: pytest.MonkeyPatch):
    seen: set[int] = set()
    run = packed_linear._run
    monkeypatch.setattr(
        packed_linear, "_run", lambda x, *rest: (seen.add(len(x)), run(x, *rest))[1]
    )
    with torch.inference_mode():
        for rows in range(1, 400, 7):
            assert len(layer(torch.randn(rows, 24))) == rows
    assert seen == set(packed_linear.ROWS)


def test_bfloat16_agrees_as_far_as_it_can():
    layer = nn.Linear(64, 40).bfloat16()
    pack_linears(layer, True)
    x = torch.randn(3, 64).bfloat16()
    with torch.inference_mode():
        exact = linear(x.float(), layer.weight.float(), layer.bias.float())
        torch.testing.assert_close(layer(x).float(), exact, atol=0.02, rtol=0.01)


@torch.no_grad()
def change_in_place(layer: nn.Linear) -> None:
    layer.weight.add_(1)


def replace_weight(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(torch.randn(40, 24))


def load(layer: nn.Linear) -> None:
    layer.load_state_dict(nn.Linear(24, 40).state_dict())


def train(layer: nn.Linear) -> None:
    layer(torch.randn(4, 24)).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


@pytest.mark.parametrize("change", [change_in_place, replace_weight, load, train])
def test_a_weight_that_changes_is_packed_again(
    layer: nn.Linear, change: Callable[[nn.Linear], None]
):
    x = torch.randn(5, 24)
    assert is_right(layer, x)
    before = layer.weight.detach().clone()
    change(layer)
    assert not torch.equal(layer.weight, before)
    assert is_right(layer, x)


def test_gradients_flow_as_ever(layer: nn.Linear):
    x = torch.randn(5, 24, requires_grad=True)
    plain = nn.Linear(24, 40)
    plain.load_state_dict(layer.state_dict())
    layer(x).sum().backward()
    plain(x).sum().backward()
    assert layer.weight.grad is not None and plain.weight.grad is not None
    assert torch.equal(layer.weight.grad, plain.weight.grad)


def test_a_copy_of_a_packed_layer_is_a_layer_of_its_own(layer: nn.Linear):
    other = deepcopy(layer)
    change_in_place(other)
    x = torch.randn(5, 24)
    assert is_right(layer, x) and is_right(other, x)
    assert list(other.state_dict()) == ["weight", "bias"]
    with torch.inference_mode():
        assert not torch.allclose(layer(x), other(x))


def test_an_input_of_another_precision_fails_as_ever(layer: nn.Linear):
    with torch.inference_mode(), pytest.raises(RuntimeError, match="dtype"):
        layer(torch.randn(5, 24).bfloat16())


class ModuleModel(nn.Module):
    """A model as a module; nothing of it runs here."""

    kv_shape, dtype, device = TinyModel.kv_shape, TinyModel.dtype, TinyModel.device

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)


@pytest.mark.parametrize(("wanted", "packed"), [(None, True), (True, True), (False, False)])
def test_an_engine_packs_its_model_unless_told_otherwise(wanted: bool | None, packed: bool):
    model = ModuleModel()
    Engine(model, EngineConfig(num_blocks=4, pack_linears=wanted))  # type: ignore[arg-type]
    assert isinstance(model.head.__dict__.get("forward"), PackedForward) == packed


def test_large_weights_are_not_copied_unless_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unitok_engine.packed_linear.SMALL", 10)
    assert pack_linears(ModuleModel()) == 0
