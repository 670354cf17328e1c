"""What Emu3 does to a picture before its image tokenizer sees it."""

import math
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from unitok.checkpoints.settings import Settings
from unitok.families.common.preprocessing import BICUBIC, check_pixels, check_scale, to_pixels

# do_pad is of pictures in a batch; here each is read alone.
READ = ("min_pixels", "max_pixels", "spatial_factor", "size", "do_pad")
LONGEST = 5  # times as long as wide


@dataclass(frozen=True)
class Preprocessor:
    """Resizes pictures and keeps their shape as nearly as can be.

    Source: baaivision/Emu3, emu3/tokenizer/image_processing_emu3visionvq.py.

    Attributes:
        factor: The sides become multiples of it, and are at least as long.
        min_pixels: The area is at least this.
        max_pixels: The area is at most this.
    """

    factor: int = 8
    min_pixels: int = 512 * 512
    max_pixels: int = 1024 * 1024

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size a picture is shrunk or enlarged to.

        Raises:
            ValueError: A side is shorter than `factor`, or more than `LONGEST` times the other.
        """
        if min(width, height) < self.factor:
            raise ValueError(
                f"a picture of {width} x {height} is too small for Emu3: each side needs at least "
                f"{self.factor} pixels; enlarge it"
            )
        if max(width, height) > LONGEST * min(width, height):
            raise ValueError(
                f"a picture of {width} x {height} is too thin for Emu3: one side may be at most "
                f"{LONGEST} times the other; crop it"
            )
        fitted = [round(side / self.factor) * self.factor for side in (width, height)]
        if math.prod(fitted) > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            steps = [math.floor(side / shrink / self.factor) for side in (width, height)]
            fitted = [max(1, n) * self.factor for n in steps]
        elif math.prod(fitted) < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            fitted = [
                math.ceil(side * grow / self.factor) * self.factor for side in (width, height)
            ]
        return fitted[0], fitted[1]

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB picture -> pixels [3, H, W] in [0, 1]."""
        image = image.resize(self.resized(*image.size), Image.Resampling.BICUBIC)
        return to_pixels(image)


def preprocessor_from_json(pixels: Settings) -> Preprocessor:
    """The settings of Emu3ImageProcessor but for its normalisation, which is the image tokenizer's.

    Raises:
        ValueError: A setting asks for something else, or has a wrong type.
    """
    check_pixels(pixels, READ, {"resample": (None, BICUBIC)})
    check_scale(pixels)
    names = {"spatial_factor": "factor", "min_pixels": "min_pixels", "max_pixels": "max_pixels"}
    made = Preprocessor(**pixels.fields(names, Preprocessor()))
    for key, value in pixels.section("size").data.items():
        if key in ("min_pixels", "max_pixels") and value != getattr(made, key):
            raise ValueError(f"{pixels.where}: size says {key} {value}, not {getattr(made, key)}")
    if made.min_pixels > made.max_pixels:
        raise ValueError(
            f"{pixels.where}: min_pixels {made.min_pixels} is more than max_pixels "
            f"{made.max_pixels}"
        )
    return made
