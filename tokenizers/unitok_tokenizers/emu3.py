"""The image tokenizer of Emu3: a VQ autoencoder for video, given one still picture.

Emu3, https://arxiv.org/abs/2409.18869. The encoder sees the picture as a few equal frames and
shrinks them to one grid of codes. The decoder is that of MoVQ (https://arxiv.org/abs/2209.09002):
each of its norms takes its scale and shift from the vectors of the codes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok_tokenizers.autoencoder import (
    GROUPS,
    AttentionBlock,
    Downsample,
    Level,
    Middle,
    ResidualBlock,
    Upsample,
    norm,
)
from unitok_tokenizers.image import make_image_tokenizer
from unitok_tokenizers.quantizer import EuclideanQuantizer
from unitok_tokenizers.taming import rename

POINTS = 512  # compared with the codebook at a time: 512 x 32768 distances take 67 MB


@dataclass(frozen=True)
class Emu3TokenizerConfig:
    """Sizes of Emu3's tokenizer, and the range its pixels are normalised to."""

    codebook_size: int = 32768
    code_dim: int = 4
    latent_channels: int = 4
    base_channels: int = 256
    channel_multiplier: tuple[int, ...] = (1, 2, 2, 4)
    res_blocks: int = 2
    attention_stages: tuple[int, ...] = (3,)  # levels with attention; 0 has the full resolution
    attention_heads: int = 1
    temporal_downsample: int = 4  # frames that one grid of codes stands for
    # The preprocessor file of a checkpoint says which; these are the original's.
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
        """Pixels along one side of a code."""
        return 2 ** (len(self.channel_multiplier) - 1)

    @property
    def widths(self) -> list[int]:
        """Channels of each level, the full resolution first."""
        return [self.base_channels * m for m in self.channel_multiplier]

    @property
    def halvings(self) -> int:
        """How often time is halved."""
        return self.temporal_downsample.bit_length() - 1


# --- time ----------------------------------------------------------------------------------------


class CausalConv3d(nn.Conv3d):
    """[B, C, T, h, w] -> the same, T over the stride; no frame sees a later one."""

    def __init__(self, channels: int, time: int = 3, side: int = 3, stride: int = 1) -> None:
        steps, edge = (stride, 1, 1), (0, side // 2, side // 2)
        super().__init__(channels, channels, (time, side, side), steps, edge)
        self.past = time - stride

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 0, 0, 0, self.past, 0)))


class FrozenBatchNorm(nn.Module):
    """BatchNorm by the statistics of the checkpoint, in every mode."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class TemporalBlock(nn.Module):
    """BatchNorm, SiLU, causal convolution, twice, beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = FrozenBatchNorm(channels)
        self.conv1 = CausalConv3d(channels)
        self.norm2 = FrozenBatchNorm(channels)
        self.conv2 = CausalConv3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return x + h


# --- the encoder ---------------------------------------------------------------------------------


class Emu3Encoder(nn.Module):
    """Normalised pixels [B, 3, H, W] of still pictures -> latents [B, d, 1, h, w]."""

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
                attention=i in config.attention_stages,
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


# --- the decoder ---------------------------------------------------------------------------------


class SpatialNorm(nn.Module):
    """GroupNorm, scaled and shifted at each place by the code that lies there.

    x is [B, C, H, W], vectors [B, d, h, w]: those of the codes, after the layers of time.
    """

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.scale = nn.Conv2d(code_dim, channels, 1)
        self.shift = nn.Conv2d(code_dim, channels, 1)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        vectors = F.interpolate(vectors, size=x.shape[-2:], mode="nearest")
        return self.norm(x) * self.scale(vectors) + self.shift(vectors)


class SpatialResidualBlock(ResidualBlock):
    """ResidualBlock whose norms see the codes."""

    def __init__(self, channels_in: int, channels_out: int, code_dim: int) -> None:
        super().__init__(channels_in, channels_out)
        self.norm1 = SpatialNorm(channels_in, code_dim)
        self.norm2 = SpatialNorm(channels_out, code_dim)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x, vectors)))
        h = self.conv2(F.silu(self.norm2(h, vectors)))
        return self.shortcut(x) + h


