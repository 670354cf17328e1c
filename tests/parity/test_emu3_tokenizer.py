"""Emu3's image tokenizer agrees with transformers' Emu3VQVAE, both ways, on random weights."""

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Emu3ImageProcessor, Emu3VQVAE, Emu3VQVAEConfig

from tests.parity import drawn_bytes
from unitok_tokenizers.emu3 import Emu3Tokenizer, Emu3TokenizerConfig
from unitok_tokenizers.emu3_names import DROPPED, linear_in_transformers, transformers_name

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Attention in transformers has one width for all levels, that of the last.
CONFIGS = {
    "as published": Emu3TokenizerConfig(
        codebook_size=512, base_channels=32, mean=CLIP_MEAN, std=CLIP_STD
    ),
    "two levels with attention": Emu3TokenizerConfig(
        codebook_size=300,
        code_dim=6,
        latent_channels=6,
        base_channels=32,
        channel_multiplier=(3, 2, 2),
        res_blocks=1,
        attention_stages=(1, 2),
        temporal_downsample=2,
    ),
    "no attention but in the middle": Emu3TokenizerConfig(
        codebook_size=64,
        base_channels=64,
        channel_multiplier=(2, 1),
        res_blocks=3,
        attention_stages=(),
        temporal_downsample=8,
    ),
    "one frame": Emu3TokenizerConfig(
        codebook_size=64,
        base_channels=32,
        channel_multiplier=(1, 1, 1, 1, 1),
        res_blocks=1,
        attention_stages=(4,),
        temporal_downsample=1,
    ),
}
GRIDS = [(3, 3), (5, 9), (7, 2), (1, 4)]


def reference(config: Emu3TokenizerConfig) -> Emu3VQVAE:
    """transformers' model, all of its tensors random: many codes, pixels about within [-1, 1]."""
    model = Emu3VQVAE(
        Emu3VQVAEConfig(
            codebook_size=config.codebook_size,
            embed_dim=config.code_dim,
            latent_channels=config.latent_channels,
            temporal_downsample_factor=config.temporal_downsample,
            base_channels=config.base_channels,
            channel_multiplier=list(config.channel_multiplier),
            num_res_blocks=config.res_blocks,
            attn_resolutions=list(config.attention_stages),
            hidden_size=config.widths[-1],
        )
    ).eval()
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.ndim == 1:  # norms, statistics and biases, which are zeros and ones at first
            value.add_(0.1 * torch.randn_like(value))
        if name.endswith("conv_y.bias"):
            value.add_(1)
    with torch.no_grad():
        latents = quantizer_input(model, torch.randn(4, 3, *[4 * config.downsample] * 2))
        points, codebook = latents.movedim(1, -1).flatten(0, -2), state["quantize.embedding.weight"]
        codebook.copy_(torch.randn_like(codebook) * points.std(0) + points.mean(0))
        pixels: Tensor = model.decode(torch.randint(config.codebook_size, (4, 4, 4)))
        for name in ("weight", "bias"):
            state[f"decoder.conv_out.{name}"].mul_(0.4 / pixels.std())
    return model


def quantizer_input(model: Emu3VQVAE, pixels: Tensor) -> Tensor:
    """Normalised pixels [B, 3, H, W] -> latents [B, d, h, w]; `encode` does not give them."""
    video = pixels.unsqueeze(1).repeat(1, model.config.temporal_downsample_factor, 1, 1, 1)
    return model.quant_conv(model.encoder(video).transpose(1, 2)).squeeze(2)


def ours(config: Emu3TokenizerConfig, state: dict[str, Tensor]) -> Emu3Tokenizer:
    made = Emu3Tokenizer(config).eval()
    stored = {}
    for key in made.state_dict():
        value = state[transformers_name(key)]
        stored[key] = value[..., None, None] if linear_in_transformers(key) else value
    made.load_state_dict(stored)
    return made


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


@pytest.fixture(scope="module", params=list(CONFIGS))
def pair(request) -> tuple[Emu3Tokenizer, Emu3VQVAE]:
    torch.manual_seed(0)
    config = CONFIGS[request.param]
    model = reference(config)
    return ours(config, model.state_dict()), model


