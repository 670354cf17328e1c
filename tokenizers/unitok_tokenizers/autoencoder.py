"""The convolutional encoder and decoder of VQGAN-type image tokenizers, and a patch-wise encoder.

The convolutional pair is the VQGAN of Esser et al. 2021 (https://arxiv.org/abs/2012.09841) as
LlamaGen (https://arxiv.org/abs/2406.06525), Janus (https://arxiv.org/abs/2410.13848) and Chameleon
(https://arxiv.org/abs/2405.09818) use it, at any size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok_tokenizers.blocks import (
    GROUPS,
    AttentionBlock,
    Downsample,
    Level,
    Middle,
    Upsample,
    norm,
)


@dataclass(frozen=True)
class AutoencoderConfig:
    """The sizes of an image tokenizer.

    The default sizes are those of LlamaGen's VQ-16 at 384 pixels, as Janus uses it.

    Attributes:
        image_size: The side of a picture in pixels, a multiple of `downsample`.
        codebook_size: The number of codes.
        code_dim: The width of a codebook row.
        latent_channels: The number of channels between encoder and codebook, and between codebook
            and decoder.
        base_channels: The number of channels at the full resolution, before its multiplier.
        channel_multiplier: The number of channels of each level over `base_channels`, the full
            resolution first. Each level but the last halves the sides.
        res_blocks: The number of residual blocks of a level. The decoder has one more.
        encoder: "conv" is the convolutional encoder of VQ-16. With "patch" a code depends on its
            own patch alone.
        patch_width: The number of channels of the patch-wise encoder.
        quantizer: The nearest code is found by "cosine" (VQ-16) or "euclidean" distance
            (Chameleon).
        attention: Whether the lowest level has attention too (VQ-16), or the middle alone
            (Chameleon).
        decoder: Whether the checkpoint has a decoder. Without one the tokenizer only encodes.

    Raises:
        ValueError: A name is unknown, or the sizes do not fit together.
    """

    image_size: int = 384
    codebook_size: int = 16384
    code_dim: int = 8
    latent_channels: int = 256
    base_channels: int = 128
    channel_multiplier: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    encoder: str = "conv"
    patch_width: int = 256
    quantizer: str = "cosine"
    attention: bool = True
    decoder: bool = True

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
        """The side of the square of pixels that one code stands for."""
        return 2 ** (len(self.channel_multiplier) - 1)

    @property
    def grid(self) -> int:
        """The number of codes along one side of a picture."""
        return self.image_size // self.downsample

    @property
    def widths(self) -> list[int]:
        """The number of channels of each level, the full resolution first."""
        return [self.base_channels * m for m in self.channel_multiplier]


class ConvEncoder(nn.Module):
    """The convolutional encoder of VQGAN."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths
        before = [config.base_channels, *widths[:-1]]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.base_channels, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                a,
                b,
                count=config.res_blocks,
                attention=AttentionBlock if config.attention and i == last else None,
                resample=nn.Identity() if i == last else Downsample(b),
            )
            for i, (a, b) in enumerate(zip(before, widths, strict=True))
        )
        self.middle = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pixels.

        Args:
            pixels: [B, 3, S, S] in [-1, 1].

        Returns:
            Latents [B, latent_channels, grid, grid].
        """
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
        """Map patches [..., width] to ones of the same shape."""
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class PatchEncoder(nn.Module):
    """An encoder that sees each patch by itself.

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
        """Encode pixels.

        Args:
            pixels: [B, 3, S, S] in [-1, 1].

        Returns:
            Latents [B, latent_channels, grid, grid].
        """
        x = self.embed(pixels).permute(0, 2, 3, 1)  # [B, h, w, C]
        for block in self.blocks:
            x = block(x)
        return self.proj_out(self.norm_last(x)).permute(0, 3, 1, 2)


class ConvDecoder(nn.Module):
    """The convolutional decoder of VQGAN."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        before = [widths[0], *widths[:-1]]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.middle = Middle(widths[0])
        self.levels = nn.ModuleList(
            Level(
                a,
                b,
                count=config.res_blocks + 1,
                attention=AttentionBlock if config.attention and i == 0 else None,
                resample=nn.Identity() if i == last else Upsample(b),
            )
            for i, (a, b) in enumerate(zip(before, widths, strict=True))
        )
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents.

        Args:
            latents: [B, latent_channels, grid, grid].

        Returns:
            Pixels [B, 3, S, S] in about [-1, 1].
        """
        x = self.middle(self.conv_in(latents.contiguous(memory_format=best_order(latents))))
        for level in self.levels:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x))).contiguous()


def best_order(x: Tensor) -> torch.memory_format:
    """The order of feature maps in which pictures are decoded fastest.

    On a CPU it is channels-last order, which oneDNN's convolutions take as it is, and hand on. But
    the backward pass of GroupNorm is 30 times slower in it.
    """
    if x.is_cpu and not torch.is_grad_enabled():
        return torch.channels_last
    return torch.contiguous_format


class NoDecoder(nn.Module):
    """Stands where a checkpoint has no decoder, as in transformers' folders of Chameleon."""

    def forward(self, latents: Tensor) -> Tensor:
        """Refuse to decode.

        Raises:
            ValueError: It is always raised.
        """
        raise ValueError(
            "this checkpoint has no VQ decoder, so it cannot draw; load the original files, "
            "which have one"
        )


def make_encoder(config: AutoencoderConfig) -> nn.Module:
    """Make the encoder that a config names, with fresh weights."""
    return {"conv": ConvEncoder, "patch": PatchEncoder}[config.encoder](config)


def to_tensor_range(pixels: Tensor) -> Tensor:
    """Map pixels from [0, 1] to [-1, 1], the range that encoder and decoder work in."""
    return pixels * 2 - 1


def to_unit_range(pixels: Tensor) -> Tensor:
    """Map pixels from [-1, 1] to [0, 1], clipped."""
    return torch.clamp((pixels + 1) / 2, 0, 1)
