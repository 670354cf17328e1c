"""CLIP and CoCa of open_clip: the same numbers and texts as the library's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.parity.tiny_scorers import TEXTS, pictures
from unitok.baselines.feature_store import FeatureStore
from unitok.baselines.open_clip_models import import_open_clip
from unitok.baselines.opening import load
from unitok.baselines.protocols import Captioner, ImageTextScorer
from unitok.requests import Caption

open_clip = import_open_clip()
VISION = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
WORDS = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
COCA = {
    "embed_dim": 32,
    "vision_cfg": {
        **VISION,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {**WORDS, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {**WORDS, "attn_pooler_heads": 2},
    "custom_text": True,
}
CLIP = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": WORDS}
SIGLIP = {**CLIP, "init_logit_bias": -1.5, "custom_text": True}
KINDS = {"clip": CLIP, "siglip": SIGLIP, "coca": COCA}
PIXELS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}


def write_folder(folder: Path, settings: dict[str, Any]) -> Path:
    """A folder as open_clip writes it, of random weights."""
    folder.mkdir()
    document = {"model_cfg": settings, "preprocess_cfg": PIXELS}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    torch.manual_seed(0)
    model, *_ = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("open_clip")
    return {name: write_folder(place / name, settings) for name, settings in KINDS.items()}


def opened(folder: Path) -> tuple[Any, torch.Tensor]:
    """The library's model, and the pixels of the pictures."""
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), torch.stack([prepare(image) for image in pictures()])


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_library(kind: str, folders: dict[str, Path]):
    scorer = load(folders[kind], "scorer", device="cpu", batch_size=2)
    model, pixels = opened(folders[kind])
    with torch.no_grad():
        images = model.encode_image(pixels, normalize=True)
        texts = model.encode_text(
            open_clip.get_tokenizer(f"local-dir:{folders[kind]}")(TEXTS), normalize=True
        )
        wanted = model.logit_scale.exp() * images @ texts.T
        wanted = wanted + model.logit_bias if kind == "siglip" else wanted
    assert isinstance(scorer, ImageTextScorer)
    torch.testing.assert_close(scorer.score(pictures(), TEXTS), wanted, atol=1e-4, rtol=1e-4)
    chances = wanted.sigmoid() if kind == "siglip" else wanted.softmax(1)
    torch.testing.assert_close(scorer.classify(pictures(), TEXTS), chances, atol=1e-5, rtol=1e-3)


def test_a_search_keeps_the_features_of_files(folders: dict[str, Path], tmp_path: Path):
    scorer = load(folders["clip"], "scorer", device="cpu")
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, image in zip(files, pictures(), strict=True):
        image.save(file)
    first = scorer.search("a cat", files, store=FeatureStore(tmp_path / "kept.safetensors"))
    scorer.encode_images = None  # it is not needed again
    again = scorer.search("a cat", files, store=FeatureStore(tmp_path / "kept.safetensors"))
    assert first == again and len(first) == 3


# --- captions ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coca(folders: dict[str, Path]) -> Any:
    return load(folders["coca"], "captioner", device="cpu", batch_size=2)


def test_captions_are_those_of_the_library(coca: Any, folders: dict[str, Path]):
    model, pixels = opened(folders["coca"])
    options = {"generation_type": "top_k", "top_k": 1, "seq_len": 9, "max_seq_len": 20}
    ids = model.generate(pixels, **options)
    wanted = [open_clip.decode(row) for row in ids]
    results = coca.caption(pictures(), max_tokens=8)
    assert isinstance(coca, Captioner)
    for result, text in zip(results, wanted, strict=True):
        within = text.split("<start_of_text>")[1].split("<end_of_text>")[0].strip()
        assert result.text == within
        assert result.completion_tokens <= 8
    assert len({result.text for result in results}) > 1


def test_a_sampled_caption_follows_its_seed(coca: Any):
    image = pictures()[0]
    one, two = (coca.caption(image, temperature=1.0, seed=s, max_tokens=8).text for s in (1, 2))
    again = coca.caption([image, image], temperature=1.0, seed=1, max_tokens=8)
    assert [result.text for result in again] == [one, one] and one != two


def test_what_a_coca_cannot_do_is_refused_by_name(coca: Any):
    asked = [Caption(pictures()[0], "what is this"), Caption(pictures()[0], max_tokens=1)]
    results = {result.index: result for result in coca.run(asked)}
    assert results[0].error == "coca has no option question: leave it out"
    assert results[1].completion_tokens == 1 and results[1].finish_reason == "length"


def test_a_missing_part_is_named(folders: dict[str, Path], tmp_path: Path):
    text = (folders["clip"] / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(text)
    with pytest.raises(ValueError, match="open_clip cannot open it"):
        load(tmp_path, "scorer", device="cpu")
