"""What an image tokenizer is trained to make small."""

import torch
from torch import Tensor
from torch.nn import functional as F


def reconstruction(predicted: Tensor, target: Tensor, absolute: float = 0.1) -> Tensor:
    """Squared error, which PSNR measures, and a share of absolute error, which keeps edges crisp.

    Both pictures are [B, 3, H, W] in [-1, 1].
    """
    return F.mse_loss(predicted, target) + absolute * F.l1_loss(predicted, target)


def psnr(predicted: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture [B, 3, H, W] in [0, 1] -> [B]."""
    error = (predicted.float() - target.float()).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-10))
