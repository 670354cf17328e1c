"""Opens pictures safely, as RGB: files, streams, bytes, PIL images, arrays and tensors.

No more than some bytes a pixel are held at once. So a picture is converted in strips, and its
pixels are counted before any is decoded.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError, features
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH
from torch import Tensor

from unitok.picture_headers import HeaderReader, check_chunks
from unitok.picture_sources import (
    DATA_URI,
    PICTURE,
    Refused,
    check_length,
    is_data_uri,
    name_of,
    read_data_uri,
    read_file_object,
    read_path,
)

PictureLike = str | Path | bytes | BinaryIO | Image.Image | np.ndarray | Tensor

# Screens and most phones make pictures of 8 to 24 million pixels. A model sees about a million.
MAX_PIXELS = 32_000_000
# Some phones write 48 to 64 million, as JPEG. Above the limit for all, these are decoded at half
# their width and height.
MAX_JPEG_PIXELS = 64_000_000
# Encoders write about ten scans of a progressive JPEG. Each is a pass over all pixels, even one of
# fifty bytes, so that a file of a megabyte could take ten minutes.
MAX_SCANS = 100
SLOW = 16  # times as long as by a decoder in C, at least
STRIP = 2**18  # pixels that are converted at a time
# Only these formats are tried, whatever a file is called. Others may start programs, as EPS does.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
if features.check("avif"):
    FORMATS = (*FORMATS, "AVIF")
# What makes an image upright whose EXIF has this orientation; as it is stored, 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
JPEGS = ("JPEG", "MPO")  # Pillow's names; an MPO is a JPEG with further pictures behind it
# The markers of a JPEG, as its decoder finds them: what stands between pixels is none.
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
START_OF_SCAN, END_OF_JPEG = b"\xff\xda", b"\xff\xd9"
WITHOUT_LENGTH = (b"\xff\xd8", b"\xff\x01")


def open_picture(source: PictureLike) -> Image.Image:
    """Open any picture as an upright RGB image.

    Transparent pixels are laid on white. Of an animation, the first frame is taken.

    Args:
        source: A path, a data URI, bytes, a binary file object, a PIL image, an array or a tensor.
            Files have one of `FORMATS`, which their content shows, not their name. Arrays and
            tensors are [H, W, 3], [3, H, W] or [H, W], of whole numbers in 0..255 or floats in
            0..1.

    Raises:
        OSError: There is no such file, it is a folder, or it cannot be read.
        ValueError: It is not a picture of a known format, is cut off or damaged, or is too large.
        TypeError: The source is of another type.
    """
    if isinstance(source, np.ndarray | Tensor):
        return from_array(source)
    if isinstance(source, Image.Image):
        return from_image(source)
    return decode(*read_source(source))


def read_source(source: str | Path | bytes | BinaryIO) -> tuple[BytesIO, str]:
    """The bytes of a picture, and its name in messages.

    Raises:
        OSError, ValueError: As `unitok.picture_sources`.
        TypeError: The source is of another type.
    """
    if isinstance(source, bytes):
        check_length(len(source), PICTURE)
        return BytesIO(source), PICTURE
    if isinstance(source, str) and is_data_uri(source):
        return read_data_uri(source), DATA_URI
    if isinstance(source, str | Path):
        return read_path(source), str(source)
    if hasattr(source, "read"):
        return read_file_object(source), name_of(source)
    raise TypeError(
        "a picture is a path, a data URI, bytes, a binary file object, a PIL image, an array or a "
        f"tensor, not {type(source).__name__}"
    )


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Let every error of Pillow name the picture. Damaged files raise errors of all kinds.

    Args:
        name: The picture's name in messages.

    Raises:
        ValueError: There was an error.
    """
    try:
        yield
    except Refused:
        raise
    except UnidentifiedImageError:
        raise Refused(f"{name} is not a picture", "format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        told = f"{name} has too many pixels; at most {MAX_PIXELS:,} are read"
        raise Refused(told, "pixels") from None
    except MemoryError as error:
        told = f"{name} needs more memory than there is, or is damaged"
        raise Refused(told, "damaged") from error
    except Exception as error:
        told = str(error) or type(error).__name__
        raise Refused(f"{name} is cut off or damaged: {told}", "damaged") from error


# --- images --------------------------------------------------------------------------------------


@contextmanager
def opened_file(file: BytesIO, name: str) -> Iterator[Image.Image]:
    """A picture whose size is checked, and of which no pixel is decoded yet.

    Args:
        file: All bytes. Pillow gets no path, as it would map the file into memory, and a file that
            another program cuts off meanwhile would then end the process.
        name: Its name in messages.

    Raises:
        ValueError: It is not a picture, is cut off or damaged, or has too many pixels. Errors in
            the block that use the picture are of this kind too.
    """
    check_chunks(file, name)
    reader = HeaderReader(file, name)
    with errors_named(name), Image.open(reader, formats=FORMATS) as image:
        reader.reached_pixels()
        check_size(image, name, MAX_JPEG_PIXELS if image.format in JPEGS else MAX_PIXELS)
        check_tile(image, name)
        if image.format in JPEGS:
            check_scans(file, name)
        yield image


def decode(file: BytesIO, name: str) -> Image.Image:
    """Decode a picture's bytes to an upright RGB image.

    Args:
        file: All bytes.
        name: Its name in messages.

    Raises:
        ValueError: As `opened_file`.
    """
    with opened_file(file, name) as image:
        if image.width * image.height > MAX_PIXELS:  # a JPEG
            image.draft(None, (image.width // 2, image.height // 2))
        image.load()
        rgb, turn = to_rgb(image, name), turn_of(image)
        image.close()  # its pixels need not be in memory beside those that are turned
        return rgb if turn is None else rgb.transpose(turn)


def from_image(image: Image.Image) -> Image.Image:
    """An upright RGB copy of a PIL image.

    Raises:
        ValueError: It has no pixels or too many, or is an unread file that is damaged or of a
            format that is not read.
    """
    name = os.fsdecode(getattr(image, "filename", "") or PICTURE)
    with errors_named(name):
        refuse_unread(image, name)
        check_size(image, name, MAX_PIXELS)
        check_tile(image, name)
        image.load()
        rgb, turn = to_rgb(image, name), turn_of(image)
        return rgb if turn is None else rgb.transpose(turn)


def header_size(source: str | Path | bytes | BinaryIO) -> tuple[int, int]:
    """The pixels that decoding a picture takes, by its header, and the bytes of its file.

    Those of a compressed BMP count many times, as Pillow decodes it in Python.

    Raises:
        OSError, ValueError, TypeError: As `open_picture`, but for what only pixels show.
    """
    file, name = read_source(source)
    with opened_file(file, name) as image:
        pixels = max(image.width * image.height, tile_pixels(image))
        is_slow = any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ()))
        return pixels * (SLOW if is_slow else 1), len(file.getbuffer())


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """How an image is to be turned to be upright, as its EXIF says; None if it is.

    EXIF that cannot be read turns nothing: the pixels are whole without it. Pillow's
    `exif_transpose` also writes the EXIF anew, which fails for odd tags.
    """
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises errors of all kinds
        return None


def refuse_unread(image: Image.Image, name: str) -> None:
    """Refuse an image that PIL has opened, but not read, from a file of another format.

    Raises:
        ValueError: It is such an image.
    """
    if getattr(image, "tile", None) and image.format not in (*FORMATS, *JPEGS):
        raise Refused(
            f"{name} is an unread {image.format} file; only {', '.join(FORMATS)} are read. "
            "Call its load() first if you trust it",
            "format",
        )


def check_size(image: Image.Image, name: str, most: int) -> None:
    """Check the size of an image.

    Args:
        image: The image, which need not be decoded.
        name: Its name in messages.
        most: The most pixels.

    Raises:
        ValueError: It has no pixels, or too many.
    """
    width, height = image.size
    if min(width, height) < 1:
        raise Refused(f"{name} has no pixels: its size is {width} x {height}", "no pixels")
    if width * height > most:
        raise Refused(
            f"{name} has {width * height:,} pixels; at most {most:,} are read: shrink it first",
            "pixels",
        )


def check_tile(image: Image.Image, name: str) -> None:
    """Check the size of a TIFF's tiles. They may be larger than the picture, and are decoded whole.

    Args:
        image: The image.
        name: Its name in messages.

    Raises:
        ValueError: A tile has too many pixels.
    """
    pixels = tile_pixels(image)
    if pixels > MAX_PIXELS:
        told = f"{name} has a tile of {pixels:,} pixels; at most {MAX_PIXELS:,} are read"
        raise Refused(told, "pixels")


def tile_pixels(image: Image.Image) -> int:
    """The pixels of a tile of a TIFF; 0 if it has none, or is no TIFF."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(TILEWIDTH, 0) * tags.get(TILELENGTH, 0)


def check_scans(file: BytesIO, name: str) -> None:
    """Check the number of scans of a JPEG.

    Args:
        file: All bytes.
        name: Its name in messages.

    Raises:
        ValueError: There are too many.
    """
    data, at, scans = file.getbuffer(), 0, 0
    while (found := MARKER.search(data, at)) and found[0] != END_OF_JPEG:
        scans += found[0] == START_OF_SCAN
        if scans > MAX_SCANS:
            told = f"{name} has more than {MAX_SCANS} scans, the most that are read"
            raise Refused(told, "pixels")
        at = found.end()
        if found[0] not in WITHOUT_LENGTH:  # what follows is no picture, and may look like markers
            at += int.from_bytes(data[at : at + 2], "big")


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert an image to RGB, strip by strip.

    Args:
        image: The image, which is decoded.
        name: Its name in messages.

    Raises:
        ValueError: A value is not a number.
    """
    convert, (width, height) = conversion(image, name), image.size
    rgb, rows = Image.new("RGB", image.size), max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        rgb.paste(convert(strip), (0, top))
    return rgb


def conversion(image: Image.Image, name: str) -> Callable[[Image.Image], Image.Image]:
    """How strips of an image are converted to RGB.

    Args:
        image: The image, whose largest value decides about the scale of grey values that take more
            than 8 bits. Of 16 bits, the high byte is taken. 32 bits are taken as bytes if all are
            at most 255, else as 16 bits. Floats lie in 0..1 or, if one is above 1, in 0..255.
        name: Its name in messages.
    """
    if image.mode == "F":
        scale = 255 if largest(image) <= 1 else 1
        return lambda strip: grey(floats_of(strip, name) * scale)
    if image.mode.startswith("I"):
        shift = 8 if image.mode.startswith("I;16") or largest(image) > 255 else 0
        return lambda strip: grey(np.asarray(strip) >> shift)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return on_white
    return lambda strip: strip.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """A transparent image, laid on white."""
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def grey(values: np.ndarray) -> Image.Image:
    """An RGB image of grey values [H, W], of which those outside 0..255 are clipped."""
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")


def largest(image: Image.Image) -> float:
    """The largest value of an image of one channel."""
    return float(image.getextrema()[1])  # type: ignore[arg-type]


def floats_of(image: Image.Image, name: str) -> np.ndarray:
    """The values [H, W] of an image of floats.

    Raises:
        ValueError: One is not a number.
    """
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise Refused(f"{name} has values that are not numbers", "damaged")
    return values


# --- arrays --------------------------------------------------------------------------------------


def from_array(values: np.ndarray | Tensor) -> Image.Image:
    """Make an RGB image of an array.

    Args:
        values: [H, W, 3], [3, H, W] or [H, W], of whole numbers in 0..255, floats in 0..1, or True
            and False for white and black.

    Raises:
        ValueError: The shape or a value is not of that kind, or there are too many pixels.
        TypeError: The values are neither whole numbers nor floats.
    """
    array = array_of(values) if isinstance(values, Tensor) else values
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = np.broadcast_to(array[..., None], (*array.shape, 3))
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"a picture array is [H, W, 3] or [3, H, W], not {list(values.shape)}")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ValueError(f"a picture array holds at most {MAX_PIXELS:,} pixels")
    return Image.fromarray(np.ascontiguousarray(to_bytes(array)))


