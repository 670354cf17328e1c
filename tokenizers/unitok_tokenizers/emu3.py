"""The image tokenizer of Emu3: a VQ autoencoder for video, given one still picture.

Paper: https://arxiv.org/abs/2409.18869. The encoder sees the picture as a few equal frames and
shrinks them to one grid of codes. The decoder is that of MoVQ (https://arxiv.org/abs/2209.09002):
each of its norms takes its scale and shift from the vectors of the codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

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
from unitok_tokenizers.emu3_layers import (
    CausalConv3d,
    SpatialAttentionBlock,
    SpatialNorm,
    SpatialResidualBlock,
    TemporalBlock,
)
from unitok_tokenizers.image import check_codes, make_image_tokenizer
from unitok_tokenizers.quantizer import EuclideanQuantizer

# How many points are compared with the codebook at a time: 512 x 32768 distances take 67 MB.
POINTS = 512


@dataclass(frozen=True)
class Emu3TokenizerConfig:
    """The sizes of Emu3's image tokenizer, and the range that its pixels are normalised to.

    The default sizes are those of the folder BAAI/Emu3-VisionTokenizer.

    Attributes:
        codebook_size: The number of codes.
        code_dim: The width of a codebook row.
        latent_channels: The number of channels of the encoder's output, equal to `code_dim`.
        base_channels: The number of channels at the full resolution, before its multiplier.
        channel_multiplier: The number of channels of each level over `base_channels`, the full
            resolution first. Each level but the last halves the sides.
        res_blocks: The number of residual blocks of a level. The decoder has one more.
        attention_stages: The levels that have attention. Level 0 has the full resolution.
        attention_heads: The number of heads of each attention block, which must be 1.
        temporal_downsample: The number of frames that one grid of codes stands for, a power of 2.
        mean: The mean of the normalisation of red, green and blue in [0, 1]. The preprocessor file
            of a checkpoint gives mean and standard deviation.
        std: The standard deviation of the normalisation of red, green and blue.

    Raises:
        ValueError: The sizes do not fit together.
    """

    codebook_size: int = 32768
    code_dim: int = 4
    latent_channels: int = 4
    base_channels: int = 256
    channel_multiplier: tuple[int, ...] = (1, 2, 2, 4)
    res_blocks: int = 2
    attention_stages: tuple[int, ...] = (3,)
    attention_heads: int = 1
    temporal_downsample: int = 4
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.latent_channels != self.code_dim:
            raise ValueError("latent_channels must equal code_dim: the decoder runs both as one")
        if any(self.base_channels * m % GROUPS for m in (1, *self.channel_multiplier)):
            raise ValueError(f"each level needs a multiple of {GROUPS} channels")
        if not set(self.attention_stages) <= set(range(len(self.channel_multiplier))):
            raise ValueError(f"attention_stages {self.attention_stages} has a level there is not")
        if self.attention_heads != 1:
            raise ValueError(f"attention has one head here, not {self.attention_heads}")
        if self.temporal_downsample < 1 or self.temporal_downsample.bit_count() != 1:
            raise ValueError(f"temporal_downsample {self.temporal_downsample} is no power of 2")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("mean and std must have 3 values each, those of std above 0")

    @property
    def downsample(self) -> int:
        """The side of the square of pixels that one code stands for."""
        return 2 ** (len(self.channel_multiplier) - 1)

    @property
    def widths(self) -> list[int]:
        """The number of channels of each level, the full resolution first."""
        return [self.base_channels * m for m in self.channel_multiplier]

    @property
    def halvings(self) -> int:
        """How often the number of frames is halved."""
        return self.temporal_downsample.bit_length() - 1


class Emu3Encoder(nn.Module):
    """The encoder: levels of residual blocks over space, and then layers over time."""

    def __init__(self, config: Emu3TokenizerConfig) -> None:
        super().__init__()
        widths, d = config.widths, config.latent_channels
        before = [config.base_channels, *widths[:-1]]
        last = len(widths) - 1
        self.frames = config.temporal_downsample
        self.conv_in = nn.Conv2d(3, config.base_channels, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                a,
                b,
                count=config.res_blocks,
                attention=AttentionBlock if i in config.attention_stages else None,
                resample=nn.Identity() if i == last else Downsample(b),
            )
            for i, (a, b) in enumerate(zip(before, widths, strict=True))
        )
        self.middle = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], d, 3, padding=1)
        self.time_convs = nn.ModuleList(
            CausalConv3d(d, time=4, stride=2) for _ in range(config.halvings)
        )
        self.time_blocks = nn.ModuleList(TemporalBlock(d) for _ in range(config.res_blocks))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode still pictures.

        Args:
            pixels: Normalised pixels [B, 3, H, W].

        Returns:
            Latents [B, d, 1, h, w], where d is `latent_channels`.
        """
        x = self.conv_in(pixels)
        for level in self.levels:
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(self.middle(x))))  # [B, d, h, w]
        # All frames of a still picture are equal, so one is enough up to here.
        x = x.unsqueeze(2).repeat(1, 1, self.frames, 1, 1)  # [B, d, T, h, w]
        for conv in self.time_convs:
            x = F.silu(conv(x))
        for block in self.time_blocks:  # on [B, d, 1, h, w]
            x = block(x)
        return x