def encode(model: Emu3VQVAE, pixels: Tensor) -> Tensor:
    sizes = torch.tensor([pixels.shape[2:]] * len(pixels))
    with torch.no_grad():
        output: Any = model.encode(pixels, sizes)
    return torch.stack(output.image_tokens)


def test_every_tensor_has_its_name_and_only_counters_are_dropped(pair):
    made, model = pair
    named = {transformers_name(key) for key in made.state_dict()}
    rest = model.state_dict().keys() - named
    assert named <= model.state_dict().keys()
    assert rest and all(name.endswith("num_batches_tracked") for name in rest)
    assert all(any(re.fullmatch(pattern, name) for pattern in DROPPED) for name in rest)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_codes_are_the_same(pair, grid: tuple[int, int]):
    made, model = pair
    side = made.config.downsample
    pixels = torch.randn(4, 3, grid[0] * side, grid[1] * side) * torch.rand(4, 3, 1, 1) * 4
    codes = made.encode_raw(pixels)
    assert codes.shape == (4, *grid) and len(codes.unique()) >= 3
    assert torch.equal(codes, encode(model, pixels))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_pixels_are_the_same(pair, grid: tuple[int, int]):
    made, model = pair
    codes = torch.randint(made.codebook_size, (2, *grid))
    with torch.no_grad():
        expected = model.decode(codes)
        pixels = made.decode_raw(codes)
    assert 0.1 < expected.std() < 1
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_in_double_precision_both_halves_agree_to_the_last_digits(pair, grid: tuple[int, int]):
    made, model = (copy.deepcopy(half).double() for half in pair)
    side = made.config.downsample
    pixels = torch.randn(2, 3, grid[0] * side, grid[1] * side, dtype=torch.float64)
    codes = torch.randint(made.codebook_size, (2, *grid))
    with torch.no_grad():
        expected = quantizer_input(model, pixels)
        torch.testing.assert_close(made.latents(pixels), expected, atol=1e-11, rtol=0)
        expected = model.decode(codes)
        torch.testing.assert_close(made.decode_raw(codes), expected, atol=1e-11, rtol=0)


def test_a_picture_makes_the_round_trip_through_the_processor(monkeypatch: pytest.MonkeyPatch):
    config = CONFIGS["as published"]
    model = reference(config)
    made = ours(config, model.state_dict())
    picture = torch.randint(256, (40, 72, 3), dtype=torch.uint8)
    processor: Any = Emu3ImageProcessor(min_pixels=40 * 72, max_pixels=40 * 72)
    assert (tuple(processor.image_mean), tuple(processor.image_std)) == (CLIP_MEAN, CLIP_STD)
    pixels = processor(picture.numpy(), return_tensors="pt")["pixel_values"][0]
    codes = made.encode(picture.permute(2, 0, 1)[None] / 255)
    assert torch.equal(codes, encode(model, pixels.view(1, 3, 40, 72)))

    with torch.no_grad():
        decoded = processor.postprocess(model.decode(codes))["pixel_values"][0]
        raw = model.decode(codes)
    expected = drawn_bytes.of_emu3(drawn_bytes.last_axis(raw), CLIP_MEAN, CLIP_STD)[0]
    assert np.array_equal(np.array(decoded), expected) and expected.std() > 10
    monkeypatch.setattr(made, "decode_raw", lambda codes: raw)
    levels = made.decode(codes)[0].permute(1, 2, 0) * 255
    assert np.array_equal(levels.byte().numpy(), expected), "the same where fractions are cut off"


def test_whole_levels_round_as_in_the_processor(monkeypatch: pytest.MonkeyPatch):
    """They lie where the order of the arithmetic decides which byte they become."""
    made = ours(CONFIGS["as published"], reference(CONFIGS["as published"]).state_dict())
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    raw = ((torch.arange(256).view(16, 16) / 255 - mean) / std)[None]
    processor: Any = Emu3ImageProcessor()
    expected = np.array(processor.postprocess(raw)["pixel_values"][0])
    monkeypatch.setattr(made, "decode_raw", lambda codes: raw)
    found = made.decode(torch.zeros(1, 2, 2, dtype=torch.long))[0].permute(1, 2, 0) * 255
    assert np.array_equal(found.byte().numpy(), expected)
    assert np.array_equal(
        drawn_bytes.of_emu3(drawn_bytes.last_axis(raw), CLIP_MEAN, CLIP_STD)[0], expected
    )
