"""Emu3's image tokenizer: sizes, ranges, nearest codes, names, and what is refused."""

import dataclasses
import re

import pytest
import torch
from torch import Tensor, nn

from unitok_tokenizers import emu3
from unitok_tokenizers.emu3 import Emu3Tokenizer, Emu3TokenizerConfig
from unitok_tokenizers.emu3_layers import CausalConv3d
from unitok_tokenizers.emu3_names import (
    DROPPED,
    linear_in_transformers,
    original_name,
    transformers_name,
)
from unitok_tokenizers.image import ImageCodec, make_image_tokenizer

CONFIG = Emu3TokenizerConfig(
    codebook_size=64,
    base_channels=32,
    channel_multiplier=(1, 2, 1),
    res_blocks=1,
    attention_stages=(1, 2),
    mean=(0.5, 0.4, 0.3),
    std=(0.25, 0.3, 0.35),
)


def tokenizer() -> Emu3Tokenizer:
    """With weights as a checkpoint may hold them: statistics and codes of any size."""
    torch.manual_seed(0)
    made = Emu3Tokenizer(CONFIG).eval()
    for name, value in made.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        else:
            value.add_(0.1 * torch.randn_like(value))
    with torch.no_grad():
        latents = made.latents(torch.randn(16, 3, 8, 8))
    made.quantizer.codebook.copy_(latents.movedim(1, -1).reshape(-1, 4))
    return made


# --- pictures <-> codes --------------------------------------------------------------------------


def test_it_is_made_from_its_config_and_offers_what_every_codec_does():
    made = make_image_tokenizer(CONFIG)
    assert isinstance(made, Emu3Tokenizer) and isinstance(made, ImageCodec)
    assert (made.codebook_size, made.can_decode) == (64, True)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (20, 12), (12, 28)])