class Emu3Decoder(nn.Module):
    """The decoder: layers over time, and then levels whose norms take the vectors of the codes."""

    def __init__(self, config: Emu3TokenizerConfig) -> None:
        super().__init__()
        widths, d = config.widths, config.code_dim
        after = [*widths[1:], widths[-1]]
        residual = partial(SpatialResidualBlock, code_dim=d)
        attention = partial(SpatialAttentionBlock, code_dim=d)
        self.time_blocks = nn.ModuleList(TemporalBlock(d) for _ in range(config.res_blocks))
        self.time_convs = nn.ModuleList(CausalConv3d(d) for _ in range(config.halvings))
        self.conv_in = nn.Conv2d(d, widths[-1], 3, padding=1)
        self.middle = Middle(widths[-1], residual, attention)
        # Levels are in the order of resolution, as checkpoints number them. The last is run first.
        self.levels = nn.ModuleList(
            Level(
                a,
                b,
                count=config.res_blocks + 1,
                attention=attention if i in config.attention_stages else None,
                resample=nn.Identity() if i == 0 else Upsample(b),
                residual=residual,
            )
            for i, (a, b) in enumerate(zip(after, widths, strict=True))
        )
        self.norm_out = SpatialNorm(widths[0], d)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor, vectors: Tensor) -> Tensor:
        """Decode one frame.

        Args:
            latents: [B, d, 1, h, w], where d is `code_dim`.
            vectors: The vectors of the codes [B, d, 1, h, w].

        Returns:
            Pixels [B, 3, H, W] in the range of the encoder's.
        """
        both = torch.cat([latents, vectors])  # [2B, d, 1, h, w]
        for block in self.time_blocks:
            both = block(both)
        # For a video, frames are doubled before each of these. The picture is the first frame of
        # them all, and no later one can reach it.
        for conv in self.time_convs:
            both = F.silu(conv(both))
        x, vectors = both.squeeze(2).chunk(2)
        x = self.middle(self.conv_in(x), vectors)
        for level in reversed(self.levels):
            x = level(x, vectors)
        return self.conv_out(F.silu(self.norm_out(x, vectors)))


