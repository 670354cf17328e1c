"""Adapters beside the weights: each request has its own, and gets what the merged model gives."""

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import unitok
from tests.unitok.adapters import merged, opened, random_adapter, saved
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.tiny import save_tiny
from unitok import Caption, Draw
from unitok.cli import app
from unitok.nn.lora import LoraAdapter, LowRank
from unitok.nn.lora_layers import place_adapter
from unitok.nn.model import UnifiedModel
from unitok.requests import AnyRequest
from unitok.results import DrawResult, Result

CLOSE = 1e-4  # what log-probabilities of equal sums in another order may differ by


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def adapters(folder: Path) -> dict[str, LoraAdapter]:
    """One of all layers, and one of some."""
    model = opened(folder).model
    some = r"decoder\.blocks\.\d\.(attention\.[qv]|mlp\.up)|image_head\.fc2"
    return {"a": random_adapter(model, 1), "b": random_adapter(model, 2, some, rank=5)}


@pytest.fixture(scope="module")
def model(folder: Path, adapters: dict[str, LoraAdapter]) -> Iterator[unitok.Model]:
    with load(folder) as made:
        for name, adapter in adapters.items():
            made.load_adapter(name, adapter)
        yield made


def load(folder: Path) -> unitok.Model:
    # Without drafts a drawing takes as many steps as it has tokens.
    return unitok.load(folder, device="cpu", dtype="float32", memory="8MB", drafts=False)


def picture(colour: str = "red") -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def requests(adapter: str | None) -> list[AnyRequest]:
    common = {"adapter": adapter, "branch_logprobs": True}
    return [
        Caption(picture(), "what is this?", max_tokens=7, **common),
        Caption(picture("blue"), "a cat?", max_tokens=3, **common),
        Draw("two apples", seed=1, n=2, guidance=3.0, **common),
        Draw("a dog", seed=2, guidance=1.0, **common),
    ]


def ran(model: unitok.Model, asked: Sequence[AnyRequest]) -> list[Result]:
    results = sorted(model.run(asked), key=lambda result: result.index)
    assert [result.error for result in results] == [None] * len(asked)
    return results


def check_equal(one: Result, other: Result) -> None:
    """The same ids, as the pictures and texts and log-probabilities show."""
    if isinstance(one, DrawResult):
        assert isinstance(other, DrawResult)
        assert [i.tobytes() for i in one.images] == [i.tobytes() for i in other.images]
        pairs = list(zip(one.branch_logprobs or (), other.branch_logprobs or (), strict=True))
    else:
        assert isinstance(other, unitok.TextResult) and one.text == other.text
        pairs = [(one.branch_logprobs, other.branch_logprobs)]
    for mine, theirs in pairs:
        assert mine == pytest.approx(theirs, abs=CLOSE) and mine


def different(one: Result, other: Result) -> bool:
    return numbers_of(one) != pytest.approx(numbers_of(other), abs=CLOSE)


def numbers_of(result: Result) -> list[float]:
    """All log-probabilities."""
    if isinstance(result, DrawResult):
        return [number for one in result.branch_logprobs or () for number in one]
    return list(result.branch_logprobs or ())


def test_a_mix_of_adapters_gives_what_the_merged_models_give(
    model: unitok.Model, folder: Path, adapters: dict[str, LoraAdapter]
):
    mix = [one for several in zip(*map(requests, (None, "a", "b")), strict=True) for one in several]
    together = ran(model, mix)
    for place, adapter in enumerate((None, "a", "b")):
        mine = together[place::3]
        plain = load(folder) if adapter is None else merged(folder, adapters[adapter])
        with plain:
            expected = ran(plain, requests(None))
        alone = [ran(model, [one])[0] for one in requests(adapter)]
        for got, wanted, single in zip(mine, expected, alone, strict=True):
            check_equal(got, wanted)
            check_equal(got, single)
    assert different(together[0], together[1]) and different(together[1], together[2])
    assert all(map(different, together[6:9], together[7:9])), "drawings"


def test_requests_without_an_adapter_are_bit_for_bit_those_of_a_model_without(
    folder: Path, adapters: dict[str, LoraAdapter]
):
    with load(folder) as plain, load(folder) as own:
        for name, adapter in adapters.items():
            own.load_adapter(name, adapter)
        for got, wanted in zip(ran(own, requests(None)), ran(plain, requests(None)), strict=True):
            assert got.branch_logprobs == wanted.branch_logprobs


def test_one_forward_of_a_step_serves_all_adapters(model: unitok.Model):
    asked = [Draw("a dog", seed=i, adapter=(None, "a", "b")[i % 3]) for i in range(6)]
    before = model.stats().forwards
    ran(model, asked[:1])
    alone = model.stats().forwards - before
    ran(model, asked)
    # Those of one adapter wait one step for the prompt that the first of them computes.
    assert model.stats().forwards - before - alone <= alone + 2