def test_a_grid_has_the_shape_of_its_picture(height: int, width: int):
    made = tokenizer()
    codes = made.encode(torch.rand(2, 3, height, width))
    assert codes.shape == (2, height // 4, width // 4) and codes.dtype == torch.int64
    assert made.decode(codes).shape == (2, 3, height, width)


def test_the_published_size_shrinks_by_8_and_has_271_million_parameters():
    with torch.device("meta"):
        made = Emu3Tokenizer(Emu3TokenizerConfig())
    assert made.config.downsample == 8
    assert sum(p.numel() for p in made.parameters()) == 270_609_215


def test_pictures_are_normalised_by_mean_and_std_and_back():
    made, pictures = tokenizer(), torch.rand(2, 3, 16, 24)
    mean = torch.tensor(CONFIG.mean).view(3, 1, 1)
    std = torch.tensor(CONFIG.std).view(3, 1, 1)
    codes = made.encode(pictures)
    assert torch.equal(codes, made.encode_raw((pictures - mean) / std))
    assert not torch.equal(codes, made.encode_raw(pictures)), "the range must matter"
    made.decoder.conv_out.weight.data.mul_(10)
    decoded, raw = made.decode(codes), made.decode_raw(codes)
    assert torch.allclose(decoded, (raw * std + mean).clamp(0, 1), atol=1e-6)
    pairs = list(zip(CONFIG.mean, CONFIG.std, strict=True))
    shift = torch.tensor([-mean / std for mean, std in pairs]).view(3, 1, 1)
    scale = torch.tensor([1 / std for _, std in pairs]).view(3, 1, 1)
    assert torch.equal(decoded, ((raw - shift) / scale).clamp(0, 1)), "the reference's order"
    assert decoded.min() == 0 and decoded.max() == 1, "some pixels must be clipped"


def test_a_batch_gives_what_each_picture_gives_alone():
    made, pictures = tokenizer(), torch.rand(3, 3, 12, 16)
    codes = made.encode(pictures)
    assert len(codes.unique()) > 8
    for i in range(3):
        assert torch.equal(made.encode(pictures[i : i + 1])[0], codes[i])
        alone = made.decode(codes[i : i + 1])[0]
        torch.testing.assert_close(made.decode(codes)[i], alone, atol=1e-5, rtol=0)


def test_training_mode_changes_nothing():
    made, pictures = tokenizer(), torch.rand(2, 3, 12, 12)
    before, codes = made.state_dict(), made.encode(pictures)
    before = {k: v.clone() for k, v in before.items()}
    made.train()
    assert torch.equal(made.encode(pictures), codes)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_half_precision_gives_codes_and_full_precision_pictures():
    made = tokenizer().to(torch.bfloat16)
    codes = made.encode(torch.rand(1, 3, 8, 12))
    assert codes.shape == (1, 2, 3) and codes.dtype == torch.int64
    assert made.decode(codes).dtype == torch.float32


def test_codes_are_the_nearest_by_distance_over_many_portions(monkeypatch):
    made, pixels = tokenizer(), torch.randn(3, 3, 16, 20)
    with torch.no_grad():
        points = made.latents(pixels).movedim(1, -1).reshape(-1, 4).double()
    expected = torch.cdist(points, made.quantizer.codebook.double()).argmin(1).view(3, 4, 5)
    assert len(expected.unique()) > 8
    for portion in (7, 60, 512):
        monkeypatch.setattr(emu3, "POINTS", portion)
        assert torch.equal(made.encode_raw(pixels), expected)


def test_no_more_than_a_portion_is_compared_at_once(monkeypatch):
    made, seen = tokenizer(), []
    monkeypatch.setattr(emu3, "POINTS", 8)
    nearest = made.quantizer.nearest

    def watched(points: Tensor) -> Tensor:
        seen.append(len(points))
        return nearest(points)

    monkeypatch.setattr(made.quantizer, "nearest", watched)
    made.encode(torch.rand(2, 3, 12, 16))
    assert seen == [8, 8, 8]


@pytest.mark.parametrize(("time", "stride"), [(3, 1), (4, 2)])
def test_a_causal_convolution_sees_no_later_frame(time: int, stride: int):
    torch.manual_seed(0)
    conv, x = CausalConv3d(4, time=time, stride=stride), torch.randn(1, 4, 4, 3, 5)
    changed = x.clone()
    changed[:, :, 2:] += 1
    before, after = conv(x), conv(changed)
    assert before.shape == (1, 4, 4 // stride, 3, 5)
    untouched = 2 // stride
    assert torch.equal(before[:, :, :untouched], after[:, :, :untouched])
    assert not torch.allclose(before[:, :, untouched], after[:, :, untouched])


# --- state ---------------------------------------------------------------------------------------


def fill(made: nn.Module, state: dict[str, Tensor]) -> None:
    """Put tensors in the place of all parameters and buffers, which may be on no device."""
    for name, value in state.items():
        owner, _, leaf = name.rpartition(".")
        module = made.get_submodule(owner)
        if leaf in module._parameters:
            setattr(module, leaf, nn.Parameter(value, requires_grad=False))
        else:
            setattr(module, leaf, value)


def test_a_model_without_storage_works_once_its_state_is_filled_in():
    first, pictures = tokenizer(), torch.rand(2, 3, 12, 20)
    with torch.device("meta"):
        second = Emu3Tokenizer(CONFIG).eval()
    fill(second, first.state_dict())
    second.refresh()
    codes = first.encode(pictures)
    assert torch.equal(second.encode(pictures), codes)
    assert torch.equal(second.decode(codes), first.decode(codes))


# --- names ---------------------------------------------------------------------------------------

NAMES = [  # ours, transformers', the original's
    ("quantizer.codebook", "quantize.embedding.weight", "quantize.embedding.weight"),
    ("quant_conv.bias", "quant_conv.conv.bias", "quant_conv.conv.bias"),
    ("post_quant_conv.weight", "post_quant_conv.conv.weight", "post_quant_conv.conv.weight"),
    ("encoder.conv_in.weight", "encoder.conv_in.weight", "encoder.conv_in.weight"),
    ("encoder.norm_out.bias", "encoder.norm_out.bias", "encoder.norm_out.bias"),
    ("decoder.norm_out.norm.bias", "decoder.norm_out.norm_layer.bias", None),
    ("decoder.norm_out.shift.bias", "decoder.norm_out.conv_b.bias", None),
    (
        "encoder.levels.1.blocks.0.shortcut.weight",
        "encoder.down_block.down.1.block.0.nin_shortcut.weight",
        "encoder.down.1.block.0.nin_shortcut.weight",
    ),
    (
        "encoder.levels.1.attentions.0.norm.weight",
        "encoder.down_block.down.1.attn_norms.0.weight",
        "encoder.down.1.attn.0.norm.weight",
    ),
    (
        "encoder.levels.1.attentions.0.q.weight",
        "encoder.down_block.down.1.attn.0.q_proj.weight",
        "encoder.down.1.attn.0.q.weight",
    ),
    (
        "encoder.levels.0.resample.conv.bias",
        "encoder.down_block.down.0.downsample.conv.bias",
        "encoder.down.0.downsample.conv.bias",
    ),
    (
        "encoder.middle.attention.proj.bias",
        "encoder.middle_block.attn_1.out_proj.bias",
        "encoder.mid.attn_1.proj_out.bias",
    ),
    (
        "encoder.middle.block2.conv1.weight",
        "encoder.middle_block.block_2.conv1.weight",
        "encoder.mid.block_2.conv1.weight",
    ),
    ("encoder.time_convs.1.weight", "encoder.time_conv.1.conv.conv.weight", None),
    ("encoder.time_blocks.0.conv2.bias", "encoder.time_res_stack.0.conv2.conv.bias", None),
    ("decoder.time_blocks.0.norm1.running_var", "decoder.time_res_stack.0.norm1.running_var", None),
    (
        "decoder.middle.attention.norm.norm.weight",
        "decoder.middle_block.attn_norm.norm_layer.weight",
        "decoder.mid.attn_1.norm.norm_layer.weight",
    ),
    (
        "decoder.levels.2.attentions.1.norm.scale.weight",
        "decoder.up_block.up.2.attn_norms.1.conv_y.weight",
        "decoder.up.2.attn.1.norm.conv_y.weight",
    ),
    (
        "decoder.levels.2.blocks.1.norm2.norm.bias",
        "decoder.up_block.up.2.block.1.norm2.norm_layer.bias",
        "decoder.up.2.block.1.norm2.norm_layer.bias",
    ),
    (
        "decoder.levels.1.resample.conv.weight",
        "decoder.up_block.up.1.upsample.conv.weight",
        "decoder.up.1.upsample.conv.weight",
    ),
]


def test_names_are_those_of_both_kinds_of_checkpoint():
    state = Emu3Tokenizer(CONFIG).state_dict()
    for ours, theirs, original in NAMES:
        assert ours in state
        assert transformers_name(ours) == theirs
        assert original_name(ours) == (original or theirs)


@pytest.mark.parametrize("name", [transformers_name, original_name])
def test_no_two_parameters_share_a_name_and_none_is_dropped(name):
    state = Emu3Tokenizer(CONFIG).state_dict()
    names = {name(key) for key in state}
    assert len(names) == len(state)
    assert not any(re.fullmatch(pattern, n) for pattern in DROPPED for n in names)
    counter = name("encoder.time_blocks.0.norm2.running_mean").replace(
        "running_mean", "num_batches_tracked"
    )
    assert any(re.fullmatch(pattern, counter) for pattern in DROPPED)


def test_the_weights_of_attention_are_linear_in_transformers():
    state = Emu3Tokenizer(CONFIG).state_dict()
    linear = [key for key in state if linear_in_transformers(key)]
    # Two levels with one block going down and two coming up, and two middles; q, k, v, proj each.
    assert len(linear) == (2 * 1 + 2 * 2 + 2) * 4
    assert all(state[key].shape[2:] == (1, 1) for key in linear)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 3, 8, 9), (1, 3, 0, 8)])
def test_pictures_that_make_no_grid_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="multiples of 4"):
        tokenizer().encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 1, 2, 3), (1, 0, 3)])
def test_codes_that_are_no_grid_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"codes must be \[B, h, w\]"):
        tokenizer().decode(torch.zeros(shape, dtype=torch.int64))


def test_codes_outside_the_codebook_are_refused():
    made = tokenizer()
    for wrong in (-1, 64):
        with pytest.raises(ValueError, match=r"outside 0\.\.63"):
            made.decode(torch.tensor([[[0, wrong]]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_channels": 8}, "must equal code_dim"),
        ({"base_channels": 48}, "multiple of 32"),
        ({"attention_stages": (3,)}, "a level there is not"),
        ({"attention_heads": 2}, "one head"),
        ({"temporal_downsample": 3}, "no power of 2"),
        ({"temporal_downsample": 0}, "no power of 2"),
        ({"std": (1.0, 1.0, 0.0)}, "above 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
