"""Adapters: read from their folders and refused, merged when a model is loaded, saved merged."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

import unitok
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.tiny import TINY, save_tiny, tiny_model
from unitok.checkpoints.fingerprint import fingerprint_of
from unitok.checkpoints.lora_files import FILE, read_adapter
from unitok.checkpoints.lora_saving import write_adapter
from unitok.checkpoints.lora_settings import (
    MAX_PATTERN,
    MAX_PATTERNS,
    MAX_RANK,
    MAX_REPEATS,
    LoraSettings,
    matcher,
)
from unitok.cli import app
from unitok.families import open_folder
from unitok.nn.linear import linear_shapes
from unitok.nn.lora import LoraAdapter, LowRank, merge

CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
Q = "model.language_model.layers.0.self_attn.q_proj"


def random_layers(model: Any, begin: str = "decoder.", rank: int = 3) -> dict[str, LowRank]:
    """Products for all linear layers of a part, and for the text head."""
    draw = torch.Generator().manual_seed(5)
    return {
        name: LowRank(
            torch.randn(rank, width, generator=draw) / 8,
            torch.randn(out, rank, generator=draw),
            0.5,
        )
        for name, (out, width) in linear_shapes(model).items()
        if name.startswith((begin, "text_head"))
    }


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return open_folder(folder, "cpu", dtype)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def family(base: Path) -> Any:
    """The base, which no test changes."""
    return opened(base)


@pytest.fixture(scope="module")
def written(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole adapter of the base."""
    family = opened(base)
    adapter = LoraAdapter.of("x", random_layers(family.model), {})
    folder = tmp_path_factory.mktemp("adapters") / "dragons"
    write_adapter(adapter, folder, family, fingerprint_of(family.model))
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be damaged."""
    return Path(shutil.copytree(written, tmp_path / "dragons"))


def change(folder: Path, **settings: object) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def change_tensors(folder: Path, new: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> None:
    save_file(dict(new(load_file(folder / FILE))), folder / FILE)


# --- read and merged -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FOLDERS)
def test_an_adapter_of_any_family_is_read_as_it_was_written(kind, tmp_path):
    family = opened(FOLDERS[kind](tmp_path / kind))
    adapter = LoraAdapter.of("x", random_layers(family.model), {})
    write_adapter(adapter, tmp_path / "adapter", family, fingerprint_of(family.model))
    again = read_adapter(tmp_path / "adapter", family)
    assert again.digest == adapter.digest and again.layers.keys() == adapter.layers.keys()
    assert again.name == "adapter" and again.full == {}


def test_a_prepared_model_takes_the_same_adapters(base, written):
    prepared = opened(base)
    prepared.model.prepare(at_once=True)
    assert "decoder.blocks.0.attention.q" not in dict(prepared.model.named_modules())
    assert read_adapter(written, prepared).digest == read_adapter(written, opened(base)).digest


def test_merging_adds_the_product_in_float32_and_rounds_once(base, written):
    name = "decoder.blocks.1.mlp.down"
    for dtype in (torch.float32, torch.bfloat16):
        family = opened(base, dtype)
        adapter = read_adapter(written, family)
        layer = family.model.get_submodule(name)
        old, added = layer.weight, adapter.layers[name]
        merge(family.model, adapter)
        assert torch.equal(layer.weight, (old.float() + 0.5 * (added.b @ added.a)).to(dtype))
        assert layer.weight.dtype is dtype and not layer.weight.requires_grad


def test_fused_layers_of_deepseeks_own_names_are_taken_apart(base, tmp_path):
    """PEFT over the original class has one product for queries, keys and values."""
    family, draw = opened(base), torch.Generator().manual_seed(3)
    width = TINY.vision.hidden_size
    a, b = torch.randn(2, width, generator=draw), torch.randn(3 * width, 2, generator=draw)
    name = f"{PREFIX}vision_model.vision_tower.blocks.0.attn.qkv"
    (tmp_path / "fused").mkdir()
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, tmp_path / "fused" / FILE)
    (tmp_path / "fused" / CONFIG).write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
    adapter = read_adapter(tmp_path / "fused", family)
    layers = [f"vision.blocks.0.attention.{part}" for part in "qkv"]
    assert sorted(adapter.layers) == sorted(layers)
    assert torch.equal(torch.cat([adapter.layers[layer].b for layer in layers]), b)
    assert all(torch.equal(added.a, a) and added.scale == 2 for added in adapter.layers.values())


def test_parts_that_were_trained_in_full_take_the_place_of_the_bases(base, tmp_path):
    family = opened(base)
    old = family.model.image_head.fc1
    full = {"image_head.fc1.weight": old.weight * 2, "image_head.fc1.bias": old.bias.clone()}
    adapter = LoraAdapter.of("x", random_layers(family.model, "decoder.blocks.0.mlp"), full)
    write_adapter(adapter, tmp_path / "x", family, fingerprint_of(family.model))
    modules = json.loads((tmp_path / "x" / CONFIG).read_text())["modules_to_save"]
    assert modules == ["model.generation_head.proj_out"]
    read = read_adapter(tmp_path / "x", family)
    assert list(read.full) == ["image_head.fc1.weight"], "the bias is as in the base"
    merge(family.model, read)
    assert torch.equal(family.model.image_head.fc1.weight, full["image_head.fc1.weight"])


def test_digests_tell_adapters_apart():
    layers = random_layers(tiny_model())
    changed = layers | {"decoder.blocks.0.mlp.up": layers["decoder.blocks.1.mlp.up"]}
    rescaled = {name: dataclasses.replace(added, scale=2.0) for name, added in layers.items()}
    full = {"decoder.norm.weight": torch.ones(64)}
    digests = [LoraAdapter.of("x", made, {}).digest for made in (layers, changed, rescaled)]
    digests.append(LoraAdapter.of("x", layers, full).digest)
    assert len(set(digests)) == 4
    assert LoraAdapter.of("another name", layers, {}).digest == digests[0]


def test_nothing_is_changed_by_an_adapter_that_does_not_fit():
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = random_layers(model)
    good, wrong = layers["decoder.blocks.0.attention.q"], layers["decoder.blocks.0.mlp.down"]
    for name, told in (
        ("decoder.blocks.7.attention.q", "no layer decoder.blocks.7.attention.q"),
        ("decoder.blocks.1.attention.q", r"is \[64, 64\], not \[64, 96\]"),
        ("decoder.norm", "decoder.norm is no linear layer"),
    ):
        both = {"decoder.blocks.0.attention.q": good, name: wrong}
        with pytest.raises(ValueError, match=told):
            merge(model, LoraAdapter.of("x", both, {}))
    torn = LowRank(good.a, good.b[:, 1:], 1.0)
    with pytest.raises(ValueError, match=r"blocks\.1\.attention\.q must be "):
        merge(model, LoraAdapter.of("x", {**layers, "decoder.blocks.1.attention.q": torn}, {}))
    for name, told in (("decoder.scale", "no parameter"), ("decoder.norm.weight", r"not \[3\]")):
        adapter = LoraAdapter.of("x", layers, {name: torch.ones(3)})
        with pytest.raises(ValueError, match=told):
            merge(model, adapter)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# --- refused -------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_or_not_complete_is_named(family, base, folder):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        read_adapter(Path("nowhere"), family)
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json; is it an adapter's"):
        read_adapter(base, family)
    (folder / FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"adapter_model\.safetensors is missing"):
        read_adapter(folder, family)
    (folder / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"adapter_model\.bin, which may run code and is not opened"
    ):
        read_adapter(folder, family)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; unitok reads adapters of the kind 'LORA'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all' is not supported; it must be 'none'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights = 'pissa_niter_4' changes the"),
        ({"layer_replication": [[0, 2]]}, "layer_replication = .* is not supported"),
        ({"a_new_kind": {"x": 1}}, "a_new_kind = .* is not supported"),
        ({"r": 0}, f"r must be a rank from 1 to {MAX_RANK}, not 0"),
        ({"r": MAX_RANK + 1}, "r must be a rank"),
        ({"r": "8"}, "r must be a rank"),
        ({"lora_alpha": "16"}, "lora_alpha must be a number"),
        ({"use_rslora": 1}, "use_rslora must be true or false"),
        ({"rank_pattern": [4]}, "rank_pattern must be an object"),
        ({"rank_pattern": {"q_proj": 1.5}}, "q_proj must be a rank"),
        ({"alpha_pattern": {"q_proj": None}}, "q_proj must be a number"),
    ],
)
def test_a_setting_of_another_kind_or_type_is_refused_by_name(settings, told, family, folder):
    change(folder, **settings)
    with pytest.raises(ValueError, match=rf"adapter_config\.json: {told}"):
        read_adapter(folder, family)


def test_settings_that_are_of_no_use_here_are_ignored(family, folder, recwarn):
    digest = read_adapter(folder, family).digest
    change(folder, use_dora=False, a_new_kind=None, lora_dropout=0.5, init_lora_weights="gaussian")
    assert read_adapter(folder, family).digest == digest and not recwarn


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(?:a|aa)",
        "(a|a)(a|a)(a|a)",
        ".*.*.*x",
        "a{9}{9}{9}",
        r"(a)\1",
        "a" * (MAX_PATTERN + 1),
    ],
)
def test_a_pattern_that_may_take_long_to_match_is_refused(pattern, family, folder):
    change(folder, alpha_pattern={pattern: 4})
    with pytest.raises(ValueError, match="may take long to match"):
        read_adapter(folder, family)


def test_each_pattern_is_compiled_once_for_all_layers():
    ranks = {rf"blocks\.{i}\.attention": i + 1 for i in range(600)}  # more than `re` keeps
    settings = LoraSettings(8, 8.0, ranks=ranks)
    before = matcher.cache_info().misses
    found = [
        settings.rank_of(f"model.blocks.{i}.{part}")
        for i in (0, 599)
        for part in ("attention", "mlp")
    ]
    assert found == [1, 8, 600, 8]
    assert matcher.cache_info().misses - before == 600


def test_patterns_are_bounded_and_must_be_regular_expressions(family, folder):
    assert MAX_REPEATS == 2
    change(folder, alpha_pattern={r"layers\.(0|1)\.mlp\..*_proj": 4, "a" * MAX_PATTERN: 2})
    scales = {name: added.scale for name, added in read_adapter(folder, family).layers.items()}
    assert scales["decoder.blocks.0.mlp.up"] == 4 / 3
    assert scales["decoder.blocks.0.attention.q"] == 0.5
    change(folder, alpha_pattern={"[": 4})
    with pytest.raises(ValueError, match="'\\[' is no regular expression"):
        read_adapter(folder, family)
    change(folder, alpha_pattern={f"x{i}": 4 for i in range(MAX_PATTERNS + 1)})
    with pytest.raises(ValueError, match=f"{MAX_PATTERNS + 1} entries; the most is {MAX_PATTERNS}"):
        read_adapter(folder, family)


def replaced(name: str, tensor: Tensor | None) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """A change of one tensor, or its removal."""

    def new(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        others = {key: value for key, value in tensors.items() if key != PREFIX + name}
        return others if tensor is None else others | {PREFIX + name: tensor}

    return new


NAN = torch.full((3, 64), float("nan"))
DAMAGES = {
    "another rank": (
        f"{Q}.lora_A.weight",
        torch.ones(4, 64),
        r"lora_A.weight is \[4, 64\], not \[3,",
    ),
    "another width": (f"{Q}.lora_A.weight", torch.ones(3, 32), r"is \[3, 32\], not \[3, 64\]"),
    "no matrix": (f"{Q}.lora_B.weight", torch.ones(192), r"is \[192\], not \[64, 3\]"),
    "not a number": (f"{Q}.lora_A.weight", NAN, "lora_A.weight holds NaN or infinity"),
    "integers": (f"{Q}.lora_A.weight", torch.ones(3, 64, dtype=torch.int8), "is of type I8"),
    "half a layer": (f"{Q}.lora_B.weight", None, r"q_proj.lora_B.weight is missing"),
    "a layer too many": (
        "model.language_model.layers.9.mlp.up_proj.lora_B.weight",
        torch.ones(96, 3),
        r"layers.9.mlp.up_proj.lora_A.weight is missing",
    ),
    "magnitudes": (f"{Q}.lora_magnitude_vector", torch.ones(64), "is neither plain LoRA"),
    "an embedding": (
        "model.language_model.embed_tokens.lora_embedding_A",
        torch.ones(3, 640),
        "plain",
    ),
    "a path": ("../../../etc/passwd", torch.ones(3), "passwd is neither plain LoRA"),
    "another vocabulary": (
        "lm_head.weight",
        torch.ones(700, 64),
        r"is \[700, 64\], not \[640, 64\]",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tensor_is_named(damage, family, folder):
    name, tensor, told = DAMAGES[damage]
    change_tensors(folder, replaced(name, tensor))
    with pytest.raises(ValueError, match=told) as error:
        read_adapter(folder, family)
    assert str(folder) in str(error.value)


def test_a_file_of_no_tensors_or_of_no_safetensors_is_refused(family, folder):
    change_tensors(folder, lambda _: {})
    with pytest.raises(ValueError, match="holds no tensors"):
        read_adapter(folder, family)
    (folder / FILE).write_bytes(b"PK\3\4" * 100)
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors cannot be read"):
        read_adapter(folder, family)


def test_layers_that_the_model_does_not_have_are_named_with_the_base_that_the_file_names(
    family, folder
):
    (folder / "unitok_base.json").unlink()
    change(folder, base_model_name_or_path="someone/Other-7B")
    change_tensors(
        folder, lambda t: {k.replace("layers.1.", "layers.31."): v for k, v in t.items()}
    )
    with pytest.raises(
        ValueError, match="changes 7 layers that tiny does not have, such as"
    ) as error:
        read_adapter(folder, family)
    assert "layers.31.mlp.down_proj; it says that it was made for 'someone/Other-7B'" in str(
        error.value
    )


# --- of another base -----------------------------------------------------------------------------


def changed_base(base: Path, name: str, change: Callable[[Any], None], to: Path) -> Path:
    family = opened(base)
    change(family.model)
    family.save(to / name)
    return to / name


@pytest.mark.parametrize("layer", ["decoder.blocks.0.attention.q", "decoder.blocks.1.mlp.down"])
def test_an_adapter_of_another_base_is_refused_with_both_names(layer, base, written, tmp_path):
    other = changed_base(
        base, "sibling", lambda model: model.get_submodule(layer).weight.mul_(1.02), tmp_path
    )
    told = (
        rf"adapter of another base: it was made for 'tiny', and this is 'sibling': .* of {layer}$"
    )
    with pytest.raises(ValueError, match=told):
        read_adapter(written, opened(other))


def test_another_size_is_told(base, written, tmp_path):
    other = Path(shutil.copytree(base, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["rope_theta"] = 77.0
    config["text_config"].pop("rope_parameters", None)
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"its rope_theta is 77\.0, not 10000\.0"):
        read_adapter(written, opened(other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_base_is_itself_in_any_precision(dtype, base, written):
    assert read_adapter(written, opened(base, dtype)).layers


def test_a_base_with_an_adapter_merged_is_another_base(base, written):
    family = opened(base)
    merge(family.model, read_adapter(written, family))
    with pytest.raises(ValueError, match="its weights differ"):
        read_adapter(written, family)


@pytest.mark.parametrize(
    "content", ["{}", '{"sizes": {}, "weights": {"x": ["a"]}}', '{"sizes": [], "weights": {}}', "x"]
)
def test_a_damaged_fingerprint_is_refused(content, family, folder):
    (folder / "unitok_base.json").write_text(content)
    with pytest.raises(ValueError, match=r"unitok_base\.json"):
        read_adapter(folder, family)


# --- models and commands -------------------------------------------------------------------------


def test_a_model_is_loaded_with_an_adapter_merged(base, written, tmp_path):
    family = opened(base)
    merge(family.model, read_adapter(written, family))
    family.save(tmp_path / "merged")
    with (
        unitok.load(base, "cpu") as plain,
        unitok.load(base, "cpu", adapter=written) as model,
        unitok.load(tmp_path / "merged", "cpu") as merged,
    ):
        drawings = [m.draw("a cat", seed=3, temperature=0) for m in (plain, model, merged)]
        pictures = [drawing.image.tobytes() for drawing in drawings]
        assert pictures[1] == pictures[2] != pictures[0]
        assert (model.name, model.info().adapter) == ("tiny+dragons", "dragons")
        assert (plain.name, plain.info().adapter) == ("tiny", None)
        assert drawings[1].image.info["model"] == "tiny+dragons"
        model.save(tmp_path / "again")
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("again", "merged"))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_the_words_that_an_adapter_taught_are_not_warned_of(written, recwarn, tmp_path):
    with unitok.load() as model:
        words = model.family.defaults.known_words
        layers = random_layers(model.family.model, "decoder.blocks.0.attention.q")
        adapter = LoraAdapter.of("x", layers, {})
        fingerprint = fingerprint_of(model.family.model)
        write_adapter(adapter, tmp_path / "x", model.family, fingerprint)
    assert words
    with unitok.load(adapter=tmp_path / "x") as model:
        model.draw("a dragon", seed=1)
    assert not recwarn


def test_what_no_adapter_can_be_is_told_before_the_model_is_opened(base, tmp_path):
    for path, kind, told in (
        (tmp_path / "nowhere", FileNotFoundError, "nowhere: no such folder"),
        ("", ValueError, "the adapter's name is empty"),
        (5, TypeError, "an adapter is a folder or a hub id, not int"),
    ):
        with pytest.raises(kind, match=told):
            unitok.load(tmp_path, adapter=path)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json"):
        unitok.load(base, adapter=base)


def test_an_adapter_of_the_hub_is_found_in_its_cache(base, written, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--dragons"
    shutil.copytree(written, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with unitok.load(base, "cpu", adapter="someone/dragons") as model:
        assert model.info().adapter == "dragons"


@pytest.fixture
def run(base, tmp_path, monkeypatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(
        app, [*map(str, words), "--model", str(base), "--device", "cpu"]
    )


def test_every_command_takes_an_adapter(run, written, tmp_path):
    facts = json.loads(run("info", "--json", "--adapter", written).stdout)
    assert (facts["name"], facts["adapter"]) == ("tiny+dragons", "dragons")
    assert "adapter" in run("info", "--adapter", written).stdout
    assert "adapter" not in run("info").stdout
    for name, more in (("plain", ()), ("adapted", ("--adapter", written))):
        assert run("draw", "a cat", "-o", f"{name}.png", "--seed", 3, *more).exit_code == 0
    pictures = [Image.open(tmp_path / f"{name}.png") for name in ("plain", "adapted")]
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert [picture.info["model"] for picture in pictures] == ["tiny", "tiny+dragons"]


def test_a_wrong_adapter_is_one_line_and_code_2(run, folder):
    change(folder, use_dora=True)
    for path, told in ((folder, "use_dora = True is not supported"), ("nowhere", "no such folder")):
        result = run("info", "--adapter", path)
        assert result.exit_code == 2 and told in result.stderr and "Traceback" not in result.output
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_model_is_saved_with_its_adapter_merged(run, base, written, tmp_path):
    result = run("save", "-o", "merged", "--adapter", written)
    assert result.stdout.strip() == "merged: tiny+dragons in float32", result.output
    family = opened(base)
    merge(family.model, read_adapter(written, family))
    saved = opened(tmp_path / "merged")
    for name, value in saved.model.state_dict().items():
        assert torch.equal(value, family.model.state_dict()[name]), name


def test_a_model_is_saved_into_a_new_folder_alone_and_in_a_layout(run, tmp_path):
    assert run("save", "-o", "original", "--layout", "original").exit_code == 0
    config = json.loads((tmp_path / "original" / "config.json").read_text())
    assert config["model_type"] == "multi_modality"
    again = run("save", "-o", "original")
    assert again.exit_code == 2 and "original is not empty; name a new folder" in again.stderr
    wrong = run("save", "-o", "other", "--layout", "odd")
    assert wrong.exit_code == 2 and "layout must be one of" in wrong.stderr


def test_a_batch_is_not_resumed_with_the_results_of_another_adapter(run, written, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"draw": "a cat", "seed": 1}\n')
    words = ("batch", "in.jsonl", "-o", "out")
    assert "1 new, 0 kept" in run(*words).stdout
    assert "0 new, 1 kept" in run(*words).stdout
    assert "1 new, 0 kept" in run(*words, "--adapter", written).stdout
    assert "0 new, 1 kept" in run(*words, "--adapter", written).stdout
