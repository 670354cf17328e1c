"""Adapters go both ways: PEFT over transformers' Janus opens ours, and we open what it writes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3TextConfig,
    JanusForConditionalGeneration,
)

from tests.parity.janus_reference import SHAPES, make_tokenizer, reference, write_folder
from unitok.checkpoints.fingerprint import fingerprint_of
from unitok.checkpoints.lora_files import read_adapter
from unitok.checkpoints.lora_saving import write_adapter
from unitok.families import open_folder
from unitok.families.chameleon import Chameleon
from unitok.families.emu3 import Emu3
from unitok.nn.lora import merge
from unitok.training.lora import LoraOptions, add_lora, save_adapter

WORDS = make_tokenizer()
IDS = torch.arange(7, 27)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    theirs = reference(SHAPES["grouped heads"], WORDS)
    return write_folder(tmp_path_factory.mktemp("janus") / "janus", theirs, WORDS)


@pytest.fixture
def ours(folder: Path) -> Any:
    return open_folder(folder, "cpu", torch.float32)


@pytest.fixture
def theirs(folder: Path) -> Any:
    return JanusForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def pixels(model: Any) -> Tensor:
    side = model.config.vision.image_size
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2)) * 2 - 1


@torch.no_grad()
def our_outputs(model: Any) -> list[Tensor]:
    """Logits of text and of images, and embeddings of a picture that is read."""
    hidden = model(model.embed(IDS), torch.arange(len(IDS)))
    logits = [model.logits(hidden, id_range) for id_range in model.id_ranges]
    return [*logits, model.encode_images(pixels(model))[0]]


@torch.no_grad()
def their_outputs(model: Any, seen: Tensor) -> list[Tensor]:
    """The same of transformers' model, or of PEFT's around it."""
    inner: Any = model.base_model.model if isinstance(model, PeftModel) else model
    hidden = inner.model.language_model(input_ids=IDS[None]).last_hidden_state
    text = inner.lm_head(hidden)[0]
    images = inner.model.generation_head(hidden)[0]
    features = inner.model.get_image_features(seen, return_dict=True).pooler_output[0]
    return [text, images, features]


def assert_alike(left: list[Tensor], right: list[Tensor]) -> None:
    for ours, theirs in zip(left, right, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def assert_all_changed(left: list[Tensor], right: list[Tensor]) -> None:
    for ours, theirs in zip(left, right, strict=True):
        assert (ours - theirs).abs().max() > 1e-2


def fill_randomly(model: Any) -> None:
    """Numbers in all trained parameters, as if they had been trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.1


ALL = LoraOptions(
    rank=3,
    alpha=5.0,
    targets=("decoder.blocks", "vision.blocks.*", "text_head", "vision_aligner"),
    also_train=("image_head", "decoder.norm", "vision.norm.bias"),
)


def test_peft_opens_what_we_trained_and_computes_the_same(ours, theirs, tmp_path):
    before = our_outputs(ours.model)
    add_lora(ours.model, ALL)
    assert_alike(our_outputs(ours.model), before)
    fill_randomly(ours.model)
    save_adapter(ours, tmp_path / "ours")
    with_adapter = our_outputs(ours.model)
    assert_all_changed(with_adapter, before)
    opened = PeftModel.from_pretrained(theirs, str(tmp_path / "ours")).eval()
    assert_alike(with_adapter, their_outputs(opened, pixels(ours.model)))


def test_what_we_trained_is_the_same_when_it_is_merged_from_its_folder(ours, folder, tmp_path):
    add_lora(ours.model, ALL)
    fill_randomly(ours.model)
    save_adapter(ours, tmp_path / "ours")
    base = open_folder(folder, "cpu", torch.float32)
    merge(base.model, read_adapter(tmp_path / "ours", base))
    assert_alike(our_outputs(base.model), our_outputs(ours.model))


