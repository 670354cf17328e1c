"""Small image tokenizers and pictures for the tests of their training."""

import torch
from torch import Tensor

from unitok.emoji.rendering import render
from unitok.emoji.sampler import SceneSampler
from unitok.training.image_tokenizer.options import SizeOptions
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.image import ImageTokenizer

# Of the kind that LlamaGen's files hold, with 2 x 2 codes.
VQ16 = SizeOptions(
    image_size=32, downsample=16, codebook_size=32, code_dim=4, latent_channels=32, base_channels=32
)
SMALLEST = AutoencoderConfig(
    image_size=16,
    codebook_size=24,
    code_dim=4,
    latent_channels=32,
    base_channels=32,
    channel_multiplier=(1, 1),
    res_blocks=1,
)


def tiny_tokenizer(quantizer: str = "cosine", size: int = 16) -> ImageTokenizer:
    """A code stands for 2 x 2 pixels."""
    torch.manual_seed(0)
    made = ImageTokenizer(
        AutoencoderConfig(**{**vars(SMALLEST), "quantizer": quantizer, "image_size": size})
    ).requires_grad_(False)
    if quantizer == "euclidean":
        made.quantizer.codebook.normal_(std=0.3)
    return made.eval()


def tiny_pictures(count: int, size: int = 16) -> Tensor:
    """Parts of emoji scenes, [count, 3, size, size] in [0, 1]."""
    return render(SceneSampler(3, "train").batch(count))[:, :, 8 : 8 + size, 8 : 8 + size]
