"""A tiny model with grouped heads and random weights large enough that inputs matter."""

from pathlib import Path

import torch
from PIL import Image

from unitok.emoji.export import save_folder
from unitok.families.janus import Template
from unitok.nn.config import DecoderConfig, JanusConfig, VisionConfig
from unitok.nn.model import UnifiedModel
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.text import TextTokenizer

ASSETS = Path(__file__).resolve().parents[2] / "unitok" / "assets" / "default"
PATCHES = 16

TINY = JanusConfig(
    decoder=DecoderConfig(
        vocab_size=640,
        hidden_size=64,
        intermediate_size=96,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        max_positions=256,
    ),
    vision=VisionConfig(
        image_size=64, patch_size=16, hidden_size=32, intermediate_size=64, layers=1, heads=2
    ),
    image_tokenizer=AutoencoderConfig(
        image_size=64,
        codebook_size=48,
        code_dim=8,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=(1, 1, 1, 1, 1),
        res_blocks=1,
        encoder="patch",
        patch_width=32,
    ),
)


def tiny_model(seed: int = 0, config: JanusConfig = TINY) -> UnifiedModel:
    torch.manual_seed(seed)
    model = UnifiedModel(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not name.startswith("image_tokenizer"):
            parameter.normal_(std=0.2)
    model.image_tokenizer.quantizer.codebook.normal_()  # rows that are not unit norm
    model.image_tokenizer.quantizer.refresh()
    return model


def tiny_template() -> Template:
    return Template(TextTokenizer.load(ASSETS), PATCHES)


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """A folder that `unitok.load` opens, in fp32."""
    save_folder(tiny_model(seed), tiny_template(), ASSETS, folder, dtype=torch.float32)
    return folder


def same(left: Image.Image, right: Image.Image) -> bool:
    """Equal byte for byte."""
    return (left.size, left.mode, left.tobytes()) == (right.size, right.mode, right.tobytes())
