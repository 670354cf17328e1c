"""A Janus folder: strict config and weights, preprocessing, errors that say what to do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.unitok.tiny import TINY, save_tiny, tiny_model
from unitok.config import DEFAULT, JANUS_PRO_1B
from unitok.families import Wish, janus, open_folder
from unitok.families.janus import Preprocessor, config_from_json, config_to_json
from unitok.prompt import Message


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("janus") / "tiny")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def opened(folder: Path) -> janus.Janus:
    family = open_folder(folder, "cpu", torch.float32)
    assert isinstance(family, janus.Janus)
    return family


def edit(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; None takes one out."""
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def edit_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


# --- config --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, DEFAULT, JANUS_PRO_1B], ids=["tiny", "default", "1B"])
def test_a_config_makes_the_round_trip(config):
    data = config_to_json(config, 5, "float32")
    assert config_from_json(json.loads(json.dumps(data))) == config


def test_absent_sizes_are_those_of_transformers():
    data = {"model_type": "janus", "vision_config": {"image_size": 384}}
    config = config_from_json(data)
    assert (config.decoder.hidden_size, config.decoder.head_dim) == (4096, 128)
    assert config.image_tokenizer == JANUS_PRO_1B.image_tokenizer
    assert config.vision == JANUS_PRO_1B.vision


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"model_type": None}, "model_type is None"),
        ({"quantization_config": {"bits": 4}}, "unquantised"),
        ({"text_config": {"rope_parameters": {"rope_type": "llama3"}}}, "rope scaling"),
        ({"text_config": {"rope_scaling": {"type": "linear", "factor": 2}}}, "rope scaling"),
    ],
)
def test_what_would_change_the_maths_is_refused(changes: dict, message: str):
    data = config_to_json(TINY, 5, "float32") | changes
    with pytest.raises(ValueError, match=message):
        config_from_json(data)


# --- weights -------------------------------------------------------------------------------------


def test_a_loaded_model_is_the_saved_one(whole: Path):
    saved, loaded = tiny_model(), opened(whole).model
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    ids = torch.arange(600, 660)
    hidden = (m(m.embed(ids), torch.arange(60)) for m in (saved, loaded))
    assert torch.equal(*hidden)


def test_weights_take_the_type_that_is_asked_for(whole: Path):
    model = open_folder(whole, "cpu", torch.bfloat16).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.decoder.rotary.cos.dtype == torch.float32


def test_missing_keys_are_counted_and_named(folder: Path):
    def take_out(tensors: dict) -> None:
        for layer in (0, 1):
            del tensors[f"model.language_model.layers.{layer}.mlp.up_proj.weight"]

    edit_weights(folder, take_out)
    with pytest.raises(ValueError, match=r"2 missing keys, such as .*layers\.0\.mlp\.up_proj"):
        opened(folder)


def test_unknown_keys_are_counted_and_named(folder: Path):
    edit_weights(folder, lambda tensors: tensors.update({"lora.weight": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"1 unknown keys, such as lora\.weight"):
        opened(folder)


def test_a_misshapen_tensor_is_named_with_both_shapes(folder: Path):
    edit_weights(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(600, 64)}))
    with pytest.raises(ValueError, match=r"lm_head\.weight is \[600, 64\], not \[640, 64\]"):
        opened(folder)


@pytest.mark.parametrize("keep", [0, 5, 300, -1000])
def test_a_truncated_weight_file_is_one_clear_error(folder: Path, keep: int):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


