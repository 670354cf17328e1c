"""Pictures that are small to send and large to read."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from math import isqrt
from typing import Any

from PIL import Image

from unitok.pictures import MAX_PIXELS

MEBI = 2**20
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def bombs() -> Iterator[tuple[str, bytes]]:
    """Bombs of all formats that are read, each with a name."""
    yield "png of 100,000 x 100,000", png_bomb(100_000, 100_000)
    yield "png of 9,000 x 9,000", png_bomb(9_000, 9_000)
    yield "png with long texts", png_with_texts(60)
    yield (
        "png with a long profile",
        png_with(b"iCCP", b"p\0\0" + zlib.compress(bytes(60 * MEBI), 9)),
    )
    yield "png of 50,000 chunks", png_bomb(64, 64, *[chunk(b"teSt", b"")] * 50_000)
    yield "jpeg of 100,000 comments", jpeg_with(b"\xff\xfe\x00\x03a" * 100_000)
    yield "jpeg of a million empty bytes", jpeg_with(b"\xff" * 1_000_000)
    yield "gif of 60,000 x 60,000", gif_bomb(60_000, 60_000)
    yield "gif of 5,000 frames", gif_of_frames(5_000)
    yield "tiff of 50,000 x 50,000", tiff_bomb(50_000, 50_000)
    yield "tiff of pages in a circle", tiff_in_a_circle()
    yield "webp of 16,383 x 16,383", webp_bomb()
    yield "bmp of 30,000 x 30,000", bmp_bomb(30_000, 30_000)
    yield "bmp of 1,400 x 1,400 in Python", bmp_of_empty_rows(1_400)
    yield from whole_bombs()


@cache
def whole_bombs() -> tuple[tuple[str, bytes], ...]:
    """Bombs that have all of their pixels, a little fewer than the library reads."""
    side = isqrt(MAX_PIXELS)
    grey, rgb = Image.new("L", (side, side)), Image.new("RGB", (side, side))
    bits = Image.new("1", (side, side))
    return (
        ("whole png", saved(Image.new("LA", (side, side)), "PNG", compress_level=9)),
        ("whole jpeg", saved(rgb, "JPEG", quality=1, optimize=True)),
        ("whole gif", saved(grey, "GIF")),
        ("whole webp", saved(rgb, "WEBP", lossless=True)),
        ("whole tiff", saved(bits, "TIFF", compression="group4")),
        ("whole bmp", bmp_of_empty_rows(side)),
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int, *before: bytes) -> bytes:
    """A PNG of a few bytes that says that it has so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(4 * MEBI), 9))
    parts = (chunk(b"IHDR", header), *before, pixels, chunk(b"IEND", b""))
    return PNG_SIGNATURE + b"".join(parts)


def png_with(kind: bytes, data: bytes) -> bytes:
    """A PNG of 64 x 64 pixels with a chunk."""
    return png_bomb(64, 64, chunk(kind, data))


def png_with_texts(count: int) -> bytes:
    """A PNG with so many texts of a mebibyte each, which take a kilobyte."""
    text = zlib.compress(b"a" * (MEBI - 1), 9)
    texts = (chunk(b"zTXt", f"key{i}".encode() + b"\0\0" + text) for i in range(count))
    return png_bomb(64, 64, *texts)


def jpeg_with(markers: bytes) -> bytes:
    """A JPEG with markers before its own."""
    data = saved(Image.new("RGB", (64, 64)), "JPEG")
    return data[:2] + markers + data[2:]


def gif_bomb(width: int, height: int) -> bytes:
    """A GIF of a few bytes that says that it has so many pixels."""
    data = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def gif_of_frames(count: int) -> bytes:
    """A GIF that repeats a frame."""
    one = saved(Image.new("P", (64, 64)), "GIF")
    start = one.index(b"\x2c")  # the first frame's descriptor
    return one[:start] + one[start:-1] * count + one[-1:]


def tiff_bomb(width: int, height: int) -> bytes:
    """A TIFF of a few bytes that says that it has so many pixels."""
    data = bytearray(saved(Image.new("L", (8, 8)), "TIFF"))
    for tag, value in ((256, width), (257, height)):
        place = data.index(struct.pack("<H", tag), 8)
        data[place + 2 : place + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(data)


def tiff_in_a_circle() -> bytes:
    """A TIFF whose first page is followed by itself."""
    data = bytearray(saved(Image.new("L", (8, 8)), "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    return bytes(data)


def webp_bomb() -> bytes:
    """The largest WebP, without its pixels."""
    data = bytearray(saved(Image.new("RGB", (8, 8)), "WEBP", lossless=True))
    place = data.index(b"VP8L") + 9  # behind the signature: 14 bits of width, 14 of height
    struct.pack_into("<I", data, place, 16_382 | 16_382 << 14)
    return bytes(data)


def bmp_bomb(width: int, height: int) -> bytes:
    """A BMP of a few bytes that says that it has so many pixels."""
    data = bytearray(saved(Image.new("RGB", (8, 8)), "BMP"))
    struct.pack_into("<ii", data, 18, width, height)
    return bytes(data)


def bmp_of_empty_rows(side: int) -> bytes:
    """A compressed BMP, whose decoder fills each row byte by byte."""
    rows, palette = b"\1\0\0\0" * side, bytes(1024)
    start = 54 + len(palette)
    head = struct.pack("<IHHI", start + len(rows), 0, 0, start)
    sizes = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(rows), 0, 0, 0, 0)
    return b"BM" + head + sizes + palette + rows


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """A picture as a file."""
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def url(data: bytes, kind: str = "image/png") -> str:
    """Bytes as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
