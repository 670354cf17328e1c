"""The settings of image processors, and the step from a picture to pixels.

They stand in preprocessor_config.json or, as transformers 5 writes them, in processor_config.json.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import Settings, is_float, is_int
from unitok.shown import shown

Colour = tuple[float, float, float]

BICUBIC = int(Image.Resampling.BICUBIC)
LANCZOS = int(Image.Resampling.LANCZOS)
LONGEST = 64  # times as long as wide; of more, the ends are cut off before it grows, for memory
# What an image processor has for its own code, or what we do to any picture.
IGNORED_PIXEL_KEYS = """image_processor_type feature_extractor_type background_color do_convert_rgb
    data_format input_data_format device return_tensors disable_grouping default_to_square
    image_seq_length num_image_tokens _valid_processor_keys""".split()
REQUIRED_PIXEL_VALUES: Mapping[str, tuple[Any, ...]] = {
    "do_resize": (None, True),
    "do_rescale": (None, True),
    "do_normalize": (None, True),
    "do_center_crop": (None, False),
    "crop_size": (None,),
    "pad_size": (None,),
}


def read_pixels(folder: Path, strict: bool, optional: bool = False) -> Settings:
    """What a folder says of its image processor.

    Args:
        folder: The checkpoint's.
        strict: Whether an unknown setting is an error.
        optional: Whether it may say nothing. If not, a guess would silently change what the model
            sees.

    Raises:
        FileNotFoundError: It says nothing, and must.
    """
    outer, file = folder / "processor_config.json", folder / "preprocessor_config.json"
    processor = Settings(read_json(outer, optional=True), str(outer), strict)
    inside = processor.section("image_processor", f"{outer}: image_processor")
    return inside if inside.data else Settings(read_json(file, optional), str(file), strict)


def check_pixels(
    pixels: Settings, read: Collection[str], required: Mapping[str, tuple[Any, ...]]
) -> None:
    """As `Settings.check`, of an image processor that resizes, scales and normalises."""
    known = {"rescale_factor", "image_mean", "image_std", *read, *IGNORED_PIXEL_KEYS}
    pixels.check(known, {**REQUIRED_PIXEL_VALUES, **required})


def read_scale(pixels: Settings) -> float:
    """What bytes are multiplied with."""
    return pixels.float_setting("rescale_factor", 1 / 255)


def check_scale(pixels: Settings) -> None:
    """Raise ValueError unless bytes come to lie in [0, 1]."""
    if not math.isclose(scale := read_scale(pixels), 1 / 255, rel_tol=1e-6):
        raise ValueError(f"{pixels.where}: rescale_factor must be 1/255, not {scale}")


def read_colours(pixels: Settings) -> tuple[Colour, Colour]:
    """The mean and the standard deviation of each channel, which a file may give once for all.

    Raises:
        ValueError: They are missing, since a guess would silently change what the model sees; they
            are no numbers; or a deviation is not above 0.
    """
    keys = ("image_mean", "image_std")
    if missing := [key for key in keys if pixels.data.get(key) is None]:
        raise ValueError(f"{pixels.where} has no {' and no '.join(missing)}")
    mean, std = (_read_colour(pixels, key) for key in keys)
    if min(std) <= 0:
        stated = shown(pixels.data["image_std"])
        raise ValueError(f"{pixels.where}: image_std must be above 0, not {stated}")
    return mean, std


def _read_colour(pixels: Settings, key: str) -> Colour:
    value = pixels.data[key]
    values = [value] * 3 if is_float(value) else value
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(is_float, values)):
        raise ValueError(f"{pixels.where}: {key} must be one number or three, not {shown(value)}")
    return values[0], values[1], values[2]


def read_side(size: object, where: str) -> int:
    """The side of square pictures: a number, or an object with as much height as width.

    Raises:
        ValueError: It is neither.
    """
    sides = [size]
    if isinstance(size, Mapping):
        sides = [size.get("height"), size.get("width")]
    side = sides[0]
    if not isinstance(side, int) or not is_int(side, 1) or sides[-1] != side:
        raise ValueError(
            f"{where}: pictures must be square, of a size in pixels, not {shown(size)}"
        )
    return side


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB picture -> its pixels [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def centre_square(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Bring the shorter side to `size` pixels and cut out the middle.

    Source: facebookresearch/chameleon, chameleon/inference/image_tokenizer.py.
    """
    shorter = min(image.size)
    image = middle(image, *(min(side, LONGEST * shorter) for side in image.size))
    scale = size / shorter
    fitted = round(scale * image.width), round(scale * image.height)
    return middle(image.resize(fitted, resample), size, size)


def middle(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of a picture."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
