"""A Janus folder: strict config and weights, preprocessing, errors that say what to do."""

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unitok
from tests.unitok.tiny import ASSETS, PATCHES, TINY, save_tiny, tiny_model, tiny_template
from unitok.checkpoints.settings import Settings
from unitok.families import ImageOptions, janus, open_folder
from unitok.families.janus import Preprocessor, Template
from unitok.families.janus import original as janus_original
from unitok.families.janus.config import config_from_json, config_to_json, ratio
from unitok.families.janus.files import defaults_from_json
from unitok.nn.config import DEFAULT, JANUS_PRO_1B, JanusConfig
from unitok.prompt import Message
from unitok_engine import Allow, FixedPlan, IdRange, Stop
from unitok_tokenizers.text import TextTokenizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("janus") / "tiny")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def opened(folder: Path) -> janus.Janus:
    family = open_folder(folder, "cpu", torch.float32, strict=True)
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
    assert config_from_json(Settings(json.loads(json.dumps(data)))) == config


def test_absent_sizes_are_those_of_transformers():
    data = {"model_type": "janus", "vision_config": {"image_size": 384}}
    config = config_from_json(Settings(data))
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
        (
            {
                "text_config": {
                    "rope_parameters": {"rope_type": "default"},
                    "rope_scaling": {"rope_type": "dynamic"},
                }
            },
            "rope scaling",
        ),
        ({"text_config": {"attention_bias": True}}, "attention_bias = True is not supported"),
        ({"vision_config": {"use_qk_norm": True}}, "use_qk_norm = True is not supported"),
        ({"vision_config": {"hidden_act": "gelu_new"}}, "hidden_act = 'gelu_new'"),
        ({"vision_config": {"depth": 3}}, "depth = 3"),
        ({"text_config": {"rope_parameters": {"partial_rotary_factor": 0.5}}}, "partial rotary"),
        ({"text_config": {"rope_parameters": {"mrope_section": [1, 2]}}}, "rope scaling"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, r"^config\.json: rope_scaling = "),
        ({"rope_parameters": {"rope_type": "yarn"}}, r"^config\.json: rope_parameters = "),
        ({"text_config": {"model_type": "gemma"}}, "text_config .*: model_type is 'gemma', not"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "'siglip_vision_model', not"),
        ({"vq_config": {"model_type": "chameleon_vqgan"}}, "not 'janus_vqgan'"),
        ({"vision_config": {"num_image_tokens": 100}}, "a picture has 576 patches"),
        ({"vq_config": {"double_latent": True}}, "double_latent = True"),
    ],
)
def test_what_would_change_the_maths_is_refused(changes: dict, message: str):
    data = config_to_json(TINY, 5, "float32") | changes
    with pytest.raises(ValueError, match=message):
        config_from_json(Settings(data))


@pytest.mark.parametrize("place", [None, "text_config", "vision_config", "vq_config"])
def test_a_setting_that_nobody_knows_is_named_and_if_strict_refused(place: str | None):
    data = config_to_json(TINY, 5, "float32")
    (data[place] if place else data)["mystery"] = None
    where = f"{place} of config.json" if place else "config.json"
    with pytest.raises(
        ValueError, match=rf"^{where} has mystery, which unitok does not know; take"
    ):
        config_from_json(Settings(data, strict=True))
    with pytest.warns(UserWarning, match=f"^{where} has mystery, which unitok does not know, and"):
        assert config_from_json(Settings(data)) == TINY


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_config": [1]}, r"text_config must be an object, not \[1\]"),
        ({"text_config": {"num_attention_heads": 0}}, "num_attention_heads must be .* not 0"),
        ({"text_config": {"hidden_size": "64"}}, "hidden_size must be a whole number .* not '64'"),
        ({"text_config": {"vocab_size": None}}, "vocab_size must be .* not None"),
        ({"text_config": {"num_hidden_layers": True}}, "num_hidden_layers must be .* not True"),
        ({"text_config": {"head_dim": 15}}, "heads of 15 numbers cannot be rotated"),
        ({"text_config": {"rope_parameters": [2]}}, "rope_parameters must be an object"),
        ({"text_config": {"rope_theta": 0}}, "rope_theta must be a number above 0, not 0"),
        ({"text_config": {"rms_norm_eps": "1e-6"}}, "rms_norm_eps must be a number"),
        ({"vision_config": {"patch_size": 0}}, "vision_config .*: patch_size must be .* not 0"),
        ({"vision_config": {"mlp_ratio": float("nan")}}, "mlp_ratio must be a number above 0"),
        ({"vq_config": {"channel_multiplier": 2}}, "channel_multiplier must be a list"),
        ({"vq_config": {"channel_multiplier": [1, 0]}}, "channel_multiplier must be a list"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false"),
        ({"architectures": {}, "model_type": ["janus"]}, "model_type must be text"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_place(
    folder: Path, changes: dict, message: str
):
    data = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        inner = data[key] if isinstance(value, dict) and key.endswith("_config") else {}
        data[key] = inner | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(folder))}: .*{message}") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


