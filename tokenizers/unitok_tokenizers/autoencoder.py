"""Convolutional encoder and decoder of VQGAN-type image tokenizers, and a patch-wise encoder.

The convolutional pair is the VQGAN of Esser et al. 2021 (https://arxiv.org/abs/2012.09841) as
LlamaGen (https://arxiv.org/abs/2406.06525), Janus (https://arxiv.org/abs/2410.13848) and Chameleon
(https://arxiv.org/abs/2405.09818) use it, at any size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32  # every norm of the published checkpoints has 32 groups


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of an image tokenizer. It shrinks sides by 2 ** (len(channel_multiplier) - 1)."""

    image_size: int = 384
    codebook_size: int = 16384
    code_dim: int = 8
    latent_channels: int = 256
    base_channels: int = 128
    channel_multiplier: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    encoder: str = "conv"  # "conv": VQ-16's; "patch": each code sees its own patch alone
    patch_width: int = 256  # channels of the patch-wise encoder
    quantizer: str = "cosine"  # nearest code by "cosine" (VQ-16) or "euclidean" (Chameleon)
    attention: bool = True  # at the lowest level too (VQ-16), or in the middle alone (Chameleon)
    decoder: bool = True  # False: the checkpoint has no half that paints

    def __post_init__(self) -> None:
        if self.encoder not in ("conv", "patch"):
            raise ValueError(f"encoder must be 'conv' or 'patch', not {self.encoder!r}")
        if self.quantizer not in ("cosine", "euclidean"):
            raise ValueError(f"quantizer must be 'cosine' or 'euclidean', not {self.quantizer!r}")
        if self.image_size % self.downsample:
            raise ValueError(f"image_size {self.image_size} is no multiple of {self.downsample}")
        if any(self.base_channels * m % GROUPS for m in (1, *self.channel_multiplier)):
            raise ValueError(f"each level needs a multiple of {GROUPS} channels")

    @property
    def downsample(self) -> int:
        return 2 ** (len(self.channel_multiplier) - 1)

    @property
    def grid(self) -> int:
        """Codes along one side of a picture."""
        return self.image_size // self.downsample


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, conv, twice, beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h


class AttentionBlock(nn.Module):
    """One-head self-attention over the positions of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # [B, C, H, W] -> [B, 1, HW, C]: one head
        q, k, v = (m(h).flatten(2).transpose(1, 2).unsqueeze(1) for m in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x + self.proj(out.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halves a side; pads right and bottom only, as VQGAN does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles a side: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """Residual, attention, residual at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, channels)
        self.attention = AttentionBlock(channels)
        self.block2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(self.attention(self.block1(x)))


class Level(nn.Module):
    """Residual blocks of one resolution, attention after each if asked, then a change of size."""

    def __init__(
        self, channels_in: int, channels: int, count: int, attention: bool, resample: nn.Module
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels] * (count - 1)
        self.blocks = nn.ModuleList(ResidualBlock(w, channels) for w in widths)
        self.attentions = nn.ModuleList(AttentionBlock(channels) for _ in widths if attention)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[i](x)
        return self.resample(x)


class ConvEncoder(nn.Module):
    """Pixels [B, 3, S, S] in [-1, 1] -> latents [B, latent_channels, grid, grid]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in config.channel_multiplier]
        before = [config.base_channels, *widths[:-1]]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.base_channels, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                a,
                b,
                count=config.res_blocks,
                attention=config.attention and i == last,
                resample=nn.Identity() if i == last else Downsample(b),
            )
            for i, (a, b) in enumerate(zip(before, widths, strict=True))
        )
        self.middle = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(pixels)
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.middle(x))))


class PatchBlock(nn.Module):
    """A residual MLP on each patch by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class PatchEncoder(nn.Module):
    """Pixels [B, 3, S, S] in [-1, 1] -> latents [B, latent_channels, grid, grid], patch by patch.

    A code then depends on its own patch alone, so equal patches always get equal codes.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        size = config.downsample
        self.embed = nn.Conv2d(3, config.patch_width, size, stride=size)
        self.blocks = nn.ModuleList(PatchBlock(config.patch_width) for _ in range(2))
        self.norm_last = nn.LayerNorm(config.patch_width)
        self.proj_out = nn.Linear(config.patch_width, config.latent_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embed(pixels).permute(0, 2, 3, 1)  # [B, h, w, C]
        for block in self.blocks:
            x = block(x)
        return self.proj_out(self.norm_last(x)).permute(0, 3, 1, 2)


class ConvDecoder(nn.Module):
    """Latents [B, latent_channels, grid, grid] -> pixels [B, 3, S, S], about [-1, 1]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in reversed(config.channel_multiplier)]
        before = [widths[0], *widths[:-1]]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.middle = Middle(widths[0])
        self.levels = nn.ModuleList(
            Level(
                a,
                b,
                count=config.res_blocks + 1,
                attention=config.attention and i == 0,
                resample=nn.Identity() if i == last else Upsample(b),
            )
            for i, (a, b) in enumerate(zip(before, widths, strict=True))
        )
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        # On a CPU, the backward pass of GroupNorm is 30 times slower in channels-last order, which
        # codebook look-ups produce and convolutions hand on.
        x = self.middle(self.conv_in(latents.contiguous()))
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class NoDecoder(nn.Module):
    """Stands where a checkpoint has no decoder, as in transformers' folders of Chameleon."""

    def forward(self, latents: Tensor) -> Tensor:
        raise ValueError(
            "this checkpoint has no VQ decoder, so it cannot paint; load the original files, "
            "which have one"
        )


def make_encoder(config: AutoencoderConfig) -> nn.Module:
    return {"conv": ConvEncoder, "patch": PatchEncoder}[config.encoder](config)


def to_tensor_range(pixels: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1], the range both halves work in."""
    return pixels * 2 - 1


def to_unit_range(pixels: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], clipped."""
    return torch.clamp((pixels + 1) / 2, 0, 1)
