"""What a saved picture says of itself: as text in a PNG, as EXIF in other formats.

Of EXIF, UserComment holds all keys as JSON, which `read_info` reads. ImageDescription holds the
prompt, which many viewers show, and Software names unitok. In a TIFF, ImageDescription holds the
JSON, as a compressed one has no room for UserComment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from unitok.pictures import opened_file, read_source

EXIF_FORMATS = ("JPEG", "WEBP", "TIFF", "AVIF")
LONGEST_EXIF = 60_000  # bytes; a JPEG's holds 65,533
SHORTEST_CUT = 16  # characters; if this does not do, there are too many keys, and PIL says so
PROGRAM = "unitok"  # which model drew the picture stands in the info
ASCII = b"ASCII\0\0\0"  # the start of a comment in EXIF, which says how it is encoded


def read_info(source: str | Path | bytes | BinaryIO) -> dict[str, str]:
    """Read what a saved picture says of itself, such as its prompt, seed and model.

    No pixel is decoded.

    Args:
        source: A path, a data URI, bytes or a binary file object.

    Returns:
        The text before the pixels of a PNG, whoever wrote it. Of another format, what unitok wrote.
        Nothing if there is nothing.

    Raises:
        OSError: There is no such file, it is a folder, or it cannot be read.
        ValueError: It is not a picture of a known format, is cut off or damaged, or is too large.
        TypeError: The source is of another type.
    """
    file, name = read_source(source)
    with opened_file(file, name) as image:
        if isinstance(image, PngImageFile):
            # Its `text` would decode all frames of an animation, to find what stands behind them.
            return {
                str(key): str(text) for key, text in image.info.items() if isinstance(text, str)
            }
        return _info_of_exif(image.getexif())


def save_options(info: Mapping[Any, Any], kind: str | None) -> dict[str, Any]:
    """The options of `PIL.Image.Image.save` that write a picture's info.

    Args:
        info: The info. Keys and values are written as text.
        kind: The picture format, as PIL names it. GIF and BMP keep no info.
    """
    texts = {str(key): str(value) for key, value in info.items()}
    if kind == "PNG":
        return {"pnginfo": _png_text(texts)}
    if kind in EXIF_FORMATS and texts:
        return {"exif": _exif_within_limit(texts, _tiff_exif if kind == "TIFF" else _exif)}
    return {}


def format_of(fp: object, format: str | None) -> str | None:
    """The format in which PIL saves a picture, as PIL names it.

    Args:
        fp: A path or an open file, which may have a name.
        format: The format, if it was given.
    """
    if format:
        return format.upper()
    name = fp if isinstance(fp, str | bytes | os.PathLike) else getattr(fp, "name", None)
    if not isinstance(name, str | bytes | os.PathLike):
        return None
    return Image.registered_extensions().get(Path(os.fsdecode(name)).suffix.lower())


def _png_text(texts: Mapping[str, str]) -> PngInfo:
    png = PngInfo()
    for key, text in texts.items():
        png.add_itxt(key, text)
    return png


def _exif_within_limit(
    texts: Mapping[str, str], make: Callable[[Mapping[str, str]], Image.Exif]
) -> Image.Exif:
    """EXIF of texts. Long ones are cut if there would be more of it than a JPEG can hold."""
    exif, most = make(texts), LONGEST_EXIF
    while len(exif.tobytes()) > LONGEST_EXIF and most > SHORTEST_CUT:
        most //= 2
        exif = make({key: _cut(text, most) for key, text in texts.items()})
    return exif


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "..."


def _exif(texts: Mapping[str, str]) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = PROGRAM
    if prompt := texts.get("prompt"):
        exif[ExifTags.Base.ImageDescription] = prompt.encode(errors="replace")  # or PIL takes ASCII
    comments = exif.get_ifd(ExifTags.IFD.Exif)
    comments[ExifTags.Base.UserComment] = ASCII + json.dumps(texts).encode()
    return exif


def _tiff_exif(texts: Mapping[str, str]) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = PROGRAM
    exif[ExifTags.Base.ImageDescription] = json.dumps(texts)
    return exif


def _info_of_exif(exif: Image.Exif) -> dict[str, str]:
    """The info in EXIF; nothing if another program wrote it."""
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes) and comment.startswith(ASCII):
        return _info_of_json(comment[len(ASCII) :])
    return _info_of_json(exif.get(ExifTags.Base.ImageDescription))


def _info_of_json(text: object) -> dict[str, str]:
    """The texts of a JSON object; nothing if it is anything else."""
    try:
        info = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(info, dict):
        return {}
    return {key: value for key, value in info.items() if isinstance(value, str)}
