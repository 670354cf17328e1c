"""The PatchGAN discriminator, which tells decoded pictures from real ones patch by patch."""

from itertools import pairwise
from math import gcd

from torch import Tensor, nn

from unitok.training.image_tokenizer.options import Norm


class PatchDiscriminator(nn.Module):
    """Convolutions of 4 x 4 pixels, as in pix2pix (https://arxiv.org/abs/1611.07004) and VQGAN.

    Args:
        channels: The number of channels of the first layer. The next ones have twice as many each,
            up to eight times as many.
        layers: How many layers halve the sides; two more follow that do not.
        norm: "batch" or "group".
    """

    def __init__(self, channels: int = 64, layers: int = 3, norm: Norm = "batch") -> None:
        super().__init__()
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        body = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, (before, after) in enumerate(pairwise(widths)):
            stride = 2 if i < layers - 1 else 1
            conv = nn.Conv2d(before, after, 4, stride, 1, bias=False)
            body += [conv, make_norm(norm, after), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*body, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.apply(initialise)

    def forward(self, pixels: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            pixels: [B, 3, H, W] in about [-1, 1].

        Returns:
            A logit for each patch [B, 1, h, w], high for real ones.
        """
        return self.body(pixels)


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Make a layer that normalises over the batch, or over groups of channels of a picture."""
    return (
        nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(gcd(32, channels), channels)
    )


def smallest_picture(layers: int) -> int:
    """The side in pixels of the smallest picture that a discriminator can judge."""
    return 3 * 2**layers


def initialise(module: nn.Module) -> None:
    """Draw a layer's weights as pix2pix does."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