def array_of(values: Tensor) -> np.ndarray:
    """The values of a tensor.

    Raises:
        ValueError: It holds none, as on the device "meta", or not all, as a sparse one.
        TypeError: They are neither whole numbers nor floats.
    """
    if values.is_meta or values.is_nested or values.layout != torch.strided:
        raise ValueError(
            f"a picture tensor is dense and holds its values; this one is {values.layout}, on the "
            f"device {values.device}"
        )
    if values.is_complex() or values.is_quantized:
        raise TypeError(f"a picture tensor holds whole numbers or floats, not {values.dtype}")
    values = values.detach().cpu().resolve_neg()
    return (values.float() if values.is_floating_point() else values).numpy()


def to_bytes(array: np.ndarray) -> np.ndarray:
    """An array's values as bytes.

    Args:
        array: [H, W, 3]. Whole numbers are taken as they are, and floats are scaled from 0..1.

    Raises:
        ValueError: A value is out of its range.
        TypeError: The values are neither whole numbers nor floats.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a picture array holds whole numbers or floats, not {array.dtype}")
    is_whole = array.dtype.kind in "iu"
    if not (array.min() >= 0 and array.max() <= (255 if is_whole else 1)):  # NaN is out, too
        if is_whole:
            raise ValueError("a picture of whole numbers lies in 0..255")
        raise ValueError("a picture of floats lies in 0..1; give bytes for 0..255")
    return array.astype(np.uint8) if is_whole else scaled_to_bytes(array)


def scaled_to_bytes(array: np.ndarray) -> np.ndarray:
    """Bytes of floats [H, W, 3] in 0..1, strip by strip."""
    scaled = np.empty(array.shape, np.uint8)
    rows = max(1, STRIP // array.shape[1])
    for top in range(0, len(array), rows):
        scaled[top : top + rows] = (array[top : top + rows] * 255).round()
    return scaled


def digest(pixels: Tensor, encoder: str) -> str:
    """A digest of an encoded picture: SHA-256 of its pixels and the name of its encoder."""
    data = pixels.detach().cpu().contiguous().float().numpy().tobytes()
    return hashlib.sha256(encoder.encode() + data).hexdigest()