# All that the versions 4.4x of transformers write into every config and into every part of one.
OLDER = """return_dict output_hidden_states output_attentions torchscript torch_dtype use_bfloat16
    tf_legacy_loss pruned_heads tie_word_embeddings chunk_size_feed_forward is_encoder_decoder
    is_decoder cross_attention_hidden_size add_cross_attention tie_encoder_decoder max_length
    min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature
    top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
    return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens architectures
    finetuning_task id2label label2id tokenizer_class prefix bos_token_id pad_token_id eos_token_id
    sep_token_id decoder_start_token_id task_specific_params problem_type _name_or_path
    transformers_version _attn_implementation_autoset""".split()


def test_what_older_versions_of_transformers_write_does_not_matter():
    data = config_to_json(TINY, 5, "float32")
    older = dict.fromkeys(OLDER)
    data["text_config"] |= {"rope_scaling": None, "pretraining_tp": 1}
    for place in ("text_config", "vision_config", "vq_config"):
        data[place] = older | data[place]
    assert config_from_json(Settings(older | data, strict=True)) == TINY


@pytest.mark.parametrize("width", [33, 64, 1000, 1152])
@pytest.mark.parametrize("size", [1, 77, 4304])
def test_a_ratio_gives_the_size_again(width: int, size: int):
    assert int(width * ratio(size, width)) == size


# --- DeepSeek's own config -----------------------------------------------------------------------


def published(hidden: int = 2048) -> dict[str, Any]:
    """config.json of Janus-Pro-1B, as far as it is known."""
    projector = {"depth": 2, "n_embed": hidden, "projector_type": "mlp_gelu"}
    tower = {
        "image_size": 384,
        "model_name": "siglip_large_patch16_384",
        "select_feature": "same",
        "select_layer": -1,
    }
    head = {"image_token_embed": hidden, "image_token_size": 16384, "n_embed": hidden}
    parts = {
        "vision": ("CLIPVisionTower", tower),
        "aligner": ("MlpProjector", projector | {"input_dim": 1024}),
        "gen_vision": ("VQ-16", {"image_token_size": 16384, "n_embed": 8}),
        "gen_aligner": ("MlpProjector", projector | {"input_dim": 8}),
        "gen_head": ("vision_head", head),
    }
    language = {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "max_position_embeddings": 16384,
        "model_type": "llama",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "num_key_value_heads": 16,
        "torch_dtype": "bfloat16",
        "vocab_size": 102400,
    }
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.33.1",
        "language_config": language,
    } | {
        f"{part}_config": {"cls": cls, "model_type": part, "params": params}
        for part, (cls, params) in parts.items()
    }


def read_original(data: dict[str, Any]) -> JanusConfig:
    settings = Settings(json.loads(json.dumps(data)), strict=True)
    return janus_original.config_from_json(settings)


@pytest.mark.filterwarnings("error")
def test_the_published_configs_are_the_sizes_we_know():
    assert read_original(published()) == JANUS_PRO_1B
    seven = published(4096)
    seven["language_config"] = {
        "max_position_embeddings": 16384,
        "model_type": "llama",
        "num_hidden_layers": 30,
        "torch_dtype": "bfloat16",
        "vocab_size": 102400,
    }
    decoder = read_original(seven).decoder
    assert (decoder.hidden_size, decoder.intermediate_size, decoder.layers) == (4096, 11008, 30)
    assert (decoder.heads, decoder.kv_heads, decoder.head_dim) == (32, 32, 128)


@pytest.mark.parametrize("config", [TINY, DEFAULT, JANUS_PRO_1B], ids=["tiny", "default", "1B"])
@pytest.mark.filterwarnings("error")
def test_a_config_in_the_originals_words_makes_the_round_trip(config: JanusConfig):
    assert read_original(janus_original.config_to_json(config, "bfloat16", tied=False)) == config


