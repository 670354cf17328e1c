"""Measures that any evaluation can use."""

from collections.abc import Sequence

from torch import Tensor

from unitok.api import Model
from unitok.requests import Caption, Draw
from unitok.results import DrawResult, TextResult
from unitok_tokenizers.losses import psnr


def rate(right: Sequence[bool] | Sequence[float]) -> float:
    """The share of what is right, or the mean of scores."""
    return sum(right) / len(right)


def answers(model: Model, requests: Sequence[Caption]) -> list[str]:
    """The texts of the answers, in the order asked.

    Raises:
        RuntimeError: A request failed; the message says which and why.
    """
    texts = [""] * len(requests)
    for result in model.run(requests):
        if not isinstance(result, TextResult) or result.error is not None:
            raise RuntimeError(f"request {result.index} has no answer: {result.error}")
        texts[result.index] = result.text
    return texts


def drawings(model: Model, requests: Sequence[Draw]) -> list[DrawResult]:
    """The drawings, in the order asked.

    Raises:
        RuntimeError: A request failed; the message says which and why.
    """
    drawn: dict[int, DrawResult] = {}
    for result in model.run(requests):
        if not isinstance(result, DrawResult) or result.error is not None:
            raise RuntimeError(f"request {result.index} has no drawing: {result.error}")
        drawn[result.index] = result
    return [drawn[index] for index in range(len(requests))]


def reconstruction_psnr(model: Model, pixels: Tensor) -> float:
    """The mean PSNR, in dB, of pictures that went through the image tokenizer and back.

    Args:
        model: Any model that draws by an image tokenizer.
        pixels: Pictures [B, 3, S, S] in [0, 1], of the image tokenizer's size.
    """
    tokenizer = model.family.model.image_tokenizer
    return float(psnr(tokenizer.decode(tokenizer.encode(pixels)).cpu(), pixels).mean())
