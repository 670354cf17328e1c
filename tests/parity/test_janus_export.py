"""An untrained model of the default shape, saved as a transformers Janus, is the same there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, JanusForConditionalGeneration

from unitok.checkpoints.settings import Settings
from unitok.checkpoints.weights import parameters
from unitok.families.janus.config import config_from_json
from unitok.families.janus.weights import load_weights, save_config, save_weights
from unitok.nn.config import DEFAULT, JanusConfig
from unitok.nn.model import UnifiedModel
from unitok_engine import IdRange

PAD, BOS, BOI, EOI, PLACEHOLDER = 0, 1, 3, 4, 5
CONV = dataclasses.replace(
    DEFAULT,
    image_tokenizer=dataclasses.replace(DEFAULT.image_tokenizer, encoder="conv", patch_width=256),
)


def randomised(config: JanusConfig) -> UnifiedModel:
    torch.manual_seed(0)
    model = UnifiedModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.05 + (p if p.ndim == 1 else 0))
        model.image_tokenizer.quantizer.codebook.normal_()  # rows that are not unit norm
    model.image_tokenizer.quantizer.refresh()
    return model


def open_with_transformers(folder: Path) -> tuple[Any, dict[str, Any]]:
    opened: Any = JanusForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    return opened


@pytest.fixture(scope="module", params=["patch", "conv"])
def pair(request, tmp_path_factory):
    config = DEFAULT if request.param == "patch" else CONV
    model = randomised(config)
    folder = tmp_path_factory.mktemp("janus")
    save_weights(model, folder, torch.float32)
    save_config(config, folder, PLACEHOLDER, torch.float32)
    reference, report = open_with_transformers(folder)
    return model, reference.eval(), report, folder, request.param


def test_transformers_loads_it_strictly(pair):
    *_, report, _, encoder = pair
    for keys in (report["missing_keys"], report["unexpected_keys"]):
        others = [k for k in keys if not k.startswith("model.vqmodel.encoder.")]
        assert others == []
        if encoder == "conv":
            assert len(keys) == 0
    assert not report["mismatched_keys"]


def test_text_logits_and_picture_features_agree(pair):
    model, reference, *_ = pair
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        features = model.encode_images(pixels)
        theirs = reference.model.get_image_features(pixels, return_dict=True).pooler_output
        assert torch.allclose(features, theirs, atol=1e-4)

        ids = torch.randint(8, 640, (2, 90))
        ids[:, 0] = BOS
        ids[:, 5:69] = PLACEHOLDER
        hidden = model.embed(ids)
        hidden[:, 5:69] = features
        hidden = model(hidden, torch.arange(90).expand(2, -1))
        ours = model.logits(hidden, IdRange(0, 640))
        assert torch.allclose(ours, reference(input_ids=ids, pixel_values=pixels).logits, atol=1e-4)


def continue_greedily(model, lines, weights, id_range, count):
    """Full recompute of every line for each id; the simplest possible guided loop."""
    emitted = []
    for _ in range(count):
        mixed = torch.zeros(id_range.size)
        for line, weight in zip(lines, weights, strict=True):
            ids = torch.cat([line, torch.tensor(emitted, dtype=torch.long)])
            hidden = model(model.embed(ids), torch.arange(len(ids)))
            mixed = mixed + weight * model.logits(hidden[-1], id_range)
        emitted.append(int(mixed.argmax()) + id_range.start)
    return emitted


def test_greedy_text_agrees(pair):
    model, reference, *_ = pair
    ids = torch.tensor([BOS, 100, 200, 300, 17])
    with torch.no_grad():
        ours = continue_greedily(model, [ids], [1.0], IdRange(0, 640), 20)
    theirs = reference.generate(
        input_ids=ids[None],
        attention_mask=torch.ones(1, 5, dtype=torch.long),
        generation_config=GenerationConfig(
            max_new_tokens=20, do_sample=False, pad_token_id=PAD, eos_token_id=639, bos_token_id=BOS
        ),
    )[0, 5:].tolist()
    if 639 in ours:
        ours = ours[: ours.index(639) + 1]
    assert ours == theirs


def test_greedy_guided_image_ids_and_their_pixels_agree(pair):
    model, reference, *_ = pair
    ids = torch.tensor([BOS, 6, 30, 40, 50, 7, BOI])
    pads = torch.where((ids == BOS) | (ids == BOI), ids, PAD)
    with torch.no_grad():
        ours = continue_greedily(model, [ids, pads], [5.0, -4.0], IdRange(640, 1664), 64)
    config: Any = GenerationConfig(
        do_sample=False, guidance_scale=5, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=2
    )
    config.generation_kwargs = {"boi_token_id": BOI}
    theirs = reference.generate(
        input_ids=ids[None],
        attention_mask=torch.ones(1, 7, dtype=torch.long),
        generation_mode="image",
        generation_config=config,
    )
    codes = torch.tensor([ours]) - 640
    assert torch.equal(codes, theirs)
    with torch.no_grad():
        pixels = model.image_tokenizer.decode_raw(codes).permute(0, 2, 3, 1)
        assert torch.allclose(pixels, reference.decode_image_tokens(theirs), atol=1e-5)


def test_our_own_loader_gives_the_same_tensors_back(pair):
    model, _, _, folder, _ = pair
    config = config_from_json(Settings(json.loads((folder / "config.json").read_text())))
    assert config == model.config
    loaded = load_weights(folder, config, torch.float32, "cpu")
    ours = parameters(model)
    for name, tensor in parameters(loaded).items():
        assert torch.equal(tensor, ours[name]), name
    pictures = torch.rand(2, 3, 64, 64)
    codes = model.image_tokenizer.encode(pictures)
    assert torch.equal(loaded.image_tokenizer.encode(pictures), codes)
