"""Weights that are updated in place: what comes afterwards is what a fresh model gives."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import unitok
from tests.unitok.adapters import merged, opened, random_adapter
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.test_compile import forced_logits
from tests.unitok.tiny import save_tiny, tiny_model
from unitok import Caption, Draw
from unitok.checkpoints.weights import parameters
from unitok.nn.lora import LoraAdapter
from unitok.nn.model import UnifiedModel
from unitok.nn.packed_linear import PackedLinear
from unitok.nn.weight_update import WeightUpdate, fitting, slots_of
from unitok.requests import AnyRequest
from unitok.results import DrawResult, Result

PATIENCE = 100  # seconds until a test that hangs fails
CLOSE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(folder: Path) -> Iterator[unitok.Model]:
    # Without drafts a drawing takes as many steps as it has tokens.
    options = {"device": "cpu", "dtype": "float32", "memory": "8MB", "drafts": False}
    with unitok.load(folder, **options) as made:
        yield made


def changed(folder: Path, seed: int = 1) -> dict[str, Tensor]:
    """Weights of the model in a folder, all but the image tokenizer's changed a little."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in parameters(opened(folder).model).items()
        if not name.startswith("image_tokenizer.")
    }


def fresh(folder: Path, tensors: dict[str, Tensor]) -> unitok.Model:
    """A model that was loaded with these weights."""
    family = opened(folder)
    assert not family.model.load_state_dict(tensors, strict=False).unexpected_keys
    return unitok.Model(family)


REQUESTS: list[AnyRequest] = [
    Caption(Image.new("RGB", (64, 64), "red"), "a dog?", max_tokens=6, branch_logprobs=True),
    Draw("two apples", seed=1, n=2, guidance=3.0, branch_logprobs=True),
    Draw("a dog", seed=2, guidance=1.0, branch_logprobs=True),
]


def ran(model: unitok.Model, asked: Sequence[AnyRequest] = REQUESTS) -> list[Result]:
    results = sorted(model.run(asked), key=lambda result: result.index)
    assert [result.error for result in results] == [None] * len(asked)
    return results


def check_equal(results: Sequence[Result], others: Sequence[Result]) -> None:
    for one, other in zip(results, others, strict=True):
        assert seen(one) == seen(other)
        assert numbers_of(one) == pytest.approx(numbers_of(other), abs=CLOSE)


def seen(result: Result) -> object:
    """The text or the pictures, which tell the ids."""
    if isinstance(result, DrawResult):
        return [image.tobytes() for image in result.images]
    return result.text


def numbers_of(result: Result) -> list[float]:
    if isinstance(result, DrawResult):
        return [number for one in result.branch_logprobs or () for number in one]
    return list(result.branch_logprobs or ())


# --- what comes afterwards -----------------------------------------------------------------------


@pytest.mark.parametrize("used", [True, False], ids=["packed", "not packed yet"])
def test_afterwards_a_model_is_one_that_was_loaded_with_the_weights(
    folder: Path, model: unitok.Model, used: bool
):
    before = ran(model) if used else []
    new = changed(folder)
    assert (model.weight_version, model.update_weights(new), model.weight_version) == (0, 1, 1)
    assert model.stats().cached_blocks == 0
    results = ran(model)
    with fresh(folder, new) as expected:
        check_equal(results, ran(expected))
    assert all(seen(one) != seen(other) for one, other in zip(before, results, strict=False))
    assert {result.weight_version for result in before} <= {0}
    assert {result.weight_version for result in results} == {1}


def test_a_few_weights_are_changed_alone_and_in_the_memory_that_they_have(
    folder: Path, model: unitok.Model
):
    """Among them one of three that are packed together, and one that the embedding table needs."""
    ran(model)
    made = model.family.model
    table = made._embedding_table
    assert table is not None
    places = {name: p.data_ptr() for name, p in made.named_parameters()} | {"": table.data_ptr()}
    few = {
        name: value
        for name, value in changed(folder).items()
        if name.startswith("image_aligner.fc1.")
        or name in ("decoder.blocks.0.attention.k.weight", "decoder.norm.weight")
    }
    assert len(few) == 4
    model.update_weights(few)
    with fresh(folder, few) as expected:
        check_equal(ran(model), ran(expected))
    now = {name: p.data_ptr() for name, p in made.named_parameters()} | {"": table.data_ptr()}
    assert now == places and made._embedding_table is table
    for name, value in few.items():
        torch.testing.assert_close(made.state_dict()[name], value, atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["chameleon", "unitoken-base", "emu3"])