def test_what_is_written_of_a_published_size_names_it_as_deepseek_does():
    data = janus_original.config_to_json(JANUS_PRO_1B, "bfloat16", tied=False)
    for part in janus_original.CLASSES:
        assert data[f"{part}_config"] == published()[f"{part}_config"]


@pytest.mark.parametrize(
    ("select", "layers"), [(-1, 24), (-2, 23), (0, 24), (5, 5), (40, 24), (None, 23)]
)
def test_a_tower_is_cut_where_the_features_are_taken(select: int | None, layers: int):
    data = published()
    params = data["vision_config"]["params"]
    params["select_layer"] = select
    if select is None:
        del params["select_layer"]
    assert read_original(data).vision.layers == layers


def without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in data.items() if k != key}


@pytest.mark.parametrize(
    ("part", "params", "message"),
    [
        ("vision", {"model_name": "sam_b_downsample"}, "model_name must be one of siglip_large"),
        ("vision", {"pixel_mean": [0.5] * 3}, "pixel_mean"),
        ("vision", {"ignore_head": False}, "ignore_head"),
        ("aligner", {"projector_type": "linear"}, "projector_type = 'linear' is not supported"),
        ("gen_aligner", {"depth": 1}, "depth = 1 is not supported"),
        ("gen_vision", {"decoder_ch_mult": [1, 2]}, "differ"),
        ("vision", {"mystery": 1}, "vision_config has mystery, which unitok does not know"),
        ("vision", {"select_layer": -25}, "select_layer -25 is none of 24 layers"),
        ("vision", {"select_layer": "last"}, "select_layer 'last' is none"),
        ("vision", {"image_size": [384, 384]}, "image_size must be a whole number"),
        ("gen_vision", {"image_token_size": 0}, "image_token_size must be a whole number"),
    ],
)
def test_what_would_change_the_originals_maths_is_refused(part: str, params: dict, message: str):
    data = published()
    data[f"{part}_config"]["params"] |= params
    with pytest.raises(ValueError, match=message):
        read_original(data)


def test_a_part_in_the_originals_words_is_checked_around_its_params():
    for changes, message in (
        ({"model_type": "clip"}, "vision_config: model_type is 'clip', not 'vision'"),
        ({"layers": 12}, "vision_config has layers, which unitok does not know"),
        ({"params": "abc"}, "vision_config: params must be an object, not 'abc'"),
    ):
        data = published()
        data["vision_config"] |= changes
        with pytest.raises(ValueError, match=message):
            read_original(data)
    data = published()
    data["language_config"]["model_type"] = "gemma"
    with pytest.raises(ValueError, match="model_type is 'gemma', not 'llama'"):
        read_original(data)


def test_absent_sizes_are_those_of_the_originals_code():
    """CLIPVisionTower's image_size and MlpProjector's depth, which is one we cannot do."""
    data = published()
    del data["vision_config"]["params"]["image_size"]
    vision = read_original(data).vision
    assert (vision.image_size, vision.patches) == (336, 21 * 21)
    for part in ("aligner", "gen_aligner"):
        data = published()
        del data[f"{part}_config"]["params"]["depth"]
        with pytest.raises(ValueError, match=f"{part}_config: depth = 1 is not supported"):
            read_original(data)


def test_relatives_of_the_same_model_type_are_told_apart():
    for relative in (without(published(), "gen_vision_config"), {"model_type": "multi_modality"}):
        with pytest.raises(ValueError, match=r"not of Janus or Janus-Pro \(of JanusFlow or"):
            read_original(relative)
    data = published()
    data["gen_vision_config"]["cls"] = "ShallowUViTEncoder"
    with pytest.raises(ValueError, match="cls is 'ShallowUViTEncoder'; Janus's is 'VQ-16'"):
        read_original(data)
    data = published()
    data["language_config"]["rope_scaling"] = {"type": "linear", "factor": 4.0}
    with pytest.raises(ValueError, match="rope scaling"):
        read_original(data)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({"temperature": -1}, "temperature must be 0 or more"),
        ({"top_k": 2.5}, "top_k must be a number, not 2.5"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"guidance_scale": [5]}, "guidance must be a number"),
        ({"do_sample": "no"}, "do_sample must be true or false"),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(folder: Path, changes: dict, message: str):
    edit(folder / "generation_config.json", **changes)
    with pytest.raises(ValueError, match=f"generation_config.json: {message}"):
        opened(folder)


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


