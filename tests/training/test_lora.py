"""LoRA in training: which layers get products, what is frozen, what is learned and saved."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unitok.tiny import TINY, tiny_model
from tests.unitok.tiny_chameleon import tiny_model as tiny_chameleon
from unitok.checkpoints.lora_files import read_adapter
from unitok.checkpoints.saving import stored_tensors
from unitok.families.janus import Janus
from unitok.nn.lora import merge
from unitok.nn.model import UnifiedModel
from unitok.training.lora import LoraOptions, adapter_of, add_lora, save_adapter
from unitok_engine import IdRange

PROJECTIONS = ("attention.q", "attention.k", "attention.v", "attention.o")
PROJECTIONS += ("mlp.gate", "mlp.up", "mlp.down")
IDS = torch.arange(20, 40)


def family_of(model: UnifiedModel) -> Any:
    """All of a family that an adapter's files need."""
    return SimpleNamespace(name="tiny", model=model, weight_names=Janus.weight_names)


def logits(model: UnifiedModel) -> Tensor:
    hidden = model(model.embed(IDS), torch.arange(len(IDS)))
    texts = model.logits(hidden, IdRange(0, TINY.decoder.vocab_size))
    return torch.cat([texts, model.logits(hidden, model.vocabulary.image_range)], dim=-1)


def train(model: UnifiedModel, steps: int = 3) -> None:
    """A few updates of all that is trained, towards any logits."""
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        logits(model).logsumexp(-1).mean().backward()
        optimiser.step()


def trained_names(model: UnifiedModel) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


# --- what is trained -----------------------------------------------------------------------------


def test_by_default_all_seven_projections_of_every_block_get_products_and_nothing_else_is_trained():
    model = tiny_model()
    add_lora(model, LoraOptions(rank=4))
    layers = {name.partition(".lora_")[0] for name in trained_names(model)}
    assert layers == {f"decoder.blocks.{i}.{part}" for i in range(2) for part in PROJECTIONS}
    assert all(".lora_" in name for name in trained_names(model))
    assert len(trained_names(model)) == 2 * len(layers)


def test_the_products_are_nothing_at_first_and_learn():
    model, before = tiny_model(), logits(tiny_model())
    add_lora(model, LoraOptions(rank=4))
    assert torch.equal(logits(model), before)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    train(model)
    assert (logits(model) - before).abs().max() > 0.1
    assert all(torch.equal(model.get_parameter(name), old) for name, old in frozen.items())


def test_layers_and_parts_are_chosen_by_names_and_globs():
    model = tiny_model()
    targets = ["*.blocks.1.attention.[qv]", "image_head", "vision_aligner.fc1"]
    add_lora(model, LoraOptions(targets=targets, also_train=["decoder.norm", "image_aligner.*"]))
    names = trained_names(model)
    layers = {name.partition(".lora_")[0] for name in names if ".lora_" in name}
    assert layers == {
        "decoder.blocks.1.attention.q",
        "decoder.blocks.1.attention.v",
        "image_head.fc1",
        "image_head.fc2",
        "vision_aligner.fc1",
    }
    assert {name for name in names if ".lora_" not in name} == {
        "decoder.norm.weight",
        *(
            f"image_aligner.{layer}.{kind}"
            for layer in ("fc1", "fc2")
            for kind in ("weight", "bias")
        ),
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"targets": ["decoder.block"]}, "targets: 'decoder.block' .* nearest is decoder.blocks$"),
        ({"targets": ["image_haed"]}, "targets: 'image_haed' .* nearest is image_head$"),
        ({"targets": ["*.q_proj"]}, r"targets: '\*.q_proj' matches nothing"),
        ({"targets": ["text_embedding"]}, "targets: 'text_embedding' matches nothing"),
        ({"targets": ["image_tokenizer"]}, "targets: 'image_tokenizer' matches nothing"),
        ({"also_train": ["decoder.nrm"]}, "also_train: 'decoder.nrm' .* nearest is decoder.norm$"),
        ({"also_train": ["decoder.blocks.1"]}, "decoder.blocks.1.attention.q is among the targets"),
        (
            {"targets": ["image_head"], "also_train": ["*.fc1.bias"]},
            "image_head.fc1 is among the targets, and also_train trains its bias in full",
        ),
    ],
)
def test_a_name_that_matches_nothing_is_told_with_the_nearest(options, told):
    model = tiny_model()
    with pytest.raises(ValueError, match=told):
        add_lora(model, LoraOptions(**options))
    assert model.lora is None and not any(".lora_" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rank": 0}, "rank must be from 1 to 2048, not 0"),
        ({"rank": 2049}, "rank must be"),
        ({"rank": True}, "rank must be"),
        ({"alpha": 0}, "alpha must be a number above 0"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1, not 1.0"),
        ({"targets": "decoder"}, "targets must be a list of names"),
        ({"targets": []}, "targets must name at least one layer"),
        ({"also_train": [3]}, "also_train must be a list of names"),
    ],
)
def test_options_out_of_their_range_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        LoraOptions(**options)


