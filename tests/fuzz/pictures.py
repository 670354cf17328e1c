"""Fuzzes the reading of pictures: every format and mode, as a file, as bytes and as a data URI."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.fuzz.mutations import mutated_bytes
from tests.fuzz.target import Place
from unitok.pictures import FORMATS, MAX_PIXELS, open_picture

NAME = "picture.png"  # whatever is in it, as a name proves nothing
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("1", "L", "P"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"),
    "AVIF": ("RGB", "RGBA"),
    # These must be refused, even where Pillow knows them.
    "DDS": ("RGB",),
    "EPS": ("RGB",),
    "ICO": ("RGBA",),
    "PDF": ("RGB",),
    "PPM": ("RGB",),
    "TGA": ("RGB",),
}
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "PNG": ({"optimize": True}, {"pnginfo": "text"}, {"transparency": 0}),
    "JPEG": ({"progressive": True}, {"exif": "turned"}),
    "WEBP": ({"lossless": True}, {"save_all": True}),
    "GIF": ({"save_all": True}, {"transparency": 0}),
    "TIFF": ({"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}),
}


class Pictures:
    """Mutations of small valid files of every format and mode."""

    memory = 600 * 2**20
    permits: Collection[str] = ()

    def __init__(self, place: Place) -> None:
        """Make the valid files."""
        self.path = place.folder / NAME
        self.seeds = list(valid_files())

    def make(self, random: Random) -> bytes:
        """A file that is damaged; the checksums of a PNG are right again in half of them."""
        case = mutated_bytes(random, random.choice(self.seeds), self.seeds)
        return with_checksums(case) if random.random() < 0.5 else case

    def run(self, case: bytes) -> None:
        """Read the file, or its bytes."""
        image = open_picture(self._source(case))
        assert isinstance(image, Image.Image)
        assert (image.mode, image.size) == ("RGB", np.asarray(image).shape[1::-1])
        assert 0 < image.width * image.height <= MAX_PIXELS

    def _source(self, case: bytes) -> Any:
        kind = zlib.crc32(case) % 4
        if kind == 0:
            return case
        if kind == 1:
            return f"data:image/png;base64,{base64.b64encode(case).decode()}"
        self.path.write_bytes(case)
        return self.path

    def names(self, case: bytes) -> Sequence[str]:
        """The file, or what stands for it."""
        return NAME, "the picture", "the data URI"


def valid_files() -> Iterator[bytes]:
    """Small pictures of all formats that this Pillow writes."""
    for format, modes in MODES.items():
        if format == "AVIF" and format not in FORMATS:
            continue
        for mode in modes:
            for parameters in ({}, *VARIANTS.get(format, ())):
                if "transparency" not in parameters or mode in ("1", "L", "P"):
                    yield valid_file(format, mode, parameters)


def valid_file(format: str, mode: str, parameters: dict[str, Any]) -> bytes:
    """A small picture in a format and a mode."""
    image, given = picture(mode), dict(parameters)
    if given.get("pnginfo"):
        given["pnginfo"] = PngInfo()
        given["pnginfo"].add_itxt("prompt", "two apples", zip=True)
    if given.get("exif"):
        given["exif"] = Image.Exif()
        given["exif"][0x0112] = 6  # turned by a quarter
    if given.get("save_all"):
        given["append_images"] = [picture(mode)] * 2
    file = BytesIO()
    image.save(file, format, **given)
    return file.getvalue()


def picture(mode: str) -> Image.Image:
    """A small picture with a pattern."""
    values = np.arange(13 * 17, dtype=np.uint8).reshape(13, 17)
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16) * 200)
    return Image.fromarray(values).convert("RGB").convert(mode)


def with_checksums(data: bytes) -> bytes:
    """A PNG with the right checksum after each chunk, so that damage gets further."""
    signature, place = data[:8], 8
    if signature != b"\x89PNG\r\n\x1a\n":
        return data
    parts = [signature]
    while place + 12 <= len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        chunk = data[place + 4 : place + 8 + length]
        parts += [data[place : place + 4], chunk, struct.pack(">I", zlib.crc32(chunk))]
        place += 12 + length
    return b"".join(parts)