@pytest.mark.parametrize("kind", ["chameleon", "emu3"])
def test_other_families_take_adapters_too(kind: str, tmp_path: Path):
    """Among them those with one head for all ids, and those with biases."""
    made = FOLDERS[kind](tmp_path / kind)
    adapter = random_adapter(opened(made).model, 5)
    asked = Caption(picture(), "a dog?", max_tokens=5, branch_logprobs=True)
    with merged(made, adapter) as model:
        (expected,) = ran(model, [asked])
    with unitok.load(made, dtype="float32") as model:
        model.load_adapter("mine", adapter)
        results = ran(model, [asked, replace(asked, adapter="mine")])
    check_equal(results[1], expected)
    assert different(results[0], results[1])


@pytest.mark.parametrize("prepared", [True, False])
def test_an_adapter_of_one_of_fused_layers_changes_that_one_alone(folder: Path, prepared: bool):
    model = opened(folder).model
    adapter = random_adapter(model, 3, r"decoder\.blocks\.0\.attention\.k")
    if prepared:
        model.prepare(at_once=True)
    (delta,) = place_adapter(model, adapter, model.text_embedding.weight).values()
    (added,) = adapter.layers.values()
    out = torch.zeros(5, delta.b.shape[1])
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    delta.add(out, x, torch.tensor([1, 4]), slice(None))
    k = slice(64, 96) if prepared else slice(None)
    expected = torch.zeros_like(out)
    expected[[1, 4], k] = x[[1, 4]] @ added.product(torch.device("cpu")).T
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


# --- loading and unloading -----------------------------------------------------------------------


def test_folders_in_pefts_form_are_loaded_with_the_model(
    folder: Path, adapters: dict[str, LoraAdapter], tmp_path: Path, model: unitok.Model
):
    made = saved(adapters["a"], tmp_path / "a", folder)
    with unitok.load(folder, dtype="float32", adapters={"mine": made}) as own:
        assert own.adapters == ("mine",)
        asked = requests("mine")[2]
        check_equal(ran(own, [asked])[0], ran(model, [replace(asked, adapter="a")])[0])
        with warnings.catch_warnings(action="error"):
            drawn = own.draw("a zebra", adapter="mine")  # a word that it may have been taught
        assert drawn.image.info["model"] == f"{own.name}+mine"
        own.load_adapter("again", str(made))
        own.unload_adapter("mine")
        assert own.adapters == ("again",)


@pytest.mark.parametrize("adapters", [["mine"], "mine"])
def test_adapters_without_names_are_refused_before_the_model_is_opened(adapters):
    with pytest.raises(TypeError, match=r"adapters must map names to folders, .* not (list|str)"):
        unitok.load(adapters=adapters)


def test_another_adapter_of_the_same_name_finds_nothing_of_the_first(
    folder: Path, adapters: dict[str, LoraAdapter], model: unitok.Model
):
    asked = Draw("a dog on a table", seed=3, adapter="a", branch_logprobs=True)
    with load(folder) as own:
        own.load_adapter("a", adapters["b"])
        ran(own, [asked])
        own.unload_adapter("a")
        own.load_adapter("a", adapters["a"])
        check_equal(ran(own, [asked])[0], ran(model, [asked])[0])


def test_an_adapter_in_use_is_not_unloaded(model: unitok.Model):
    with pytest.raises(RuntimeError, match=r"^1 request uses adapter 'a': unload it when"):
        for event in model.stream(Draw("a dog", seed=1, n=3, adapter="a")):
            assert event.result is None
            model.unload_adapter("a")
    assert model.adapters == ("a", "b")


def test_an_unknown_adapter_is_named_with_the_known_ones(model: unitok.Model):
    message = r"^there is no adapter 'c'; loaded: 'a', 'b'$"
    with pytest.raises(ValueError, match=message):
        model.draw("a dog", adapter="c")
    with pytest.raises(ValueError, match=message):
        model.unload_adapter("c")
    with pytest.raises(ValueError, match=message):
        model.update_adapter("c", {"x": torch.zeros(1)})
    (result,) = model.run([Caption(picture(), adapter="c")])
    assert result.error == message.strip("^$")


def vision(model: UnifiedModel) -> LoraAdapter:
    return random_adapter(model, 1, r"vision\.blocks\.0\.attention\.q")


def wide(model: UnifiedModel) -> LoraAdapter:
    return random_adapter(model, 1, r"vision_aligner\.fc1")


def missing(_: UnifiedModel) -> LoraAdapter:
    low_rank = LowRank(torch.zeros(1, 64), torch.zeros(64, 1), 1.0)
    return LoraAdapter.of("x", {"decoder.blocks.7.attention.o": low_rank}, {})


