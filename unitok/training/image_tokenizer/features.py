"""Networks whose features say how alike two pictures look, opened from local files."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.baselines.lite0 import normalised, open_network
from unitok.baselines.parts import open_model
from unitok.extras import need

LITE0 = "lite0"
# The blocks of EfficientNet-Lite0 after which the sides are halved, and its last one.
LITE0_BLOCKS = (0, 2, 4, 10, 15)
LITE0_SMALLEST = 32  # pixels
LONGEST = 2**20  # bytes of a preprocessor's file


class Lite0Features(nn.Module):
    """EfficientNet-Lite0; `unitok.baselines.lite0` says where it comes from.

    Raises:
        ImportError: They are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        network = open_network("train")
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = network._blocks

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Compute features.

        Args:
            pixels: [B, 3, H, W] in [-1, 1].

        Returns:
            A feature map [B, C, h, w] of each of the five resolutions.

        Raises:
            ValueError: The pictures are smaller than 32 pixels.
        """
        if min(pixels.shape[-2:]) < LITE0_SMALLEST:
            raise ValueError(f"lite0 compares pictures of at least {LITE0_SMALLEST} pixels a side")
        x = self.stem(normalised((pixels + 1) * 127.5))
        maps: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in LITE0_BLOCKS:
                maps.append(x)
        return maps


class CheckpointFeatures(nn.Module):
    """The vision encoder of a folder that transformers reads; its hidden states are the features.

    Pictures are normalised as preprocessor_config.json says, and scaled to the size of config.json
    if it names one.

    Args:
        folder: It holds config.json and the weights as safetensors.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: There is no such folder, or it has no config.json.
        ValueError: It cannot be opened, weights are missing, or it gives no hidden states.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, folder: Path) -> None:
        super().__init__()
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder}: no folder with a config.json")
        model = open_model(need("transformers", "train").AutoModel, folder)
        self.network: nn.Module = getattr(model, "vision_model", model)
        size = getattr(self.network.config, "image_size", None)
        self.size = size if isinstance(size, int) else None
        mean, std = read_normalisation(folder)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))
        if not self(torch.zeros(1, 3, self.size or 64, self.size or 64)):
            raise ValueError(f"{folder}: the model gives no hidden states")

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Compute features.

        Args:
            pixels: [B, 3, H, W] in [-1, 1].

        Returns:
            Hidden states [B, C, h, w] or [B, C, n].
        """
        if self.size is not None and pixels.shape[-1] != self.size:
            pixels = F.interpolate(
                pixels, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False
            )
        pixels = ((pixels + 1) / 2 - self.mean) / self.std
        states = self.network(pixel_values=pixels, output_hidden_states=True).hidden_states
        return [s if s.ndim == 4 else s.transpose(1, 2) for s in states or ()]


def open_features(choice: str) -> nn.Module:
    """Open the network of a recipe's key `perceptual`, frozen.

    Args:
        choice: "lite0", or the folder of a vision encoder.

    Raises:
        ImportError: A library is not installed.
        FileNotFoundError: There is no such folder.
        ValueError: It cannot be opened.
    """
    made = Lite0Features() if choice == LITE0 else CheckpointFeatures(Path(choice))
    return made.requires_grad_(False).eval()


def read_normalisation(folder: Path) -> tuple[list[float], list[float]]:
    """Means and standard deviations of the channels; those of ImageNet if no file says them.

    Raises:
        ValueError: The file cannot be read, or they are not three numbers each.
    """
    path, data = folder / "preprocessor_config.json", {}
    if path.is_file():
        if path.stat().st_size > LONGEST:
            raise ValueError(f"{path} is larger than {LONGEST:,} bytes")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from None
    mean = data.get("image_mean", [0.485, 0.456, 0.406])
    std = data.get("image_std", [0.229, 0.224, 0.225])
    for name, values in (("image_mean", mean), ("image_std", std)):
        if len(values) != 3 or not all(isinstance(v, int | float) for v in values) or 0 in std:
            raise ValueError(f"{path}: {name} must be three numbers, not {values}")
    return mean, std
