"""How much of pictures is left when they are encoded and decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from unitok.pictures import PictureLike, from_array, open_picture
from unitok.training.image_tokenizer.code_use import count_codes, perplexity
from unitok.training.image_tokenizer.pictures import Cropping
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.losses import psnr

SHOWN = 8  # pictures of the sheet
AT_ONCE = 8  # pictures that are encoded together


@dataclass(frozen=True)
class ReconstructionReport:
    """What is left of pictures.

    Attributes:
        pictures: How many there were.
        psnr: The mean peak signal-to-noise ratio, in dB.
        worst: The lowest of all pictures, in dB.
        used: How many codes of the codebook occur.
        perplexity: How many codes would occur if all were used evenly.
        sheet: The first pictures in a row, and their reconstructions below them.
    """

    pictures: int
    psnr: float
    worst: float
    used: int
    perplexity: float
    sheet: Image.Image

    @property
    def scores(self) -> dict[str, float]:
        """The numbers by name, for a log."""
        names = ("psnr", "worst", "used", "perplexity")
        return {name: getattr(self, name) for name in names}


@torch.no_grad()
def reconstruction_report(
    model: ImageTokenizer,
    pictures: Iterable[PictureLike],
    shown: int = SHOWN,
    at_once: int = AT_ONCE,
) -> ReconstructionReport:
    """Encode pictures, decode their codes, and compare.

    Args:
        model: The image tokenizer.
        pictures: What `open_picture` reads; the largest square in the middle counts. Tensors
            [3, S, S] of floats, of the image tokenizer's size, are taken as they are.
        shown: How many pictures the sheet shows.
        at_once: How many are encoded together.

    Raises:
        ValueError: There are no pictures, or one cannot be read.
    """
    quality: list[Tensor] = []
    counts = torch.zeros(model.codebook_size, dtype=torch.int64)
    columns: list[Tensor] = []
    for pixels in batches(pictures, model.config.image_size, at_once):
        codes = model.encode(pixels)
        decoded = model.decode(codes).cpu()
        quality.append(psnr(decoded, pixels))
        counts += count_codes(codes.cpu(), len(counts))
        pairs = zip(pixels, decoded, strict=True)
        columns += [torch.cat(pair, 1) for pair in islice(pairs, shown - len(columns))]
    if not quality:
        raise ValueError("there are no pictures to reconstruct")
    every = torch.cat(quality)
    return ReconstructionReport(
        pictures=len(every),
        psnr=float(every.mean()),
        worst=float(every.min()),
        used=int((counts > 0).sum()),
        perplexity=float(perplexity(counts)),
        sheet=from_array(torch.cat(columns, 2)),
    )


def batches(pictures: Iterable[PictureLike], size: int, count: int) -> Iterator[Tensor]:
    """Pictures as pixels, some at a time, [B, 3, S, S] in [0, 1]."""
    source = iter(pictures)
    while chunk := list(islice(source, count)):
        yield torch.stack([as_pixels(picture, size) for picture in chunk])


def as_pixels(picture: PictureLike, size: int) -> Tensor:
    """A picture as the image tokenizer sees it, [3, size, size] in [0, 1]."""
    if isinstance(picture, Tensor) and fits(picture, size):
        return picture.detach().cpu().float()
    return Cropping(size).centre(open_picture(picture))


def fits(picture: Tensor, size: int) -> bool:
    """Whether a tensor needs neither a crop nor another scale."""
    return picture.is_floating_point() and tuple(picture.shape) == (3, size, size)