def test_all_families_can_be_updated(kind: str, tmp_path: Path):
    made = FOLDERS[kind](tmp_path / kind)
    asked = [Caption(Image.new("RGB", (64, 64), "red"), "?", max_tokens=4, branch_logprobs=True)]
    new = changed(made)
    with unitok.load(made, dtype="float32") as model, fresh(made, new) as expected:
        (old,) = ran(model, asked)
        model.update_weights(new)
        check_equal(ran(model, asked), ran(expected, asked))
        assert numbers_of(old) != pytest.approx(numbers_of(ran(model, asked)[0]), abs=CLOSE)


def test_the_embedded_model_can_be_updated():
    asked = [Draw("a cat", seed=1)]
    with unitok.load(device="cpu") as model:
        old = ran(model, asked)
        state = model.family.model.state_dict()  # unpacked, the image tokenizer's too
        gate = {n: torch.zeros_like(t) for n, t in state.items() if n.endswith("mlp.gate.weight")}
        assert gate
        model.update_weights(state | gate)
        new = ran(model, asked)
        model.update_weights(state)
        again = ran(model, asked)
    assert [seen(result) for result in again] == [seen(result) for result in old]
    assert all(seen(one) != seen(other) for one, other in zip(old, new, strict=True))
    assert [result.weight_version for result in (*new, *again)] == [1, 2]


def test_the_files_of_a_model_stay_as_they_are(folder: Path, model: unitok.Model):
    """In float32 the weights are mapped from them."""
    before = (folder / "model.safetensors").read_bytes()
    model.update_weights(changed(folder))
    assert (folder / "model.safetensors").read_bytes() == before


def test_bfloat16_weights_are_rounded_as_a_load_rounds_them(folder: Path):
    new = changed(folder)
    with unitok.load(folder, device="cpu", dtype="bfloat16", memory="8MB") as model:
        model.update_weights(new)
        for name, value in model.family.model.state_dict().items():
            if name in new:
                assert torch.equal(value, new[name].bfloat16()), name


def test_every_parameter_has_a_slot_packed_or_not():
    model = tiny_model()
    names = {name for name in model.state_dict() if not name.startswith("image_tokenizer.")}
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for _ in range(2):
        slots = slots_of(model)
        assert names <= slots.keys()
        assert {name: slots[name].shape for name in names} == {name: shapes[name] for name in names}
        model.prepare(at_once=True)
    assert any(isinstance(slot.module, PackedLinear) for slot in slots.values())


def test_what_is_compiled_computes_with_the_new_weights(folder: Path):
    """Of compiled functions, which take the weights as inputs, those run that they are made of."""
    new = changed(folder)
    model, expected = opened(folder).model, opened(folder).model
    model.prepare(compile=True)
    assert model.decoder.compiled is not None
    model.decoder.compiled._compiled.clear()
    before, kinds = forced_logits(model), kinds_of_packed(model)
    WeightUpdate(model, new).write()
    assert kinds_of_packed(model) == kinds and False in kinds, "others would be compiled for anew"
    expected.load_state_dict(new, strict=False)
    expected.prepare(at_once=True)
    torch.testing.assert_close(forced_logits(model), forced_logits(expected), atol=1e-4, rtol=0)
    assert (before - forced_logits(model)).abs().max() > 0.1


def kinds_of_packed(model: UnifiedModel) -> list[bool]:
    """Whether what is packed is made in inference mode."""
    layers = [layer for layer in model.modules() if isinstance(layer, PackedLinear)]
    return [layer.pack().is_inference() for layer in layers]


# --- while requests run --------------------------------------------------------------------------


def test_each_result_is_that_of_its_version_while_threads_submit_and_weights_change(
    folder: Path, model: unitok.Model
):
    versions = [parameters(opened(folder).model)] + [changed(folder, seed) for seed in (1, 2)]
    versions[0] = {n: t for n, t in versions[0].items() if n in versions[1]}
    expected = []
    for tensors in versions:
        with fresh(folder, tensors) as one:
            expected.append({r.seed: seen(r) for r in ran(one, [draw(seed) for seed in range(3)])})
    results: list[DrawResult] = []
    stop = threading.Event()

    def submit(seed: int) -> None:
        while not stop.is_set():
            results.append(model.draw("a dog", seed=seed, guidance=2.0))

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(submit, seed) for seed in range(3)]
        for version in (1, 2, 3):
            model.update_weights(versions[version % 3])
            wait_for(lambda now=version: sum(r.weight_version == now for r in tuple(results)) > 1)
        stop.set()
    for future in futures:
        future.result()
    assert {result.weight_version for result in results} >= {1, 2, 3}
    for result in results:
        assert result.weight_version is not None
        assert seen(result) == expected[result.weight_version % 3][result.seed], result


def draw(seed: int) -> Draw:
    return Draw("a dog", seed=seed, guidance=2.0)


def wait_for(condition) -> None:
    waited = threading.Event()
    for _ in range(PATIENCE * 100):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("it did not come")