def test_a_preprocessor_may_stand_inside_the_processors_file(folder: Path):
    """So transformers 5 writes it."""
    path = folder / "preprocessor_config.json"
    stated = json.loads(path.read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": stated}))
    expected = opened(folder).preprocess
    path.unlink()
    assert opened(folder).preprocess == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_normalize": False}, "do_normalize = False is not supported"),
        ({"do_pad": False}, "do_pad = False is not supported"),
        ({"do_center_crop": True}, "do_center_crop = True"),
        ({"crop_size": {"height": 32, "width": 32}}, "crop_size = "),
        ({"mystery": 1}, "has mystery, which unitok does not know"),
        ({"size": {"height": 64, "width": 32}}, "must be square"),
        ({"size": "64"}, "must be square, of a size in pixels, not '64'"),
        ({"image_size": 32}, "size and image_size differ"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std must be above 0"),
        ({"image_mean": [0.5]}, "image_mean must be one number or three"),
        ({"image_mean": ["a"] * 3}, "image_mean must be one number or three"),
        ({"min_size": 0}, "min_size must be a whole number above 0"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor must be 1/255"),
        ({"resample": 2}, "resample = 2 is not supported; it must be 3"),
        ({"size": {"shortest_edge": 64}}, "must be square"),
        ({"image_mean": None, "image_std": None}, "no image_mean and no image_std"),
    ],
)
def test_a_preprocessor_with_other_steps_is_refused(folder: Path, changes: dict, message: str):
    edit(folder / "preprocessor_config.json", **changes)
    with pytest.raises(ValueError, match=message):
        opened(folder)


@pytest.mark.parametrize("token", ["<image_placeholder>", "<｜▁pad▁｜>", "<begin_of_image>"])
def test_a_tokenizer_without_a_token_of_janus_says_so(folder: Path, token: str):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text().replace(token, token.replace("a", "o")))
    with pytest.raises(ValueError, match=f"no token '{token}'"):
        opened(folder)


def test_a_folder_of_another_architecture_is_refused(folder: Path):
    edit(folder / "config.json", model_type="llava")
    with pytest.raises(
        ValueError, match=r"model_type 'llava', which is no family .*checkpoints\.md"
    ):
        opened(folder)


# --- saving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [None, "transformers", "original"])
def test_a_saved_model_is_the_loaded_one(whole: Path, tmp_path: Path, layout: str | None):
    target = tmp_path / "deep" / "folder"
    unitok.load(whole, device="cpu").save(target, layout)
    before, after = opened(whole), opened(target)
    assert after.model.config == before.model.config
    assert (after.defaults, after.preprocess) == (before.defaults, before.preprocess)
    assert (after.template.user, after.template.assistant) == ("<|User|>", "<|Assistant|>")
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], tensor), name
    model_type = "multi_modality" if layout == "original" else "janus"
    assert json.loads((target / "config.json").read_text())["model_type"] == model_type


@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_plain_roles_and_own_sampling_survive_a_save(folder: Path, tmp_path: Path, layout: str):
    settings = {"do_sample": True, "temperature": 0.5, "top_k": 9, "top_p": 0.75}
    edit(folder / "generation_config.json", **settings)
    (folder / "chat_template.jinja").write_text("User: ")
    unitok.load(folder, device="cpu").save(tmp_path / "saved", layout)
    saved = opened(tmp_path / "saved")
    assert (saved.template.user, saved.template.assistant) == ("User", "Assistant")
    d = saved.defaults
    assert (d.temperature, d.top_k, d.top_p) == (0.5, 9, 0.75)


def test_a_model_from_no_folder_cannot_be_saved(tmp_path: Path):
    defaults = defaults_from_json({}, {})
    made = janus.Janus("made", tiny_model(), tiny_template(), Preprocessor(64), defaults)
    with pytest.raises(ValueError, match="came from no folder"):
        made.save(tmp_path)


# --- prompts -------------------------------------------------------------------------------------


def test_space_around_what_is_said_is_dropped():
    template = tiny_template()
    bare = template.draw([Message("user", "two cats")])
    assert template.draw([Message("user", " \n two cats\n\n")]) == bare
    turns = [Message("user", "a"), Message("assistant", " b \n"), Message("user", "c")]
    neat = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert template.answer(turns, "  be terse") == template.answer(neat, "be terse")
    assert template.answer(neat, " \n") == template.answer(neat)


