"""How alike two pictures are."""

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, SIGMA = 11, 1.5  # pixels
C1, C2 = 0.01**2, 0.03**2


def ssim(pictures: Tensor, others: Tensor) -> Tensor:
    """The structural similarity (Wang et al., 2004, https://doi.org/10.1109/TIP.2003.819861).

    Statistics are of a Gaussian window over each pixel whose window lies in the picture.

    Args:
        pictures: [B, 3, H, W] in [0, 1], of at least 11 x 11 pixels.
        others: Of the same shape and range.

    Returns:
        The mean over windows and channels [B]: 1 for pictures that are the same.

    Raises:
        ValueError: They are smaller than the window.
    """
    if min(pictures.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {WINDOW} x {WINDOW} pixels")
    x, y = pictures.double().flatten(0, 1)[:, None], others.double().flatten(0, 1)[:, None]
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x, variance_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    scale = (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    return (alike / scale).flatten(1).mean(1).view(len(pictures), -1).mean(1)


def _blurred(channels: Tensor) -> Tensor:
    """Weighted means of windows: [N, 1, H, W] -> [N, 1, H - 10, W - 10]."""
    steps = torch.arange(WINDOW, dtype=channels.dtype) - WINDOW // 2
    weights = torch.exp(-(steps**2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).view(1, 1, 1, WINDOW)
    return F.conv2d(F.conv2d(channels, weights), weights.transpose(2, 3))