class SpatialAttentionBlock(AttentionBlock):
    """AttentionBlock whose norm sees the codes."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__(channels)
        self.norm = SpatialNorm(channels, code_dim)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        h = self.norm(x, vectors)
        # [B, C, H, W] -> [B, 1, HW, C]: one head
        q, k, v = (m(h).flatten(2).transpose(1, 2).unsqueeze(1) for m in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x + self.proj(out.transpose(1, 2).reshape(x.shape))


class SpatialMiddle(nn.Module):
    """Residual, attention, residual at the lowest resolution."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.block1 = SpatialResidualBlock(channels, channels, code_dim)
        self.attention = SpatialAttentionBlock(channels, code_dim)
        self.block2 = SpatialResidualBlock(channels, channels, code_dim)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        return self.block2(self.attention(self.block1(x, vectors), vectors), vectors)


class SpatialLevel(nn.Module):
    """Residual blocks of one resolution, attention after each if asked, then a change of size."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        code_dim: int,
        count: int,
        attention: bool,
        resample: nn.Module,
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels] * (count - 1)
        self.blocks = nn.ModuleList(SpatialResidualBlock(w, channels, code_dim) for w in widths)
        self.attentions = nn.ModuleList(
            SpatialAttentionBlock(channels, code_dim) for _ in widths if attention
        )
        self.resample = resample

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x, vectors)
            if self.attentions:
                x = self.attentions[i](x, vectors)
        return self.resample(x)


class Emu3Decoder(nn.Module):
    """Latents and vectors of codes, both [B, d, 1, h, w] -> pixels [B, 3, H, W] of one frame."""

    def __init__(self, config: Emu3TokenizerConfig) -> None:
        super().__init__()
        widths, d = config.widths, config.code_dim
        after = [*widths[1:], widths[-1]]
        self.time_blocks = nn.ModuleList(TemporalBlock(d) for _ in range(config.res_blocks))
        self.time_convs = nn.ModuleList(CausalConv3d(d) for _ in range(config.halvings))
        self.conv_in = nn.Conv2d(d, widths[-1], 3, padding=1)
        self.middle = SpatialMiddle(widths[-1], d)
        # By resolution, as checkpoints number them: the last is run first.
        self.levels = nn.ModuleList(
            SpatialLevel(
                a,
                b,
                d,
                count=config.res_blocks + 1,
                attention=i in config.attention_stages,
                resample=nn.Identity() if i == 0 else Upsample(b),
            )
            for i, (a, b) in enumerate(zip(after, widths, strict=True))
        )
        self.norm_out = SpatialNorm(widths[0], d)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor, vectors: Tensor) -> Tensor:
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


# --- the tokenizer -------------------------------------------------------------------------------


class Emu3Tokenizer(nn.Module):
    """Pictures [B, 3, H, W] of any size in multiples of `config.downsample` <-> codes [B, h, w].

    Pictures are floats in [0, 1]; what the encoder sees is (picture - mean) / std.
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
        """Pictures [B, 3, H, W] in [0, 1] -> codes [B, h, w] int64.

        Raises:
            ValueError: no RGB pictures, or sides that are no multiples of `config.downsample`.
        """
        step = self.config.downsample
        sides = pictures.shape[2:]
        if pictures.ndim != 4 or pictures.shape[1] != 3 or any(s % step or not s for s in sides):
            raise ValueError(
                f"pictures must be [B, 3, H, W] with sides in multiples of {step}, "
                f"not {list(pictures.shape)}"
            )
        weight = self.encoder.conv_in.weight
        mean, std = self._range(weight.device)
        pixels = (pictures.to(weight.device, torch.float32) - mean) / std
        return self.encode_raw(pixels.to(weight.dtype))

    @torch.no_grad()
    def encode_raw(self, pixels: Tensor) -> Tensor:
        """As `encode`, but pixels that are normalised already, in the type of the weights."""
        latents = self.latents(pixels)
        points = latents.float().movedim(1, -1).flatten(0, 2)  # [B h w, d]
        codes = [self.quantizer.nearest(some) for some in points.split(POINTS)]
        return torch.cat(codes).unflatten(0, (len(latents), *latents.shape[2:]))

    def latents(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> what is compared with the codebook, [B, d, h, w]."""
        return self.quant_conv(self.encoder(pixels)).squeeze(2)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w] -> pictures [B, 3, H, W] in [0, 1].

        Raises:
            ValueError: no grids, or a code outside the codebook.
        """
        pixels = self.decode_raw(codes).float()
        mean, std = self._range(pixels.device)
        return (pixels * std + mean).clamp(0, 1)

    def decode_raw(self, codes: Tensor) -> Tensor:
        """As `decode`, but pixels in the range of the encoder's, not clipped, with gradients."""
        if codes.ndim != 3 or not codes.shape[1] * codes.shape[2]:
            raise ValueError(f"codes must be [B, h, w], not {list(codes.shape)}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise ValueError(f"a code lies outside 0..{self.codebook_size - 1}")
        vectors = self.quantizer.lookup(codes.to(self.quantizer.codebook.device))
        vectors = vectors.to(self.post_quant_conv.weight.dtype).movedim(-1, 1)
        vectors = vectors.unsqueeze(2).contiguous()  # [B, d, 1, h, w]
        return self.decoder(self.post_quant_conv(vectors), vectors)

    def _range(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and std of the normalisation, [3, 1, 1] each."""
        values = torch.tensor([self.config.mean, self.config.std], device=device)
        return values[0].view(3, 1, 1), values[1].view(3, 1, 1)

    @property
    def codebook_size(self) -> int:
        return self.config.codebook_size

    @property
    def can_decode(self) -> bool:
        return True

    def refresh(self) -> None:
        """Nothing is derived from the weights."""


@make_image_tokenizer.register
def _(config: Emu3TokenizerConfig) -> Emu3Tokenizer:
    return Emu3Tokenizer(config)


# --- names in checkpoints ------------------------------------------------------------------------

Renames = Sequence[tuple[str, str]]

# What a checkpoint has and we do not use: BatchNorm counts batches for training alone.
DROPPED = (r"(en|de)coder\.time_res_stack\.\d+\.norm\d\.num_batches_tracked",)

# Our names -> what both kinds of checkpoint have, applied in order.
SHARED: Renames = [
    (r"^quantizer\.codebook$", "quantize.embedding.weight"),
    (r"^(post_quant_conv|quant_conv)\.", r"\1.conv."),
    (r"\.time_convs\.(\d+)\.", r".time_conv.\1.conv.conv."),
    (r"\.time_blocks\.(\d+)\.norm", r".time_res_stack.\1.norm"),
    (r"\.time_blocks\.(\d+)\.conv(\d)\.", r".time_res_stack.\1.conv\2.conv."),
    (r"\.(norm\w*)\.norm\.", r".\1.norm_layer."),
    (r"\.scale\.", ".conv_y."),
    (r"\.shift\.", ".conv_b."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"^encoder\.levels\.(\d+)\.resample\.", r"encoder.levels.\1.downsample."),
    (r"^decoder\.levels\.(\d+)\.resample\.", r"decoder.levels.\1.upsample."),
    (r"\.levels\.(\d+)\.blocks\.", r".levels.\1.block."),
    (r"\.middle\.block(\d)\.", r".middle.block_\1."),
]  # fmt: skip

# transformers: Emu3VQVAE, which is `model.vqmodel` in a whole Emu3.
TRANSFORMERS: Renames = [
    *SHARED,
    (r"\.levels\.(\d+)\.attentions\.(\d+)\.norm\.", r".levels.\1.attn_norms.\2."),
    (r"\.levels\.(\d+)\.attentions\.", r".levels.\1.attn."),
    (r"\.middle\.attention\.norm\.", ".middle.attn_norm."),
    (r"\.middle\.attention\.", ".middle.attn_1."),
    (r"\.(q|k|v)\.(weight|bias)$", r".\1_proj.\2"),
    (r"\.proj\.(weight|bias)$", r".out_proj.\1"),
    (r"\.middle\.", ".middle_block."),
    (r"^encoder\.levels\.", "encoder.down_block.down."),
    (r"^decoder\.levels\.", "decoder.up_block.up."),
]  # fmt: skip

# baaivision/Emu3, emu3/tokenizer/modeling_emu3visionvq.py: the folder Emu3-VisionTokenizer.
ORIGINAL: Renames = [
    *SHARED,
    (r"\.levels\.(\d+)\.attentions\.", r".levels.\1.attn."),
    (r"\.middle\.attention\.", ".middle.attn_1."),
    (r"\.proj\.(weight|bias)$", r".proj_out.\1"),
    (r"\.middle\.", ".mid."),
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.", "decoder.up."),
]  # fmt: skip


def transformers_name(key: str) -> str:
    """Our parameter's name -> its name in transformers, without `model.vqmodel.`.

    Shapes are equal but for `linear_in_transformers`.
    """
    return rename(key, TRANSFORMERS)


def original_name(key: str) -> str:
    """Our parameter's name -> its name in the folder Emu3-VisionTokenizer; shapes are equal."""
    return rename(key, ORIGINAL)


def linear_in_transformers(key: str) -> bool:
    """Whether transformers keeps this weight of a 1x1 convolution as a linear layer's, [C, C]."""
    return re.search(r"\.attentions?\.(\d+\.)?(q|k|v|proj)\.weight$", key) is not None
