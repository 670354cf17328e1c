"""What Janus does to a picture before its tower sees it."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.settings import Settings
from unitok.families.common.preprocessing import (
    BICUBIC,
    Colour,
    check_pixels,
    check_scale,
    read_colours,
    read_side,
    to_pixels,
)


@dataclass(frozen=True)
class Preprocessor:
    """Fits the longer side, pads with the mean colour, and normalises.

    Sizes are truncated, as the original does (deepseek-ai/Janus,
    janus/models/image_processing_vlm.py).

    Attributes:
        image_size: The side of the square that the tower sees, in pixels.
        mean: Of each channel.
        std: The standard deviation of each channel.
        min_size: The shortest side that a picture may be shrunk to, in pixels.
    """

    image_size: int = 384
    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)
    min_size: int = 14

    @property
    def background(self) -> tuple[int, int, int]:
        """The mean colour in bytes, whatever a file says, as in both references."""
        red, green, blue = (int(m * 255) for m in self.mean)
        return red, green, blue

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size a picture is shrunk or enlarged to, before padding."""
        longer = max(width, height)
        shrink = [int(side / longer * self.image_size) for side in (width, height)]
        return max(shrink[0], self.min_size), max(shrink[1], self.min_size)

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB picture -> pixels [3, S, S], normalised."""
        size = self.resized(*image.size)
        small = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
        square = Image.new("RGB", (self.image_size, self.image_size), self.background)
        square.paste(small, ((self.image_size - size[0]) // 2, (self.image_size - size[1]) // 2))
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (to_pixels(square) - mean) / std

    def to_json(self, layout: str) -> dict[str, Any]:
        """preprocessor_config.json for transformers' JanusImageProcessor or the original's."""
        own: dict[str, Any] = {
            "image_processor_type": "JanusImageProcessor",
            "processor_class": "JanusProcessor",
            "do_resize": True,
            "do_rescale": True,
            "do_pad": True,
            "resample": BICUBIC,
            "size": {"height": self.image_size, "width": self.image_size},
        }
        if layout == "original":
            own = {
                "image_processor_type": "VLMImageProcessor",
                "processor_class": "VLChatProcessor",
                "image_size": self.image_size,
            }
        return own | {
            "do_normalize": True,
            "min_size": self.min_size,
            "rescale_factor": 1 / 255,
            "background_color": list(self.background),
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


def preprocessor_from_json(pixels: Settings) -> Preprocessor:
    """The settings of transformers' JanusImageProcessor or of DeepSeek's VLMImageProcessor.

    Raises:
        ValueError: A setting asks for something else, or has a wrong type.
    """
    required = {"do_pad": (None, True), "resample": (None, BICUBIC)}
    check_pixels(pixels, ("size", "image_size", "min_size"), required)
    check_scale(pixels)
    stated = [pixels.data[key] for key in ("size", "image_size") if key in pixels.data]
    sides = {read_side(size, pixels.where) for size in stated}
    if len(sides) > 1:
        raise ValueError(f"{pixels.where}: size and image_size differ")
    mean, std = read_colours(pixels)
    side = next(iter(sides), 384)
    return Preprocessor(side, mean, std, pixels.int_setting("min_size", 14, most=max(side, 14)))
