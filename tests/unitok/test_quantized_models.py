"""Models of few bits: how they are loaded, what they give, and what they combine with."""

import dataclasses
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import unitok
from tests.unitok.adapters import random_adapter, saved
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.test_compile import CAN_COMPILE, forced_logits
from tests.unitok.tiny import ASSETS, TINY, tiny_model, tiny_template
from unitok import Caption, Draw
from unitok.batch.keys import with_quantization
from unitok.checkpoints import weights
from unitok.cli import app
from unitok.drafts import decide_drafts
from unitok.emoji.evaluation import EmojiSuite, judge_all
from unitok.emoji.export import save_folder
from unitok.evaluation.suite import SuiteOptions
from unitok.families import open_folder
from unitok.nn.linear import linear_shapes
from unitok.nn.model import UnifiedModel
from unitok.quantization.int4 import Int4Linear
from unitok.quantization.int8 import Int8Linear, multiplies_int8
from unitok.quantization.linear import QuantizedLinear
from unitok.quantization.weights import (
    QUANTIZATIONS,
    Quantization,
    Quantized,
    StreamedQuantizer,
    check_quantization,
    quantize_model,
)
from unitok.requests import AnyRequest
from unitok.results import DrawResult, Result
from unitok.training.lora import LoraOptions, add_lora