def test_a_role_that_is_no_token_is_text():
    tokenizer = TextTokenizer.load(ASSETS)
    plain = Template(tokenizer, PATCHES, user="cat", assistant="dog")
    line = plain.answer([Message("user", "two")])
    assert list(line.token_ids[1:]) == tokenizer.encode_plain("cat: two\n\ndog:")
    marked = Template(tokenizer, PATCHES).answer([Message("user", "two")])
    assert marked.token_ids[1] == tokenizer.id("<|User|>")


# --- odd pictures --------------------------------------------------------------------------------


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def odd_pictures() -> dict[str, tuple[bytes, Image.Image]]:
    """Each odd file, and the RGB picture that it is."""
    red, half = Image.new("RGB", (40, 20), "red"), Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    deep = Image.fromarray(np.full((20, 40), 200 * 257, dtype=np.uint16))
    frames = [red, Image.new("RGB", (40, 20), "blue")]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    grey = Image.new("RGB", (40, 20), (200, 200, 200))
    return {
        "CMYK": (
            encoded(Image.new("CMYK", (40, 20), (0, 0, 0, 255)), "TIFF"),
            Image.new("RGB", (40, 20)),
        ),
        "16-bit": (encoded(deep, "PNG"), grey),
        "animated": (animated, red),
        "alpha": (encoded(half, "PNG"), Image.new("RGB", (40, 20), "white")),
        "1x1": (encoded(red.crop((0, 0, 1, 1)), "PNG"), red.crop((0, 0, 1, 1))),
        "1x20000": (
            encoded(Image.new("RGB", (1, 20000), "red"), "PNG"),
            Image.new("RGB", (1, 20000), "red"),
        ),
    }


@pytest.mark.parametrize("name", odd_pictures())
def test_an_odd_picture_is_read_as_what_it_shows(whole: Path, name: str):
    model: Any = unitok.load(whole, device="cpu")
    file, shown = odd_pictures()[name]
    expected = model.family.encode_image(shown).segments[1]
    read = model.prepare.encode(file).segments[1]
    assert read.digest == expected.digest and read.length == PATCHES
    assert torch.equal(read.compute(), expected.compute())
    assert model.caption(file, max_tokens=2).completion_tokens == 2


def test_a_picture_that_is_cut_off_is_one_clear_error(whole: Path):
    model = unitok.load(whole, device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for format in ("PNG", "JPEG"):
        file = encoded(Image.fromarray(noise), format)
        with pytest.raises(ValueError, match="cut off or damaged"):
            model.caption(file[: len(file) // 2])


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
    prompt, against = family.generation_spec(ask, ImageOptions(3.0)).branches
    assert (prompt.weight, against.weight) == (3.0, -2.0)
    assert replace(prompt, weight=1.0) == family.template.draw(ask)
    alone = family.template.draw(ask[-1:])
    assert replace(against, weight=1.0) == family.template.unconditional(alone), (
        "the last request, without the talk"
    )
    assert family.generation_spec(ask, ImageOptions(1.0, "a cat")).branches == (
        family.template.draw(ask),
    )
    negative = family.generation_spec(ask, ImageOptions(2.0, "a cat")).branches[1]
    assert replace(negative, weight=1.0) == family.template.negative("a cat")


def test_plans_follow_the_vocabulary(whole: Path):
    family = opened(whole)
    text, drawing = (
        family.text_plan(9),
        family.generation_spec([Message("user", "a dog")], ImageOptions(2.0)),
    )
    painted = drawing.plan
    assert (text.max_length, text.exact) == (9, False)
    assert (painted.max_length, painted.exact) == (16, True)
    ids = [[640 + i for i in range(16)]]
    assert drawing.decode(ids).shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="not an image token"):
        drawing.decode([[0] * 16])


def test_a_drawing_is_planned_as_so_many_image_ids(whole: Path):
    plan = opened(whole).plan
    fixed = FixedPlan(IdRange(640, 640 + 48), PATCHES)
    assert (plan.max_length, plan.exact) == (fixed.max_length, fixed.exact)
    for count in range(PATCHES):
        asked, expected = (p.next([650] * count) for p in (plan, fixed))
        assert isinstance(asked, Allow) and isinstance(expected, Allow)
        assert (asked.id_range, asked.mask) == (expected.id_range, None)
    emitted = list(range(640, 640 + PATCHES))
    assert plan.next(emitted) == fixed.next(emitted) == Stop("complete")
    assert plan.image_ids(emitted) == emitted
