"""PSNR and SSIM of a reconstruction beside its original."""

from __future__ import annotations

from unitok.evaluation.extractors import channels_first
from unitok.evaluation.similarity import ssim
from unitok.pictures import PictureLike, open_picture
from unitok_tokenizers.losses import psnr


def pair_scores(original: PictureLike, made: PictureLike) -> dict[str, float]:
    """PSNR in dB, at most 100, and SSIM of two pictures of one size.

    Raises:
        ValueError: They differ in size, are smaller than 11 pixels, or cannot be read.
    """
    one, other = (channels_first(open_picture(p)).double() / 255 for p in (original, made))
    if one.shape != other.shape:
        (height, width), (high, wide) = one.shape[2:], other.shape[2:]
        raise ValueError(
            f"the original has {width} x {height} pixels, the reconstruction {wide} x {high}"
        )
    return {"psnr": float(psnr(other, one)), "ssim": float(ssim(other, one))}
