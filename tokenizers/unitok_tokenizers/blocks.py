"""Layers that the convolutional image tokenizers share.

They follow the VQGAN of Esser et al. 2021 (https://arxiv.org/abs/2012.09841). A norm may take more
than the feature map: the decoder of Emu3 conditions its norms on the vectors of the codes. What a
norm takes beside the feature map is called its condition here; GroupNorm has none.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32  # Every norm of the published checkpoints has 32 groups.

MakeResidual = Callable[[int, int], nn.Module]  # Channels in and channels out -> a residual block.
MakeAttention = Callable[[int], nn.Module]  # Channels -> an attention block.


def norm(channels: int) -> nn.GroupNorm:
    """Make the GroupNorm that all published checkpoints use."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """A residual block: twice norm, SiLU and 3x3 convolution, added to a shortcut.

    Args:
        channels_in: The number of channels of the input.
        channels_out: The number of channels of the output. The shortcut is a 1x1 convolution where
            it differs from `channels_in`.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Map a feature map [B, channels_in, H, W] to [B, channels_out, H, W]."""
        h = self.conv1(F.silu(self.norm1(x, *condition)))
        h = self.conv2(F.silu(self.norm2(h, *condition)))
        return self.shortcut(x) + h


class AttentionBlock(nn.Module):
    """One-head self-attention over the positions of a feature map, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Map a feature map [B, C, H, W] to one of the same shape."""
        h = self.norm(x, *condition)
        # [B, C, H, W] -> [B, 1, HW, C]: one head
        q, k, v = (m(h).flatten(2).transpose(1, 2).unsqueeze(1) for m in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x + self.proj(out.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halves both sides by a convolution of stride 2, padded right and bottom only, as in VQGAN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map a feature map [B, C, H, W] to [B, C, H / 2, W / 2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles both sides by nearest-neighbour interpolation and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map a feature map [B, C, H, W] to [B, C, 2 H, 2 W]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """Residual, attention and residual block at the lowest resolution.

    Args:
        channels: The number of channels of input and output.
        residual: Makes each residual block.
        attention: Makes the attention block.
    """

    def __init__(
        self,
        channels: int,
        residual: MakeResidual = ResidualBlock,
        attention: MakeAttention = AttentionBlock,
    ) -> None:
        super().__init__()
        self.block1 = residual(channels, channels)
        self.attention = attention(channels)
        self.block2 = residual(channels, channels)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Map a feature map [B, C, H, W] to one of the same shape."""
        x = self.block1(x, *condition)
        x = self.attention(x, *condition)
        return self.block2(x, *condition)


class Level(nn.Module):
    """The residual blocks of one resolution, and then a change of resolution.

    Args:
        channels_in: The number of channels of the input.
        channels: The number of channels of the output.
        count: The number of residual blocks.
        attention: Makes the attention block that follows each residual block; None for no
            attention.
        resample: The change of resolution: `Downsample`, `Upsample` or the identity.
        residual: Makes each residual block.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        count: int,
        attention: MakeAttention | None,
        resample: nn.Module,
        residual: MakeResidual = ResidualBlock,
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels] * (count - 1)
        self.blocks = nn.ModuleList(residual(width, channels) for width in widths)
        self.attentions = nn.ModuleList(attention(channels) for _ in widths if attention)
        self.resample = resample

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Map a feature map [B, channels_in, H, W] to [B, channels, H', W'], as resampled."""
        for i, block in enumerate(self.blocks):
            x = block(x, *condition)
            if self.attentions:
                x = self.attentions[i](x, *condition)
        return self.resample(x)