class Emu3Tokenizer(nn.Module):
    """Emu3's image tokenizer, an `ImageCodec` for pictures of any size.

    Pictures are [B, 3, H, W] floats in [0, 1] with sides in multiples of `config.downsample`; codes
    are [B, h, w] int64 below `codebook_size`. The encoder sees (picture - mean) / std.
    """

    def __init__(self, config: Emu3TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Emu3Encoder(config)
        self.quant_conv = CausalConv3d(config.code_dim, side=1)
        self.quantizer = EuclideanQuantizer(config.codebook_size, config.code_dim)
        self.post_quant_conv = CausalConv3d(config.code_dim, side=1)
        self.decoder = Emu3Decoder(config)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Encode pictures as codes.

        Args:
            pictures: [B, 3, H, W] in [0, 1].

        Returns:
            Codes [B, h, w] int64.

        Raises:
            ValueError: The pictures are not RGB, or a side is no multiple of `config.downsample`.
        """
        step = self.config.downsample
        sides = pictures.shape[2:]
        if pictures.ndim != 4 or pictures.shape[1] != 3 or any(s % step or not s for s in sides):
            raise ValueError(
                f"pictures must be [B, 3, H, W] with sides in multiples of {step}, "
                f"not {list(pictures.shape)}"
            )
        weight = self.encoder.conv_in.weight
        mean, std = (channels(v, weight.device) for v in (self.config.mean, self.config.std))
        pixels = (pictures.to(weight.device, torch.float32) - mean) / std
        return self.encode_raw(pixels.to(weight.dtype))

    @torch.no_grad()
    def encode_raw(self, pixels: Tensor) -> Tensor:
        """Encode pixels that are normalised already.

        Args:
            pixels: [B, 3, H, W] in the type of the weights.

        Returns:
            Codes [B, h, w] int64.
        """
        latents = self.latents(pixels)
        points = latents.float().movedim(1, -1).flatten(0, 2)  # [B h w, d]
        codes = [self.quantizer.nearest(some) for some in points.split(POINTS)]
        return torch.cat(codes).unflatten(0, (len(latents), *latents.shape[2:]))

    def latents(self, pixels: Tensor) -> Tensor:
        """Compute what is compared with the codebook.

        Args:
            pixels: Normalised pixels [B, 3, H, W].

        Returns:
            Latents [B, d, h, w], where d is `config.code_dim`.
        """
        return self.quant_conv(self.encoder(pixels)).squeeze(2)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes into pictures.

        Args:
            codes: [B, h, w].

        Returns:
            Pictures [B, 3, H, W] in [0, 1].

        Raises:
            ValueError: The codes are no grids, or one lies outside the codebook.
        """
        pixels = self.decode_raw(codes).float()
        # In the order of the reference's `postprocess`, so that levels round as there.
        pairs = list(zip(self.config.mean, self.config.std, strict=True))
        shift = channels([-mean / std for mean, std in pairs], pixels.device)
        scale = channels([1 / std for _, std in pairs], pixels.device)
        return ((pixels - shift) / scale).clamp(0, 1)

    def decode_raw(self, codes: Tensor) -> Tensor:
        """Decode codes into normalised pixels, with gradients.

        Args:
            codes: [B, h, w].

        Returns:
            Pixels [B, 3, H, W] in the range of the encoder's, not clipped.

        Raises:
            ValueError: The codes are no grids, or one lies outside the codebook.
        """
        if codes.ndim != 3 or not codes.shape[1] * codes.shape[2]:
            raise ValueError(f"codes must be [B, h, w], not {list(codes.shape)}")
        check_codes(codes, self.codebook_size)
        vectors = self.quantizer.lookup(codes.to(self.quantizer.codebook.device))
        vectors = vectors.to(self.post_quant_conv.weight.dtype).movedim(-1, 1)
        vectors = vectors.unsqueeze(2).contiguous()  # [B, d, 1, h, w]
        return self.decoder(self.post_quant_conv(vectors), vectors)

    @property
    def codebook_size(self) -> int:
        """The number of codes."""
        return self.config.codebook_size

    @property
    def can_decode(self) -> bool:
        """Whether the checkpoint has a decoder, which is always so."""
        return True

    def refresh(self) -> None:
        """Do nothing, as nothing is derived from the weights."""


def channels(values: Sequence[float], device: torch.device) -> Tensor:
    """A value for each colour, [3, 1, 1]."""
    return torch.tensor(values, device=device).view(3, 1, 1)


@make_image_tokenizer.register
def _(config: Emu3TokenizerConfig) -> Emu3Tokenizer:
    return Emu3Tokenizer(config)
