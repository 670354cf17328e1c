"""How far a decoded picture is from its original: a loss for training, and PSNR."""

import torch
from torch import Tensor
from torch.nn import functional as F


def reconstruction(predicted: Tensor, target: Tensor, absolute: float = 0.1) -> Tensor:
    """Compute the reconstruction loss, a mean over all pixels.

    It is the squared error, which PSNR measures, and a share of the absolute error, which keeps
    edges crisp.

    Args:
        predicted: Decoded pictures [B, 3, H, W] in [-1, 1].
        target: The original pictures, of the same shape and range.
        absolute: The weight of the absolute error.

    Returns:
        A scalar.
    """
    return F.mse_loss(predicted, target) + absolute * F.l1_loss(predicted, target)


def psnr(predicted: Tensor, target: Tensor) -> Tensor:
    """Compute the peak signal-to-noise ratio of each picture.

    Args:
        predicted: Decoded pictures [B, 3, H, W] in [0, 1].
        target: The original pictures, of the same shape and range.

    Returns:
        The ratio in dB [B], at most 100.
    """
    error = (predicted.float() - target.float()).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-10))
