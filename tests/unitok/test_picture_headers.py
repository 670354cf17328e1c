"""Pictures of many parts are refused before they cost time or memory; usual ones are not."""

import zlib
from io import BytesIO

import pytest
from PIL import Image, PngImagePlugin

from tests.server.hostile_pictures import chunk, jpeg_with, png_bomb, png_with_texts
from unitok.picture_sources import Refused
from unitok.pictures import open_picture


@pytest.mark.parametrize(
    "data",
    [
        png_with_texts(17),
        png_bomb(64, 64, *[chunk(b"teSt", b"")] * 3000),
        jpeg_with(b"\xff\xfe\x00\x03a" * 5000),
        jpeg_with(b"\xff" * 10_000),
    ],
)
def test_a_picture_of_many_parts_is_refused(data: bytes):
    with pytest.raises(Refused, match="too many parts") as refused:
        open_picture(data)
    assert refused.value.reason == "damaged"


def test_a_png_of_many_chunks_of_pixels_is_refused():
    raw = zlib.compress(bytes(64 * 257), 0)
    pieces = [chunk(b"IDAT", raw[i : i + 4]) for i in range(0, len(raw), 4)]
    whole = png_bomb(64, 64)
    data = whole[: whole.index(b"IDAT") - 4] + b"".join(pieces) + chunk(b"IEND", b"")
    with pytest.raises(Refused, match="too many parts"):
        open_picture(data)


def test_a_picture_with_some_texts_and_markers_is_read():
    info = PngImagePlugin.PngInfo()
    for number in range(40):
        info.add_text(f"key{number}", "a text")
    for number in range(16):
        info.add_text(f"long{number}", "a text " * 1000, zip=True)
    file = BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, "PNG", pnginfo=info)
    assert open_picture(file.getvalue()).size == (64, 48)
    assert open_picture(jpeg_with(b"\xff\xfe\x00\x03a" * 500)).size == (64, 64)