def test_what_has_begun_ends_with_the_old_weights_and_what_waits_begins_with_the_new(
    folder: Path, model: unitok.Model
):
    with fresh(folder, changed(folder)) as one:
        new = seen(ran(one, [draw(5)])[0])
    old = seen(ran(model, [draw(5)])[0])
    events = model.stream(draw(5))
    next(events)  # it has begun
    with ThreadPoolExecutor(1) as pool:
        updated = pool.submit(model.update_weights, changed(folder))
        wait_for(lambda: model.driver._upkeep or updated.done())
        later = model.driver.submit(model.prepare.job(draw(5)))
        *_, last = events
        assert updated.result(PATIENCE) == 1
    assert last.result is not None
    assert (last.result.weight_version, seen(last.result)) == (0, old)
    result = later.result(PATIENCE)
    assert (result.weight_version, seen(result)) == (1, new)


def test_weights_wait_for_pictures_that_are_still_decoded(
    folder: Path, model: unitok.Model, monkeypatch: pytest.MonkeyPatch
):
    tokenizer, opened_gate = model.family.model.image_tokenizer, threading.Event()
    decode = tokenizer.decode

    def gated(codes: Tensor) -> Tensor:
        assert opened_gate.wait(PATIENCE)
        return decode(codes)

    monkeypatch.setattr(tokenizer, "decode", gated)
    handle = model.driver.submit(model.prepare.job(draw(1)))
    wait_for(lambda: model.stats().running == 0 and model.stats().forwards >= 16)
    with ThreadPoolExecutor(1) as pool:
        updated = pool.submit(model.update_weights, changed(folder))
        waiting = model.driver.submit(model.prepare.job(draw(2)))
        assert not model.driver.wait_until_idle(0.05)
        assert not updated.done() and model.weight_version == 0
        opened_gate.set()
        assert updated.result(PATIENCE) == 1
    assert handle.result(PATIENCE).weight_version == 0
    assert waiting.result(PATIENCE).weight_version in (0, 1)
    assert model.driver.wait_until_idle(PATIENCE)


def test_a_result_without_anything_computed_has_no_version(model: unitok.Model):
    (result,) = model.run([Caption("no such file.png")])
    assert result.weight_version is None


# --- adapters ------------------------------------------------------------------------------------


def test_an_adapter_is_updated_alike(folder: Path, model: unitok.Model):
    one, other = (random_adapter(opened(folder).model, seed) for seed in (1, 2))
    model.load_adapter("mine", one)
    asked = [Draw("a dog", seed=2, guidance=3.0, adapter="mine", branch_logprobs=True)]
    before = ran(model, asked)
    assert model.update_adapter("mine", tensors_of(other)) == 1
    after = ran(model, asked)
    plain = [Draw("a dog", seed=2, guidance=3.0, branch_logprobs=True)]
    with merged(folder, one) as first, merged(folder, other) as second:
        check_equal(before, ran(first, plain))
        check_equal(after, ran(second, plain))
    assert [r.weight_version for r in (*before, *after)] == [0, 1]
    some = {n: t for n, t in tensors_of(one).items() if "mlp" in n or n.endswith("lora_A.weight")}
    prefixed = {f"base_model.model.{name}": tensor for name, tensor in some.items()}
    assert model.update_adapter("mine", prefixed, version=9) == 9
    half = model._tuning.adapters["mine"].layers["decoder.blocks.0.attention.q"]
    assert torch.equal(half.a, one.layers["decoder.blocks.0.attention.q"].a)
    assert torch.equal(half.b, other.layers["decoder.blocks.0.attention.q"].b)


def test_updates_of_one_adapter_at_the_same_time_are_both_there(folder: Path, model: unitok.Model):
    """Both wait for what has begun; the second one changes what the first has made."""
    one, other = (random_adapter(opened(folder).model, seed) for seed in (1, 2))
    model.load_adapter("mine", one)
    next(events := model.stream(draw(5)))
    new = tensors_of(other)
    parts = [{n: t for n, t in new.items() if (matrix in n)} for matrix in ("lora_A", "lora_B")]
    with ThreadPoolExecutor(2) as pool:
        updates = [pool.submit(model.update_adapter, "mine", part) for part in parts]
        wait_for(lambda: len(model.driver._upkeep) == 2 or any(u.done() for u in updates))
        assert events is not None
        assert sorted(update.result(PATIENCE) for update in updates) == [1, 2]
    now = model._tuning.adapters["mine"].layers
    assert all(torch.equal(now[n].a, other.layers[n].a) for n in now)
    assert all(torch.equal(now[n].b, other.layers[n].b) for n in now)


