"""The bytes of drawings, by the formulas of the families' authors, and ours beside them.

transformers gives the raw pixels, in about [-1, 1]. On them, our bytes have to be exactly the
authors'. End to end, both sides decode with rounding of their own, so that a level which lies that
near to a whole number may fall to either side of it. Nothing else may differ.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from unitok.families import GenerationSpec
from unitok.image_decoder import ImageDecoder
from unitok.nn.model import UnifiedModel

NEAR = 255 / 2 * 1e-5  # what the tolerance of decoded pixels is in levels


def of_janus(raw: np.ndarray) -> np.ndarray:
    """Raw pixels [n, H, W, 3] -> bytes (deepseek-ai/Janus, generation_inference.py)."""
    return np.clip((raw + 1) / 2 * 255, 0, 255).astype(np.uint8)


def of_chameleon(raw: np.ndarray) -> np.ndarray:
    """As `of_janus` (facebookresearch/chameleon, chameleon/inference/image_tokenizer.py).

    UniToken has a copy of that file.
    """
    unit = (np.clip(raw, -1.0, 1.0) + np.float32(1.0)) / np.float32(2.0)
    return (unit * 255).astype(np.uint8)


def of_emu3(raw: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """As `of_janus` (baaivision/Emu3, emu3/tokenizer/image_processing_emu3visionvq.py)."""
    shift = np.array([-m / s for m, s in zip(mean, std, strict=True)], dtype=np.float32)
    scale = np.array([1 / s for s in std], dtype=np.float32)
    levels = (raw - shift) / scale * (1 / (1 / 255))
    return levels.astype(np.float32).clip(0, 255).astype(np.uint8)


def last_axis(raw: Tensor) -> np.ndarray:
    """[n, 3, H, W] -> [n, H, W, 3]."""
    return raw.float().permute(0, 2, 3, 1).numpy()


def ours(spec: GenerationSpec, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
    """The bytes [n, H, W, 3] that drawings of these tokens get."""
    decoder = ImageDecoder(torch.device("cpu"), background=False)
    pictures = [decoder.submit(spec.decode, ids) for ids in token_ids]
    while decoder.has_work:
        decoder.work()
    return np.stack([picture.result().numpy() for picture in pictures])


def ours_from(
    raw: Tensor,
    model: UnifiedModel,
    spec: GenerationSpec,
    token_ids: Sequence[Sequence[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> np.ndarray:
    """As `ours`, but of given raw pixels [n, 3, H, W] in place of what our decoder makes."""
    one_by_one = iter(raw.split(1))
    with monkeypatch.context() as patch:
        patch.setattr(model.image_tokenizer, "decode_raw", lambda codes: next(one_by_one))
        return ours(spec, token_ids)


def assert_same_but_for_rounding(found: np.ndarray, theirs: np.ndarray, levels: np.ndarray) -> None:
    """Bytes differ only where the level before the cut is as good as a whole number.

    Args:
        found: Our bytes.
        theirs: The authors' bytes, of raw pixels that are not ours.
        levels: Those pixels as levels, not cut: [n, H, W, 3] in about [0, 255].
    """
    assert found.dtype == theirs.dtype == np.uint8 and found.shape == theirs.shape
    differs = found != theirs
    assert (np.abs(levels - levels.round())[differs] < NEAR).all()
    assert differs.mean() < 0.01, f"{differs.sum()} of {differs.size} bytes lie on a boundary"
    assert np.abs(found.astype(int) - theirs)[differs].max(initial=0) <= 1
    rounded = levels.clip(0, 255).round().astype(np.uint8)
    assert (rounded != theirs).mean() > 0.2, "cutting and rounding must differ here"
