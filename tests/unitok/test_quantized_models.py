"""Models of few bits: how they are loaded, what they give, and what they combine with."""

import dataclasses
import re
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import unitok
from tests.unitok.adapters import random_adapter, saved
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.test_compile import CAN_COMPILE, forced_logits
from tests.unitok.tiny import ASSETS, TINY, save_tiny, tiny_model, tiny_template
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
    Quantized,
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


def load(folder: Path, quantize: str | None = "int8", **options) -> unitok.Model:
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
    folder = FOLDERS[family](tmp_path)
    with load(folder, "int8") as model:
        assert len(replaced(model.family.model)) >= 14
        assert model.draw("two apples", seed=1).image.size == model.info().picture_size
        assert model.caption(Image.new("RGB", (64, 64), "red"), max_tokens=3).text is not None


# --- streaming -----------------------------------------------------------------------------------


class Dense:
    """Counts the bytes of weights that are alive while a checkpoint is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most, self._alive = 0, {}
        place = weights.place

        def counted(model: nn.Module, key: str, value: Tensor) -> None:
            place(model, key, value)
            storage = value.untyped_storage()
            self._alive[key] = weakref.ref(value), storage.nbytes()
            alive = [bytes for ref, bytes in self._alive.values() if ref() is not None]
            self.most = max(self.most, sum(alive))

        monkeypatch.setattr(weights, "place", counted)