def tensors_of(adapter: LoraAdapter) -> dict[str, Tensor]:
    """As peft gives them."""
    return {
        f"{name}.lora_{matrix}.weight": tensor
        for name, added in adapter.layers.items()
        for matrix, tensor in (("A", added.a), ("B", added.b))
    }


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "there are no tensors to update the adapter with"),
        ({"text_head.weight": torch.zeros(1)}, "'mine' has no tensor text_head.weight"),
        ({"text_head.lora_C.weight": torch.zeros(1)}, "has no tensor text_head.lora_C.weight"),
        ({"vision.lora_A.weight": torch.zeros(1)}, "has no tensor vision.lora_A.weight"),
        ({"text_head.lora_A.weight": torch.zeros(2, 64)}, r"must be \[3, 64\], not \[2, 64\]"),
        ({"text_head.lora_A.weight": torch.full((3, 64), torch.inf)}, "holds NaN or infinity"),
    ],
)
def test_wrong_tensors_of_an_adapter_change_nothing(
    model: unitok.Model, tensors: dict[str, Tensor], message: str
):
    adapter = random_adapter(model.family.model, 1)
    model.load_adapter("mine", adapter)
    with pytest.raises(ValueError, match=message):
        model.update_adapter("mine", tensors)
    assert model.weight_version == 0
    assert model._tuning.adapters["mine"].digest == adapter.digest


# --- what is wrong -------------------------------------------------------------------------------


NORM = "decoder.norm.weight"


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ({}, ValueError, "there are no tensors"),
        ({"decoder.norm.wait": torch.ones(64)}, ValueError, f"did you mean {NORM}"),
        ({NORM: torch.ones(63)}, ValueError, rf"{NORM} must be \[64\], not \[63\]"),
        ({NORM: torch.full((64,), torch.nan)}, ValueError, f"{NORM} holds NaN or infinity"),
        ({NORM: torch.ones(64, dtype=torch.int32)}, ValueError, "a type such as torch.float32"),
        ({NORM: [1.0] * 64}, TypeError, f"{NORM} must be a tensor, not list"),
        ({"image_tokenizer.quantizer.codebook": 1}, TypeError, "must be a tensor, not int"),
        ({"image_tokenizer.x": torch.ones(1)}, ValueError, "the image tokenizer is not updated"),
        (
            {"image_tokenizer.quantizer.codebook": torch.ones(48, 8)},
            ValueError,
            "image_tokenizer.quantizer.codebook differs",
        ),
    ],
)
def test_wrong_tensors_change_nothing(
    model: unitok.Model, tensors: dict[str, Tensor], error: type[Exception], message: str
):
    before = {name: value.clone() for name, value in model.family.model.state_dict().items()}
    right = {"text_embedding.weight": torch.zeros(640, 64)}
    with pytest.raises(error, match=message):
        model.update_weights(right | tensors if tensors else tensors)
    after = model.family.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert model.weight_version == 0


def test_new_weights_stay_where_they_are_until_they_are_written():
    """There is no room for all of them beside a model that fills its device."""
    elsewhere = torch.empty(2, dtype=torch.bfloat16, device="meta")
    new = fitting("x", torch.tensor([1.0, 2.0]), (2,), elsewhere)
    assert new.is_cpu and new.dtype is torch.bfloat16


def test_two_names_of_one_parameter_are_given_the_same_numbers():
    made = tiny_model()
    made.text_head.weight = made.text_embedding.weight
    made.requires_grad_(False).prepare()
    one, two = torch.ones(640, 64), torch.full((640, 64), 2.0)
    names = "text_embedding.weight", "text_head.weight"
    with pytest.raises(ValueError, match=f"{names[0]} and {names[1]} are one parameter here"):
        WeightUpdate(made, dict(zip(names, (one, two), strict=True)))
    WeightUpdate(made, dict.fromkeys(names, two)).write()
    assert torch.equal(made.text_head.weight, two)


def test_versions_only_grow(model: unitok.Model):
    norm = {NORM: torch.full((64,), 2.0)}
    assert model.update_weights({NORM: torch.ones(64)}, version=5) == 5
    for version in (5, 3, 0):
        with pytest.raises(ValueError, match=f"above the present one, 5, not {version}"):
            model.update_weights(norm, version=version)
    assert torch.equal(model.family.model.decoder.norm.weight, torch.ones(64))
    assert model.update_weights(norm) == model.weight_version == 6


def test_a_closed_model_is_not_updated(folder: Path):
    model = unitok.load(folder, device="cpu", dtype="float32", memory="8MB")
    events = model.stream(draw(1))
    next(events)
    with ThreadPoolExecutor(1) as pool:
        updated = pool.submit(model.update_weights, changed(folder))
        wait_for(lambda: model.driver._upkeep or updated.done())
        model.close()
        if (error := updated.exception(PATIENCE)) is not None:
            assert isinstance(error, RuntimeError) and "closed" in str(error)
    with pytest.raises(RuntimeError, match="closed"):
        model.update_weights(changed(folder))
