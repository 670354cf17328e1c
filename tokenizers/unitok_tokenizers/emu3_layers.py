"""The layers of Emu3's image tokenizer that other image tokenizers do not have.

Layers over time are those of Emu3 (https://arxiv.org/abs/2409.18869). Norms that are conditioned on
the vectors of the codes are those of MoVQ (https://arxiv.org/abs/2209.09002).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok_tokenizers.blocks import AttentionBlock, ResidualBlock, norm

# --- time ----------------------------------------------------------------------------------------


class CausalConv3d(nn.Conv3d):
    """A convolution over time and space in which no frame sees a later one.

    Args:
        channels: The number of channels of input and output.
        time: The size of the kernel in frames.
        side: The size of the kernel in rows and columns.
        stride: The stride in frames. The number of frames is divided by it.
    """

    def __init__(self, channels: int, time: int = 3, side: int = 3, stride: int = 1) -> None:
        steps, edge = (stride, 1, 1), (0, side // 2, side // 2)
        super().__init__(channels, channels, (time, side, side), steps, edge)
        self.past = time - stride

    def forward(self, input: Tensor) -> Tensor:
        """Map a video [B, C, T, h, w] to [B, C, T / stride, h, w]."""
        return super().forward(F.pad(input, (0, 0, 0, 0, self.past, 0)))


class FrozenBatchNorm(nn.Module):
    """BatchNorm that uses the statistics of the checkpoint, in training mode too."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, ...] to the same shape."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class TemporalBlock(nn.Module):
    """A residual block over time: twice BatchNorm, SiLU and causal convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = FrozenBatchNorm(channels)
        self.conv1 = CausalConv3d(channels)
        self.norm2 = FrozenBatchNorm(channels)
        self.conv2 = CausalConv3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map a video [B, C, T, h, w] to one of the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return x + h


# --- norms conditioned on the codes --------------------------------------------------------------


class SpatialNorm(nn.Module):
    """GroupNorm, scaled and shifted at each position by the vector of the code that lies there.

    Args:
        channels: The number of channels of the feature map.
        code_dim: The width of the vectors.
    """

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.scale = nn.Conv2d(code_dim, channels, 1)
        self.shift = nn.Conv2d(code_dim, channels, 1)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Normalise a feature map.

        Args:
            x: The feature map [B, C, H, W].
            vectors: The vectors of the codes [B, code_dim, h, w], after the layers over time.

        Returns:
            A feature map [B, C, H, W].
        """
        vectors = F.interpolate(vectors, size=x.shape[-2:], mode="nearest")
        return self.norm(x) * self.scale(vectors) + self.shift(vectors)


class SpatialResidualBlock(ResidualBlock):
    """A residual block whose norms take the vectors of the codes."""

    def __init__(self, channels_in: int, channels_out: int, code_dim: int) -> None:
        super().__init__(channels_in, channels_out)
        self.norm1 = SpatialNorm(channels_in, code_dim)
        self.norm2 = SpatialNorm(channels_out, code_dim)


class SpatialAttentionBlock(AttentionBlock):
    """An attention block whose norm takes the vectors of the codes."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__(channels)
        self.norm = SpatialNorm(channels, code_dim)
