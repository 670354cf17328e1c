"""PSNR and SSIM of a reconstruction beside its original."""

from __future__ import annotations

import torch
from torch import Tensor

from unitok.evaluation.extra import need
from unitok.evaluation.extractors import channels_first
from unitok.pictures import PictureLike, open_picture
from unitok_tokenizers.losses import psnr

WINDOW = 11  # pixels of a side of SSIM's window


def pair_scores(original: PictureLike, made: PictureLike) -> dict[str, float]:
    """PSNR in dB, at most 100, and SSIM of two pictures of one size.

    Raises:
        ValueError: They differ in size, are smaller than 11 pixels, or cannot be read.
        ImportError: torchmetrics is not installed.
    """
    one, other = (channels_first(open_picture(p)).double() / 255 for p in (original, made))
    if one.shape != other.shape:
        (height, width), (high, wide) = one.shape[2:], other.shape[2:]
        raise ValueError(
            f"the original has {width} x {height} pixels, the reconstruction {wide} x {high}"
        )
    return {"psnr": float(psnr(other, one)), "ssim": float(ssim(other, one))}


def ssim(made: Tensor, original: Tensor) -> Tensor:
    """Structural similarity (https://doi.org/10.1109/TIP.2003.819861) of each picture.

    The window is Gaussian, 11 pixels wide with a standard deviation of 1.5, as in the paper; the
    colours' similarities are averaged.

    Args:
        made: [B, 3, H, W] in [0, 1].
        original: Of the same shape.

    Returns:
        [B], at most 1.

    Raises:
        ValueError: The pictures are smaller than the window.
    """
    if min(made.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {WINDOW} pixels a side")
    measure = need("torchmetrics.functional.image").structural_similarity_index_measure
    found = measure(made, original, data_range=1.0, sigma=1.5, reduction="none")
    return torch.as_tensor(found).reshape(-1)