def misshapen(_: UnifiedModel) -> LoraAdapter:
    low_rank = LowRank(torch.zeros(1, 64), torch.zeros(63, 1), 1.0)
    return LoraAdapter.of("x", {"decoder.blocks.1.attention.o": low_rank}, {})


def broken(model: UnifiedModel) -> LoraAdapter:
    adapter = random_adapter(model, 1, "text_head")
    adapter.layers["text_head"].b[3, 1] = torch.nan
    return adapter


def full(_: UnifiedModel) -> LoraAdapter:
    return LoraAdapter.of("x", {}, {"image_head.fc1.weight": torch.zeros(64, 64)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (vision, r"layers outside the decoder.*vision\.blocks\.0\.attention\.q.*adapter=FOLDER"),
        (wide, r"layers outside the decoder.*vision_aligner\.fc1.*merge it"),
        (full, r"changes all of image_head\.fc1\.weight: merge it"),
        (missing, r"the model has no linear layer decoder\.blocks\.7\.attention\.o"),
        (misshapen, r"attention\.o must be \[rank, 64\] and \[64, rank\], not \[1, 64\] and \[63"),
        (broken, "the adapter of text_head holds NaN or infinity"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(model: unitok.Model, make, message: str):
    with pytest.raises(ValueError, match=message):
        model.load_adapter("x", make(model.family.model))
    assert model.adapters == ("a", "b")


def test_names_are_texts_and_each_is_one_adapters(
    model: unitok.Model, adapters: dict[str, LoraAdapter], tmp_path: Path, folder: Path
):
    with pytest.raises(ValueError, match="there is an adapter 'a' already"):
        model.load_adapter("a", adapters["b"])
    with pytest.raises(ValueError, match="empty"):
        model.load_adapter("", adapters["b"])
    with pytest.raises(TypeError, match="name must be text, not 3"):
        model.load_adapter(3, adapters["b"])  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        unitok.load(folder, adapters={"x": tmp_path / "nowhere"})


def test_a_compiled_model_takes_none(folder: Path, adapters: dict[str, LoraAdapter]):
    family = opened(folder)
    with unitok.Model(family) as own:
        family.model.decoder.compile_blocks()  # compiles at the first step, which never comes
        with pytest.raises(ValueError, match="a compiled model takes no adapters"):
            own.load_adapter("a", adapters["a"])


# --- the command line ----------------------------------------------------------------------------


def test_commands_load_adapters_and_choose_one(
    folder: Path, adapters: dict[str, LoraAdapter], tmp_path: Path, model: unitok.Model
):
    made = saved(adapters["a"], tmp_path / "a", folder)
    picture().save(tmp_path / "red.png")
    common = ["--model", str(folder), "--adapters", f"mine={made}", "--json"]
    asked = ["caption", str(tmp_path / "red.png"), "--max-tokens", "4"]
    result = CliRunner().invoke(app, [*asked, *common, "--adapter-name", "mine"])
    expected = model.caption(tmp_path / "red.png", max_tokens=4, adapter="a")
    assert (result.exit_code, json.loads(result.stdout)["text"]) == (0, expected.text)
    drawing = ["draw", "a dog", "-o", str(tmp_path / "dog.png")]
    result = CliRunner().invoke(app, [*drawing, *common, "--adapter-name", "other"])
    assert (result.exit_code, result.stderr) == (
        2,
        "unitok: there is no adapter 'other'; loaded: 'mine'\n",
    )
    for wrong in ("mine", "=x", "mine="):
        result = CliRunner().invoke(app, [*asked, *common, "--adapters", wrong])
        assert (result.exit_code, result.stderr) == (
            2,
            f"unitok: --adapters takes NAME=FOLDER, not {wrong!r}\n",
        )


def test_lines_of_a_batch_choose_adapters_and_their_results_are_theirs(
    folder: Path, adapters: dict[str, LoraAdapter], tmp_path: Path
):
    picture().save(tmp_path / "red.png")
    lines = [{"caption": "red.png", "max_tokens": 5, "adapter": name} for name in (None, "m", "x")]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def run(adapter: str) -> tuple[list[str], str]:
        made = saved(adapters[adapter], tmp_path / adapter, folder)
        words = ["batch", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out")]
        more = ["--model", str(folder), "--adapters", f"m={made}"]
        result = CliRunner().invoke(app, [*words, *more])
        assert result.exit_code == 1
        assert "line 3: there is no adapter 'x'; loaded: 'm'" in result.stderr
        records = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
        return [record["text"] for record in records], result.stdout

    first, _ = run("a")
    assert len(set(first)) == 2
    assert "2 kept" in run("a")[1]
    both, told = run("b")
    assert "2 new, 0 kept, 1 failed" in told, "results of another adapter are not taken for these"
    assert both[:2] == first and len(set(both[2:]) - set(first)) == 1
