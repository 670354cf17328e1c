"""Networks whose features FID, KID and the Inception Score compare, opened from local files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitok.baselines.adapter import find_device
from unitok.baselines.lite0 import normalised, open_network, pixels_of
from unitok.evaluation.inception import WIDTH, open_inception, resized
from unitok.extras import need
from unitok.pictures import PictureLike, open_picture
from unitok.saving import expanded

LITE0 = "lite0"
LITE0_WIDTH = 1280


@dataclass(frozen=True)
class Features:
    """What a network says of n pictures.

    Attributes:
        values: [n, width], float32 on the CPU.
        logits: Of its classes [n, classes]; None if it has no classes.
    """

    values: Tensor
    logits: Tensor | None = None


class Extractor(Protocol):
    """A network that gives features of pictures of any size."""

    @property
    def suffix(self) -> str:
        """What the names of scores end with: "" for those that are published, or "_" and a name."""
        ...

    @property
    def width(self) -> int:
        """How many features a picture has."""
        ...

    @property
    def note(self) -> str:
        """What its scores can be compared with, in a sentence."""
        ...

    def __call__(self, images: Sequence[PictureLike]) -> Features:
        """Features of some pictures, in one batch."""
        ...


class InceptionExtractor:
    """The network that published scores are computed with.

    Each picture is resized to 299 x 299, without keeping its proportions, as TensorFlow 1 does it.

    Args:
        path: Its weights, as torch-fidelity and pytorch-fid distribute them, or as safetensors.
        device: Where it computes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds other weights.
    """

    suffix, width = "", WIDTH
    note = (
        "fid, kid and inception_score are those of the network that published numbers are computed "
        "with; they depend on the number of pictures and on their file format too."
    )

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.device, self.network = device, open_inception(path, device)

    @torch.inference_mode()
    def __call__(self, images: Sequence[PictureLike]) -> Features:
        """Features of some pictures, in one batch."""
        pixels = [resized(channels_first(open_picture(image)).to(self.device)) for image in images]
        values, logits = self.network(torch.cat(pixels))
        return Features(values.cpu(), logits.cpu())


class Lite0Extractor:
    """EfficientNet-Lite0 (https://arxiv.org/abs/1905.11946), of a package with its weights.

    Each picture is resized to 224 x 224 by bicubic interpolation, without keeping its proportions.

    Raises:
        ImportError: The package is not installed.
    """

    suffix, width = f"_{LITE0}", LITE0_WIDTH
    note = (
        "fid_lite0, kid_lite0 and inception_score_lite0 are of EfficientNet-Lite0: they compare "
        "models with one another, and cannot be compared with published FID, KID or Inception "
        "Score."
    )

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.network = device, open_network("eval").to(device)

    @torch.inference_mode()
    def __call__(self, images: Sequence[PictureLike]) -> Features:
        """Features of some pictures, in one batch."""
        pixels = normalised(pixels_of(images)).to(self.device)
        maps = self.network.extract_features(pixels)
        values = maps.mean((2, 3))
        return Features(values.cpu(), self.network._fc(values).cpu())


class EncoderExtractor:
    """Any image encoder that `unitok.baselines` opens, such as DINOv2; it has no classes.

    Args:
        folder: Its folder.
        device: Where it computes.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from unitok.baselines.opening import kind_of, load

        self.encoder = load(folder, "encoder", device=device, silent=True)
        self.suffix, self.width = f"_{kind_of(folder)}", self.encoder.width
        self.note = (
            f"fid{self.suffix} and kid{self.suffix} are of {folder.name}: they can be compared "
            "with numbers of the same checkpoint and preprocessing alone."
        )

    def __call__(self, images: Sequence[PictureLike]) -> Features:
        """Features of some pictures, in one batch."""
        return Features(self.encoder.features(images))


def open_extractor(choice: str | Path | None, device: str | None = None) -> Extractor:
    """Open the network of a FID.

    Args:
        choice: "lite0", a file with the weights of FID's InceptionV3, or the folder of an image
            encoder.
        device: Where it computes; None for a GPU if there is one.

    Raises:
        ImportError: A library is not installed.
        FileNotFoundError: There is no such file.
        ValueError: None is named, it holds something else, or the device does not exist.
    """
    if choice is None:
        raise ValueError(
            "FID, KID and the Inception Score need an extractor: name a file with the weights of "
            "FID's InceptionV3, as torch-fidelity and pytorch-fid distribute it, or lite0, whose "
            "numbers cannot be compared with published ones"
        )
    device = find_device(device or "auto")
    need("torchmetrics", "eval")  # or it would be found missing only when all pictures are made
    if str(choice) == LITE0:
        return Lite0Extractor(device)
    path = expanded(choice)
    return (EncoderExtractor if path.is_dir() else InceptionExtractor)(path, device)


def channels_first(image: Image.Image) -> Tensor:
    """The pixels of an RGB picture as bytes [1, 3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