# --- the folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "has no config.json"),
        ("preprocessor_config.json", "preprocessor_config.json is missing"),
        ("tokenizer.json", "no tokenizer.json and no tokenizer.model"),
        ("model.safetensors", "neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_a_folder_that_lacks_a_file_says_which(folder: Path, name: str, message: str):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        opened(folder)


def test_a_folder_without_our_own_files_opens_with_the_defaults_of_janus(folder: Path):
    (folder / "generation_config.json").unlink()
    (folder / "unitok.json").unlink()
    defaults = opened(folder).defaults
    assert (defaults.temperature, defaults.guidance) == (1.0, 5.0)
    assert defaults.known_words is None and "vision assistant" in defaults.system


def test_a_model_carries_its_own_sampling(folder: Path):
    edit(folder / "generation_config.json", temperature=0.25, guidance_scale=3, top_k=7, top_p=0.5)
    defaults = opened(folder).defaults
    assert (defaults.temperature, defaults.guidance) == (0.25, 3)
    assert (defaults.top_k, defaults.top_p) == (7, 0.5)
    edit(folder / "generation_config.json", do_sample=False)
    assert opened(folder).defaults.temperature == 0


def test_files_that_do_not_fit_each_other_are_refused(folder: Path):
    edit(folder / "preprocessor_config.json", size={"height": 384, "width": 384})
    with pytest.raises(ValueError, match="differ in picture size"):
        opened(folder)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 600
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="the tokenizer has 640 ids, the model 600"):
        opened(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "unitok.json"])
def test_broken_json_is_named(folder: Path, name: str, text: str):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} (is not JSON|holds no JSON object)"):
        opened(folder)


def test_a_preprocessor_without_colours_says_so(folder: Path):
    edit(folder / "preprocessor_config.json", image_mean=None)
    with pytest.raises(ValueError, match="image_mean"):
        opened(folder)


# --- preprocessing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "source", "fitted"),
    [
        (384, (500, 333), (384, 255)),  # 255.74: truncated, not rounded
        (384, (333, 500), (255, 384)),
        (384, (384, 384), (384, 384)),
        (384, (1, 20000), (14, 384)),
        (384, (1, 1), (384, 384)),
        (64, (64, 64), (64, 64)),
        (64, (128, 64), (64, 32)),
        (64, (3, 2), (64, 42)),
        (64, (1000, 100), (64, 14)),
        (64, (63, 64), (63, 64)),
    ],
)
def test_sizes_are_truncated_as_in_the_original(size: int, source: tuple, fitted: tuple):
    assert Preprocessor(size).resized(*source) == fitted
    assert Preprocessor(size)(Image.new("RGB", source)).shape == (3, size, size)


def test_the_rest_is_padded_with_the_mean_colour():
    pixels = Preprocessor(64)(Image.new("RGB", (128, 65), (255, 255, 255)))
    bytes_ = ((pixels * 0.5 + 0.5) * 255).round()
    filled = bytes_[0, :, 0]
    assert filled[:16].eq(127).all() and filled[48:].eq(127).all()
    assert filled[16:48].eq(255).all()
    odd = Preprocessor(64)(Image.new("RGB", (3, 2), (255, 255, 255)))
    rows = (odd[0, :, 0] == 1).nonzero().flatten().tolist()
    assert rows == list(range(11, 53)), "42 rows in the middle of 64"


def test_a_picture_of_the_right_size_is_only_normalised():
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels = Preprocessor(64)(Image.fromarray(array))
    expected = torch.from_numpy(array).permute(2, 0, 1).float() / 255 * 2 - 1
    torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)


# --- the family ----------------------------------------------------------------------------------


def test_guided_lines_weigh_one_in_all(whole: Path):
    family, ask = opened(whole), [Message("user", "a dog"), Message("user", "two cats")]
    (line, weight), (against, other) = family.draw(ask, Wish(3.0)).lines
    assert (weight, other) == (3.0, -2.0)
    assert line == family.template.draw(ask)
    alone = family.template.draw(ask[-1:])
    assert against == family.template.unconditional(alone), "the last request, without the talk"
    assert family.draw(ask, Wish(1.0, "a cat")).lines == ((line, 1.0),)
    assert family.draw(ask, Wish(2.0, "a cat")).lines[1][0] == family.template.negative("a cat")


def test_plans_follow_the_vocabulary(whole: Path):
    family = opened(whole)
    text, drawing = family.text_plan(9), family.draw([Message("user", "a dog")], Wish(2.0))
    painted = drawing.plan
    assert (text.max_length, text.exact) == (9, False)
    assert (painted.max_length, painted.exact) == (16, True)
    ids = [[640 + i for i in range(16)]]
    assert drawing.paint(ids).shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="not an image id"):
        drawing.paint([[0] * 16])