def test_a_head_that_is_used_by_rows_can_have_no_product():
    model = tiny_chameleon()
    with pytest.raises(ValueError, match="targets: 'text_head' matches nothing"):
        add_lora(model, LoraOptions(targets=["text_head"]))
    add_lora(model, LoraOptions())


def test_a_model_that_has_products_or_is_prepared_is_refused():
    model = tiny_model()
    add_lora(model, LoraOptions())
    with pytest.raises(ValueError, match="has LoRA layers already"):
        add_lora(model, LoraOptions())
    prepared = tiny_model()
    prepared.prepare()
    with pytest.raises(ValueError, match="prepared for inference"):
        add_lora(prepared, LoraOptions())


def test_the_products_of_a_model_in_few_bits_are_float32():
    model = tiny_model().to(torch.bfloat16)
    add_lora(model, LoraOptions(rank=2))
    assert {model.get_parameter(name).dtype for name in trained_names(model)} == {torch.float32}
    assert model.dtype is torch.bfloat16
    assert logits(model).dtype is torch.bfloat16


def test_dropout_is_for_training_alone():
    model = tiny_model()
    add_lora(model, LoraOptions(rank=2, dropout=0.5))
    train(model)
    first, second = logits(model.train()), logits(model)
    assert not torch.equal(first, second)
    assert torch.equal(logits(model.eval()), logits(model))


def test_without_peft_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        ImportError, match=r"^LoRA needs peft: pip install 'unitok-engine\[train\]'$"
    ):
        add_lora(tiny_model(), LoraOptions())


# --- what was learned ----------------------------------------------------------------------------


def test_what_was_learned_is_merged_into_the_base_from_its_folder(tmp_path):
    model = tiny_model()
    add_lora(model, LoraOptions(rank=4, alpha=6.0, dropout=0.1, also_train=["image_head"]))
    train(model.train())
    save_adapter(family_of(model), tmp_path / "adapter")
    base = tiny_model()
    adapter = read_adapter(tmp_path / "adapter", family_of(base))
    assert {added.scale for added in adapter.layers.values()} == {1.5}
    assert set(adapter.full) == {
        f"image_head.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")
    }
    assert adapter.digest == adapter_of(model).digest
    merge(base, adapter)
    torch.testing.assert_close(logits(base), logits(model.eval()), atol=1e-4, rtol=1e-4)


def test_an_adapter_may_be_taken_from_another_state_such_as_averages():
    model = tiny_model()
    add_lora(model, LoraOptions(rank=2, also_train=["decoder.norm"]))
    ones = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    adapter = adapter_of(model, "ones", ones)
    tensors = [t for added in adapter.layers.values() for t in (added.a, added.b)]
    assert all((tensor == 1).all() for tensor in [*tensors, *adapter.full.values()])
    assert adapter.name == "ones" and adapter.digest != adapter_of(model).digest


def test_an_adapter_does_not_change_when_training_goes_on():
    model = tiny_model()
    add_lora(model, LoraOptions(rank=2))
    adapter = adapter_of(model)
    before = {name: added.b.clone() for name, added in adapter.layers.items()}
    train(model)
    assert all(torch.equal(adapter.layers[name].b, b) for name, b in before.items())


def test_a_bias_alone_is_saved_with_its_weight_as_peft_wants_whole_modules():
    model = tiny_model()
    add_lora(model, LoraOptions(also_train=["image_head.fc1.bias"]))
    assert [n for n in trained_names(model) if ".lora_" not in n] == ["image_head.fc1.bias"]
    assert set(adapter_of(model).full) == {"image_head.fc1.weight", "image_head.fc1.bias"}


def test_a_model_without_products_has_no_adapter_and_one_with_them_is_no_checkpoint():
    with pytest.raises(ValueError, match="no LoRA layers: call add_lora first"):
        adapter_of(tiny_model())
    model = tiny_model()
    add_lora(model, LoraOptions())
    with pytest.raises(ValueError, match="save the adapter, and merge it into the base"):
        stored_tensors(model, Janus.weight_names[0], torch.float32)
