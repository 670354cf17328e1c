"""Opens pictures safely, as RGB: files, bytes, PIL images, arrays and tensors."""

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

PictureLike = str | Path | bytes | Image.Image | np.ndarray | Tensor

MAX_PIXELS = 64_000_000
# Only these formats are tried, whatever a file is called. Others may start programs, as EPS does.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
if features.check("avif"):
    FORMATS = (*FORMATS, "AVIF")


def open_picture(source: PictureLike) -> Image.Image:
    """Open any picture as an upright RGB image.

    Transparent pixels are laid on white. Of an animation, the first frame is taken.

    Args:
        source: A path, bytes, a PIL image, an array or a tensor. Files and bytes have one of
            `FORMATS`, which their content shows, not their name. Arrays and tensors are
            [H, W, 3], [3, H, W] or [H, W], of bytes in 0..255 or floats in 0..1.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a picture of a known format, is cut off, or has more than 64 million
            pixels.
        TypeError: The source is of another type.
    """
    if isinstance(source, np.ndarray | Tensor):
        return from_array(source)
    if isinstance(source, Image.Image):
        refuse_unread(source)
        return to_rgb(source, "the picture")
    if isinstance(source, bytes):
        return read_file(BytesIO(source), "the picture")
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return read_file(path, str(path))
    raise TypeError(f"a picture is a path, PIL image, array or tensor, not {type(source).__name__}")


def refuse_unread(image: Image.Image) -> None:
    """Refuse an image that PIL has opened, but not read, from a file of another format.

    Raises:
        ValueError: It is such an image.
    """
    if getattr(image, "tile", None) and image.format not in FORMATS:
        raise ValueError(
            f"the picture is an unread {image.format} file; only {', '.join(FORMATS)} are read. "
            "Call its load() first if you trust it"
        )


def read_file(file: Path | BytesIO, name: str) -> Image.Image:
    """Read an RGB image from a file.

    Args:
        file: The file.
        name: Its name in messages.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a picture, is cut off, or has too many pixels.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            return to_rgb(image, name)
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not a picture") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{name} has more than {MAX_PIXELS:,} pixels") from None
    except (OSError, SyntaxError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the system, such as a missing permission
        raise ValueError(f"{name} is cut off or damaged: {error}") from None


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Read an image completely, turn it upright, and convert it to RGB.

    Args:
        image: The image.
        name: Its name in messages.

    Raises:
        ValueError: It is cut off, or has too many pixels.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} has {width * height:,} pixels; at most {MAX_PIXELS:,} are read")
    try:
        image.load()
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{name} is cut off or damaged: {error}") from None
    image = ImageOps.exif_transpose(image)  # a camera held upright, as transformers reads it
    if image.mode.startswith("I") or image.mode == "F":
        return from_array(to_bytes(np.asarray(image), image.mode, name))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def to_bytes(values: np.ndarray, mode: str, name: str) -> np.ndarray:
    """Convert grey values of more than 8 bits to bytes.

    Args:
        values: Of 16 bits, of which the high byte is taken. Or of 32 bits, taken as bytes if all
            are at most 255, else as 16 bits. Or floats in 0..1 or 0..255.
        mode: PIL's mode of the image.
        name: The image's name in messages.

    Raises:
        ValueError: A value is not a number.
    """
    if mode == "F":
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has values that are not numbers")
        scale = 255 if values.max(initial=0) <= 1 else 1
        return (values * scale).clip(0, 255).astype(np.uint8)
    is_wide = mode.startswith("I;16") or values.max(initial=0) > 255
    return (values >> 8 if is_wide else values).clip(0, 255).astype(np.uint8)


def from_array(values: np.ndarray | Tensor) -> Image.Image:
    """Make an RGB image of an array.

    Args:
        values: [H, W, 3], [3, H, W] or [H, W], of bytes in 0..255 or floats in 0..1.

    Raises:
        ValueError: The shape or a value is not of that kind, or there are too many pixels.
    """
    array = values.detach().cpu().float().numpy() if isinstance(values, Tensor) else values
    if isinstance(values, Tensor) and values.dtype == torch.uint8:
        array = values.cpu().numpy()
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = np.stack([array] * 3, -1)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"a picture array is [H, W, 3] or [3, H, W], not {list(values.shape)}")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ValueError(f"a picture array holds at most {MAX_PIXELS:,} pixels")
    if array.dtype != np.uint8:
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("a picture of floats lies in 0..1; give bytes for 0..255")
        array = (array * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def digest(pixels: Tensor, encoder: str) -> str:
    """A digest of an encoded picture: SHA-256 of its pixels and the name of its encoder."""
    data = pixels.detach().cpu().contiguous().float().numpy().tobytes()
    return hashlib.sha256(encoder.encode() + data).hexdigest()