CPU = torch.device("cpu")
# Sizes that 4 bits suit.
EVEN = dataclasses.replace(
    TINY, decoder=dataclasses.replace(TINY.decoder, intermediate_size=128, kv_heads=4)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("even")
    model = tiny_model(config=EVEN)
    save_folder(model, tiny_template(), ASSETS, made, dtype=torch.float32)
    return made


def load(folder: Path, quantize: Quantization | None = "int8", **options) -> unitok.Model:
    return unitok.load(
        folder, device="cpu", dtype="float32", memory="8MB", quantize=quantize, **options
    )


def replaced(model: UnifiedModel) -> dict[str, type]:
    """The names of the layers of few bits, with their kind."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            beside = name.rpartition(".")[0]
            found |= {f"{beside}.{part}".removeprefix("."): type(module) for part in module.names}
    return found


# --- what is quantised ---------------------------------------------------------------------------


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_layers_of_the_decoder_and_heads_have_few_bits_and_nothing_else(folder, quantization):
    inside = Int4Linear if quantization == "int4" else Int8Linear
    kinds = {
        name: inside if name.startswith("decoder") else Int8Linear
        for name in linear_shapes(tiny_model(config=EVEN))
        if re.match(r"decoder|text_head|image_head", name)
    }
    with load(folder, quantization) as model:
        assert replaced(model.family.model) == kinds
        assert model.info().quantization == quantization
        plain = open_folder(folder, "cpu", torch.float32).model
        assert model.info().parameters == sum(p.numel() for p in plain.parameters())
        assert model.family.model.state_dict().keys() == plain.state_dict().keys()


def test_sizes_that_four_bits_do_not_suit_have_eight():
    model = tiny_model()  # its MLP is 96 wide
    quantize_model(model, "int4")
    kinds = replaced(model)
    assert kinds["decoder.blocks.0.mlp.down"] is Int8Linear
    assert kinds["decoder.blocks.0.attention.o"] is Int4Linear


@pytest.mark.parametrize("family", sorted(FOLDERS))
def test_every_family_is_quantised_and_draws_and_reads(family, tmp_path):
    folder = FOLDERS[family](tmp_path / "made")
    with load(folder, "int8") as model:
        assert len(replaced(model.family.model)) >= 14
        if family.startswith("emu3"):  # whose own size is larger than this context
            assert model.draw("two apples", seed=1, width=32, height=24).image.size == (32, 24)
        else:
            assert model.draw("two apples", seed=1).image.size == model.info().picture_size
        assert model.caption(Image.new("RGB", (64, 64), "red"), max_tokens=3).text is not None


# --- loading -------------------------------------------------------------------------------------


def test_what_is_streamed_is_what_is_quantised_in_memory(folder: Path):
    for quantization in QUANTIZATIONS:
        streamed = open_folder(folder, "cpu", Quantized(torch.float32, quantization)).model
        whole = tiny_model(config=EVEN)
        quantize_model(whole, quantization)
        assert streamed.quantization == whole.quantization == quantization
        assert torch.equal(forced_logits(streamed), forced_logits(whole))


def test_no_more_than_one_layer_is_dense_while_a_checkpoint_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    dense: list[int] = []
    placed = StreamedQuantizer.placed

    def counted(quantizer: StreamedQuantizer, key: str) -> None:
        layers = [layer for p in quantizer._pending.values() for layer in p.group.layers.values()]
        there = {id(layer): layer.weight for layer in layers if not layer.weight.is_meta}
        dense.append(sum(weight.numel() for weight in there.values()))
        placed(quantizer, key)

    monkeypatch.setattr(StreamedQuantizer, "placed", counted)
    model = open_folder(folder, "cpu", Quantized(torch.float32, "int8")).model
    assert not any(type(m) is nn.Linear for m in model.decoder.modules())
    largest = max(EVEN.decoder.vocab_size * 64, 2 * 128 * 64, 3 * 64 * 64)
    assert len(dense) > 30 and 0 < max(dense) <= largest


def test_few_tensors_are_read_before_their_turn():
    begun: list[str] = []
    keys = [str(i) for i in range(50)]

    def read(key: str) -> Tensor:
        begun.append(key)
        return torch.tensor(int(key))

    with ThreadPoolExecutor(weights.READERS) as pool:
        values = weights.read_ahead(pool, read, keys)
        for turn, value in enumerate(values):
            assert value.item() == turn
            assert len(begun) <= turn + weights.AHEAD + 1
    assert sorted(begun) == sorted(keys)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"quantize": "int3"}, "quantize must be one of 'int8', 'int4' or None, not 'int3'"),
        ({"quantize": 8}, "quantize must be one of 'int8', 'int4' or None, not 8"),
        (
            {"quantize": "int8", "dtype": "float64"},
            "needs a dtype of float32, bfloat16, float16, not float64",
        ),
        ({"quantize": "int4", "adapter": "."}, "an adapter cannot be merged into weights of int4"),
    ],
)
def test_what_cannot_be_quantised_is_refused(folder: Path, options, match: str):
    with pytest.raises(ValueError, match=re.escape(match)):
        unitok.load(folder, device="cpu", **options)


def test_a_device_without_it_is_refused():
    with pytest.raises(ValueError, match="'int8' needs a device of cpu or cuda, not mps"):
        check_quantization("int8", torch.device("mps"), None)


def test_the_command_line_takes_it_and_says_what_is_wrong(folder: Path):
    done = CliRunner().invoke(app, ["info", "--model", str(folder), "--quantize", "int4"])
    assert done.exit_code == 0 and re.search(r"quantization +int4", done.stdout)
    wrong = CliRunner().invoke(app, ["info", "--model", str(folder), "--quantize", "int3"])
    assert wrong.exit_code == 2 and "quantize must be one of 'int8', 'int4'" in wrong.output


def test_a_batch_and_an_evaluation_know_a_quantised_model_from_another():
    identities = {with_quantization("model", how) for how in (None, *QUANTIZATIONS)}
    assert len(identities) == 3 and with_quantization("model", None) == "model"


def test_it_is_neither_saved_nor_trained(folder: Path, tmp_path: Path):
    with load(folder) as model:
        with pytest.raises(ValueError, match="a quantised model cannot be saved"):
            model.save(tmp_path / "new")
        assert not (tmp_path / "new").exists()
    fresh = open_folder(folder, "cpu", Quantized(torch.float32, "int8")).model
    with pytest.raises(ValueError, match="a model of int8 weights cannot be trained"):
        add_lora(fresh, LoraOptions())


# --- results -------------------------------------------------------------------------------------

REQUESTS: list[AnyRequest] = [
    Draw("two apples", seed=1, guidance=3.0, branch_logprobs=True),
    Draw("a dog", seed=2, guidance=1.0, temperature=0.0, branch_logprobs=True),
    Caption(Image.new("RGB", (64, 64), "red"), max_tokens=9, branch_logprobs=True),
    Caption(Image.new("RGB", (64, 64), "blue"), "a cat?", max_tokens=5, branch_logprobs=True),
]


def seen(result: Result) -> object:
    """The text or the pictures, which tell the ids."""
    if isinstance(result, DrawResult):
        return [image.tobytes() for image in result.images]
    return result.text


def ran(model: unitok.Model, asked: list[AnyRequest] = REQUESTS) -> list[Result]:
    results = sorted(model.run(asked), key=lambda result: result.index)
    assert [result.error for result in results] == [None] * len(asked)
    return results


def test_alone_or_in_a_crowd_ids_of_8_bits_are_the_same(folder: Path):
    with load(folder) as model:
        alone = [ran(model, [request])[0] for request in REQUESTS]
    with load(folder) as model:
        crowd = ran(model, [*REQUESTS, *[Draw("a star", seed=seed) for seed in range(9)]])
    for one, other in zip(alone, crowd[: len(alone)], strict=True):
        assert seen(one) == seen(other)
        if multiplies_int8():
            assert one.branch_logprobs == other.branch_logprobs, "to the bit"


def test_drafts_are_on_where_a_row_gets_the_same_bits_in_any_step(folder: Path):
    with load(folder, "int8") as model:
        assert decide_drafts("auto", model.family.model) == multiplies_int8()
    with load(folder, "int4") as model:
        assert not decide_drafts("auto", model.family.model)
    with unitok.load(folder, device="cpu", dtype="bf16", quantize="int8") as model:
        assert not decide_drafts("auto", model.family.model)


def test_drafts_change_no_picture_of_8_bits():
    expected = drawn("int8", False)
    assert [seen(result) for result in drawn("int8", "auto")] == [seen(r) for r in expected]


def drawn(quantization: Quantization, drafts) -> list[DrawResult]:
    with unitok.load(device="cpu", quantize=quantization, drafts=drafts) as model:
        return model.draw(["two apples", "a dog"], seed=1)


def test_few_bits_leave_the_embedded_model_its_answers():
    suite = EmojiSuite(SuiteOptions(limit=2, seed=7))
    items = suite.items()
    right = {}
    for quantization in (None, *QUANTIZATIONS):
        with unitok.load(device="cpu", quantize=quantization) as model:
            judged = judge_all(model, suite, items)
        right[quantization] = sum(bool(one.judgement.ok) for one in judged)
    assert len(items) == 28 and right[None] >= 24
    assert all(right[quantization] >= right[None] - 2 for quantization in QUANTIZATIONS)


# --- what it combines with -----------------------------------------------------------------------


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_adapters_stand_beside_weights_of_few_bits(folder, tmp_path, quantization):
    plain = open_folder(folder, "cpu", torch.float32)
    adapter = random_adapter(plain.model, 1)
    saved(adapter, tmp_path / "adapter", folder)
    asked = [dataclasses.replace(request, adapter="a") for request in REQUESTS]
    with load(folder, quantization, adapters={"a": tmp_path / "adapter"}) as model:
        base, adapted = ran(model), ran(model, asked)
        state = model.family.model.state_dict()
    assert [seen(one) for one in base] != [seen(one) for one in adapted]
    plain.model.load_state_dict(state)
    with unitok.Model(plain) as model:
        model.load_adapter("a", adapter)
        for one, other in zip(adapted, ran(model, asked), strict=True):
            near = 0.01 if quantization == "int8" else 0.2
            first, second = first_scores(one), first_scores(other)
            assert first == pytest.approx(second, abs=near)


def first_scores(result: Result) -> list[float]:
    """The log-probabilities of the first id by each branch, which no earlier choice changes."""
    scores = result.branch_logprobs or ()
    return [float(score) for score in torch.tensor(scores).flatten()[:1]]


def test_an_adapter_of_another_base_is_still_told(folder, tmp_path):
    other = tiny_model(seed=5, config=EVEN)
    save_folder(other, tiny_template(), ASSETS, tmp_path / "other", dtype=torch.float32)
    adapter = random_adapter(other, 1)
    saved(adapter, tmp_path / "adapter", tmp_path / "other")
    with load(folder) as model, pytest.raises(ValueError, match="an adapter of another base"):
        model.load_adapter("a", tmp_path / "adapter")


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_an_update_is_quantised_as_a_load_is(folder, tmp_path, quantization):
    other = tiny_model(seed=5, config=EVEN)
    new = {
        name: value
        for name, value in other.state_dict().items()
        if name.startswith("decoder.blocks.") or name in ("text_head.weight", "image_head.fc1.bias")
    }
    mixed = tiny_model(config=EVEN)
    assert not mixed.load_state_dict(new, strict=False).unexpected_keys  # a part of all weights
    quantize_model(mixed, quantization)
    mixed.prepare()
    with load(folder, quantization) as model:
        model.update_weights(new)
        own = model.family.model
        assert torch.equal(forced_logits(own), forced_logits(mixed))
        one = {"decoder.blocks.0.attention.k.weight": torch.zeros(64, 64)}
        model.update_weights(one)
        state = own.state_dict()
        assert not state["decoder.blocks.0.attention.k.weight"].any()
        kept = "decoder.blocks.0.attention.q.weight"
        assert torch.equal(state[kept], mixed.state_dict()[kept])


@pytest.mark.timeout(600)  # a C++ compiler runs
def test_a_compiled_step_gives_what_it_gave():
    model, plain = tiny_model(), tiny_model()
    for each in (model, plain):  # of which attention has 4 bits, and the MLP 8
        quantize_model(each, "int4")
    plain.prepare()
    model.prepare(compile=True)
    assert model.decoder.compiled is not None
    expected = forced_logits(plain)
    torch.testing.assert_close(forced_logits(model), expected, atol=0.05, rtol=0)
    assert expected.std() > 0.1
    assert bool(model.decoder.compiled._compiled) == CAN_COMPILE