TARGETS = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "fc1",
    "fc2",
]
CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 16},
    "rank-stabilised": {"r": 4, "lora_alpha": 3, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"q_proj": 2, r"layers\.0\.mlp\..*_proj": 5},
        "alpha_pattern": {"^model.language_model.layers.0.self_attn.v_proj": 32, "fc1": 1},
    },
    "rank-stabilised patterns": {
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "rank_pattern": {"down_proj": 6},
        "alpha_pattern": {"down_proj": 7},
    },
    "full parts": {"r": 2, "modules_to_save": ["generation_head", "aligner.fc1"]},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_we_open_what_peft_wrote_and_compute_the_same(kind, ours, theirs, tmp_path):
    before = our_outputs(ours.model)
    targets = TARGETS[:7] if kind == "full parts" else TARGETS
    config = LoraConfig(target_modules=[*targets, "lm_head"], **CONFIGS[kind])
    trained = get_peft_model(theirs, config).eval()
    fill_randomly(trained)
    trained.save_pretrained(str(tmp_path / "theirs"))
    merge(ours.model, read_adapter(tmp_path / "theirs", ours))
    with_adapter = our_outputs(ours.model)
    assert_alike(with_adapter, their_outputs(trained, pixels(ours.model)))
    assert_all_changed(with_adapter[:2], before[:2])


def test_an_adapter_with_patterns_is_written_as_it_was_read(ours, theirs, tmp_path):
    config = LoraConfig(target_modules=TARGETS, **CONFIGS["rank-stabilised patterns"])
    trained = get_peft_model(theirs, config).eval()
    fill_randomly(trained)
    trained.save_pretrained(str(tmp_path / "theirs"))
    read = read_adapter(tmp_path / "theirs", ours)
    write_adapter(read, tmp_path / "again", ours, fingerprint_of(ours.model))
    again = read_adapter(tmp_path / "again", ours)
    assert {name: len(added.a) for name, added in again.layers.items()} == {
        name: len(added.a) for name, added in read.layers.items()
    }
    opened = PeftModel.from_pretrained(trained.unload(), str(tmp_path / "again"))
    merge(ours.model, read)
    assert_alike(our_outputs(ours.model), their_outputs(opened.eval(), pixels(ours.model)))


REFUSED = {
    "use_dora": {"use_dora": True},
    "bias": {"bias": "lora_only"},
    "lora_bias": {"lora_bias": True},
    "trainable_token_indices": {"trainable_token_indices": [1, 2]},
    "init_lora_weights": {"init_lora_weights": "pissa"},
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_kind_of_adapter_that_we_do_not_do_is_refused_by_name(key, ours, theirs, tmp_path):
    trained = get_peft_model(theirs, LoraConfig(target_modules=["q_proj"], **REFUSED[key]))
    trained.save_pretrained(str(tmp_path / "theirs"))
    with pytest.raises(ValueError, match=rf"adapter_config\.json: {key} = "):
        read_adapter(tmp_path / "theirs", ours)


def test_an_adapter_of_a_tied_head_leaves_the_embedding_as_it_is(tmp_path):
    theirs = reference(SHAPES["grouped heads"], WORDS, tied=True)
    folder = write_folder(tmp_path / "tied", theirs, WORDS)
    trained = get_peft_model(theirs, LoraConfig(target_modules=["lm_head", "q_proj"])).eval()
    fill_randomly(trained)
    trained.save_pretrained(str(tmp_path / "theirs"))
    ours = open_folder(folder, "cpu", torch.float32)
    before = ours.model.text_embedding.weight.clone()
    merge(ours.model, read_adapter(tmp_path / "theirs", ours))
    assert torch.equal(ours.model.text_embedding.weight, before)
    assert_alike(our_outputs(ours.model), their_outputs(trained, pixels(ours.model)))


def small(made: Any, **others: Any) -> Any:
    """A text decoder's configuration."""
    sizes: Any = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    return made(**sizes, num_attention_heads=2, num_key_value_heads=2, vocab_size=80, **others)


def make_chameleon() -> Any:
    return ChameleonForConditionalGeneration(small(ChameleonConfig, vocabulary_map={"<image>": 3}))


def make_emu3() -> Any:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = Emu3Config(
        text_config=small(Emu3TextConfig, **ids), vocabulary_map={"<|extra_200|>": 3}
    )
    return Emu3ForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("made", "names"),
    [(make_chameleon, Chameleon.weight_names[0]), (make_emu3, Emu3.weight_names[0])],
    ids=["chameleon", "emu3"],
)
def test_layers_have_the_names_of_the_classes_of_other_families(made, names):
    with torch.device("meta"):
        modules = dict(made().named_modules())
    for part in ("q", "k", "v", "o"):
        stored = names(f"decoder.blocks.0.attention.{part}.weight").name
        assert isinstance(modules[stored.removesuffix(".weight")], torch.nn.Linear)
    for part in ("gate", "up", "down"):
        stored = names(f"decoder.blocks.0.mlp.{part}.weight").name
        assert isinstance(modules[stored.removesuffix(".weight")], torch.nn.Linear)
