from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from tests.unitok.tiny import tiny_model
from unitok.driver import Driver
from unitok.nn import packed_linear
from unitok.nn.config import DecoderConfig
from unitok.nn.layers import Attention, SwiGLU
from unitok.nn.model import UnifiedModel
from unitok.nn.packed_linear import PackedLinear, pack
from unitok_engine import Branch, Engine, EngineConfig, FreePlan, IdRange, Request, Sampling


def frozen(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False)


def packed_and_plain(
    bias: bool = True, dtype: torch.dtype = torch.float32
) -> tuple[nn.Sequential, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=bias).to(dtype)
    holder = nn.Sequential(deepcopy(plain)).requires_grad_(False)
    assert pack(holder) == 1 and isinstance(holder[0], PackedLinear)
    return holder, plain


@pytest.mark.parametrize(
    "shape", [(24,), (1, 24), (7, 24), (2, 3, 24), (0, 24), (300, 24), (2, 128, 24)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_gives_what_it_gave(shape: tuple[int, ...], bias: bool):
    packed, plain = packed_and_plain(bias)
    x = torch.randn(shape)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("large", [False, True])
def test_few_kernels_serve_all_numbers_of_rows(large: bool, monkeypatch: pytest.MonkeyPatch):
    if large:
        monkeypatch.setattr(packed_linear, "LARGE", 1000)
    seen: set[int] = set()
    run = packed_linear._run
    monkeypatch.setattr(
        packed_linear, "_run", lambda x, *rest: (seen.add(len(x)), run(x, *rest))[1]
    )
    packed, _ = packed_and_plain()
    with torch.inference_mode():
        everything = torch.randn(400, 24)
        wanted = packed(everything)
        for rows in range(1, 400):
            out = packed(everything[:rows])
            assert len(out) == rows
            if large or rows > 1:  # a single row has a kernel of its own there
                assert torch.equal(out, wanted[:rows])
    assert seen == set(packed_linear.ROWS_OF_LARGE if large else packed_linear.ROWS)


def test_bfloat16_agrees_as_far_as_it_can():
    packed, plain = packed_and_plain(dtype=torch.bfloat16)
    x = torch.randn(3, 24).bfloat16()
    with torch.inference_mode():
        exact = linear(x.float(), plain.weight.float(), plain.bias.float())
        torch.testing.assert_close(packed(x).float(), exact, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("used", [False, True])
def test_the_state_is_what_it_was_bit_for_bit(used: bool):
    packed, plain = packed_and_plain()
    if used:
        packed(torch.randn(2, 24))
    state = packed.state_dict()
    assert list(state) == ["0.weight", "0.bias"]
    assert torch.equal(state["0.weight"], plain.weight)
    assert torch.equal(state["0.bias"], plain.bias)


def test_used_weights_lie_in_memory_once():
    packed, _ = packed_and_plain()
    packed(torch.randn(2, 24))
    assert packed[0]._dense == [] and not list(packed.parameters())


def test_layers_of_a_large_model_are_packed_one_at_a_call(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed_linear, "SMALL", 10)
    plain = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).requires_grad_(False)
    model = deepcopy(plain)
    assert pack(model) == 2
    layers = [layer for layer in model if isinstance(layer, PackedLinear)]
    x, counts = torch.randn(2, 4), []
    for _ in range(packed_linear.PATIENCE + 3):
        torch.testing.assert_close(model(x), plain(x), atol=1e-5, rtol=0)
        counts.append(sum(layer._packed is not None for layer in layers))
    assert counts == [0] * packed_linear.PATIENCE + [1, 2, 2]
    model = deepcopy(plain)
    pack(model, at_once=True)
    model(x)
    assert all(layer._packed is not None for layer in model if isinstance(layer, PackedLinear))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight


class Special(nn.Linear):
    pass


@pytest.mark.parametrize(
    "layer",
    [
        nn.Sequential(nn.Linear(4, 4)),
        frozen(Shared()),
        frozen(nn.Sequential(Special(4, 4))),
        frozen(nn.Sequential(nn.Linear(4, 4).double())),
    ],
    ids=["trainable", "weight of another layer too", "subclass", "dtype without kernels"],
)
def test_what_cannot_be_packed_is_left_alone(layer: nn.Module):
    before = [type(m) for m in layer.modules()]
    assert pack(layer) == 0
    assert [type(m) for m in layer.modules()] == before


DECODER = DecoderConfig(
    vocab_size=8, hidden_size=32, intermediate_size=48, layers=1, heads=4, kv_heads=2, head_dim=8,
    max_positions=16,
)  # fmt: skip


@pytest.mark.parametrize(("module", "name"), [(Attention(DECODER, 0), "qkv"),
                                              (SwiGLU(32, 48), "gate_up")])  # fmt: skip
def test_layers_of_one_input_run_as_one(module: nn.Module, name: str):
    plain, packed = frozen(module), deepcopy(module)
    x = torch.randn(1, 5, 32)
    angle = torch.randn(5, 1, 8)
    rest = ((angle.cos(), angle.sin()), None) if name == "qkv" else ()
    count = len(list(plain.parameters()))
    assert pack(packed) == count
    assert sum(isinstance(m, PackedLinear) for m in packed.modules()) == 2
    with torch.inference_mode():
        torch.testing.assert_close(packed(x, *rest), plain(x, *rest), atol=1e-5, rtol=0)
    before, after = plain.state_dict(), packed.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_row_gets_the_same_bits_however_many_rows_there_are_from_two_up():
    layer = nn.Sequential(nn.Linear(96, 160))
    frozen(layer)
    pack(layer)
    x = torch.randn(260, 96)
    with torch.inference_mode():
        expected = layer(x)
        for rows in (2, 3, 8, 31, 128, 129, 130, 257):
            assert torch.equal(layer(x[:rows]), expected[:rows]), rows


def refuses(packed: nn.Module, x: Tensor, match: str) -> None:
    with pytest.raises(RuntimeError, match=match):
        packed(x)


def test_an_input_of_another_precision_is_refused():
    refuses(packed_and_plain()[0], torch.randn(5, 24).bfloat16(), "dtype")


def test_gradients_are_refused_rather_than_lost():
    refuses(packed_and_plain()[0], torch.randn(5, 24, requires_grad=True), "no gradients")


def test_a_packed_module_cannot_be_converted():
    with pytest.raises(RuntimeError, match="packed"):
        packed_and_plain()[0].to(torch.bfloat16)


def test_a_prepared_model_does_what_it_did():
    model = tiny_model()
    ids = torch.arange(0, model.vocabulary.size, 3)
    positions = torch.arange(20)
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():

        def outputs() -> list[Tensor]:
            hidden = model(model.embed(ids)[None, :20], positions)
            ranges = (model.vocabulary.text_range, model.vocabulary.image_range)
            return [
                model.embed(ids),
                *(model.logits(hidden, r) for r in ranges),
                model.encode_images(pixels),
            ]

        before = outputs()
        model.prepare()
        for one, other in zip(outputs(), before, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_model_that_trains_is_not_prepared():
    model = tiny_model().requires_grad_(True)
    model.prepare()
    assert not any(isinstance(m, PackedLinear) for m in model.modules())


def test_a_prepared_model_serves_any_number_of_rows_as_before():
    def ids(model: UnifiedModel) -> list[tuple[int, ...]]:
        text = IdRange(0, model.vocabulary.image_start)
        requests = [
            Request(
                (Branch(tuple(range(20, 23 + 5 * i))),),
                FreePlan(text, frozenset(), 4 + i),
                Sampling(temperature=0),
            )
            for i in range(7)
        ]
        config = EngineConfig(num_blocks=40, max_context=64, max_batch_tokens=37)
        outputs = Driver(Engine(model, config)).complete(requests)
        return [output.token_ids for output in outputs]

    model = tiny_model()
    before = ids(model)
    model.prepare()
    assert ids(model) == before
