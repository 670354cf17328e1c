"""Damaged pictures: whatever Pillow raises becomes a ValueError that names the file."""

import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from unitok.pictures import FORMATS, MAX_SCANS, open_picture

# Pillow warns of odd metadata, which says nothing about the pixels.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

MUTANTS = 120  # of each sample


def noise(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo"
    return exif


def samples() -> dict[str, bytes]:
    """Pictures of every format, and of those kinds of it that are read in other ways."""
    frames = {"save_all": True, "append_images": [noise().rotate(90)]}
    plain = {format: encoded(noise(), format) for format in FORMATS}
    return plain | {
        "PNG of a palette": encoded(noise("P"), "PNG", transparency=3),
        "PNG of 16 bits": encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"),
        "PNG, animated": encoded(noise("RGBA"), "PNG", **frames),
        "JPEG, progressive": encoded(noise("CMYK"), "JPEG", progressive=True, exif=exif()),
        "WEBP, lossless": encoded(noise("RGBA"), "WEBP", lossless=True, exif=exif()),
        "WEBP, animated": encoded(noise(), "WEBP", **frames),
        "GIF, animated": encoded(noise("P"), "GIF", **frames),
        "BMP of a palette": encoded(noise("P"), "BMP"),
        "TIFF, compressed": encoded(noise("LAB"), "TIFF", compression="tiff_lzw", exif=exif()),
        "TIFF of floats": encoded(noise("F"), "TIFF"),
    }


SAMPLES = samples()


def mutant(data: bytes, dice: random.Random) -> bytes:
    """Bytes with a few changes: some are set, cut out, doubled, or cut off."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at, kind = dice.randrange(len(changed)), dice.randrange(4)
        if kind < 2:  # most of what is checked stands at the start
            at = dice.randrange(min(len(changed), 64)) if kind else at
            changed[at] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        elif kind == 2:
            del changed[at : at + dice.randrange(1, 9)]
        else:
            changed[at:at] = changed[at : at + dice.randrange(1, 9)]
        if len(changed) < 2:
            break
    return bytes(changed[: dice.randrange(1, len(changed))] if dice.random() < 0.1 else changed)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_damaged_picture_is_read_or_is_a_value_error(kind: str):
    dice = random.Random(kind)
    refused = 0
    for _ in range(MUTANTS):
        try:
            assert open_picture(mutant(SAMPLES[kind], dice)).mode == "RGB"
        except ValueError as error:
            refused += 1
            assert str(error).startswith("the picture ")
    assert refused, "no mutant was damaged"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes, mode: str = "RGB") -> bytes:
    """A PNG with further chunks before its pixels."""
    data = encoded(noise(mode), "PNG")
    start = data.index(b"IDAT") - 4
    return data[:start] + b"".join(chunks) + data[start:]


BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21)))
DAMAGED = {
    "a short tRNS": png_with(chunk(b"tRNS", b"\0")),
    "a bomb of text": png_with(BOMB),
    "too much text": png_with(*[chunk(b"tEXt", b"a\0" + b"b" * 2**20)] * 65),
    "AVIF that ends early": SAMPLES.get("AVIF", b"")[:-100],
    "an animation that says nothing": png_with(chunk(b"acTL", b"\0")),
    "half a JPEG": SAMPLES["JPEG"][: len(SAMPLES["JPEG"]) // 2],
    "half a TIFF": SAMPLES["TIFF"][: len(SAMPLES["TIFF"]) // 2],
}


@pytest.mark.parametrize("what", [what for what, data in DAMAGED.items() if data])
def test_what_is_damaged_names_the_file(what: str, tmp_path: Path):
    path = tmp_path / "photo.png"
    path.write_bytes(DAMAGED[what])
    with pytest.raises(ValueError) as error:
        open_picture(path)
    assert str(error.value).startswith(f"{path} is cut off or damaged: ")


@pytest.mark.parametrize(("side", "told"), [(20_000, "a tile of 400,000,000 pix"), (8, "cut off")])
def test_a_tile_that_is_larger_than_its_picture_is_not_decoded(side: int, told: str):
    deflated, grey, at, length = 8, 1, 8, 200
    tags = [(256, 8), (257, 8), (258, 8), (259, deflated), (262, grey), (277, 1)]
    tags += [(322, side), (323, side), (324, at), (325, length)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = struct.pack("<I", 8 + length) + bytes(length) + struct.pack("<H", len(tags))
    data = b"II*\0" + start + entries + bytes(4)
    with pytest.raises(ValueError, match=told):
        open_picture(data)
    with Image.open(io.BytesIO(data)) as unread, pytest.raises(ValueError, match=told):
        open_picture(unread)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_that_cannot_be_read_turns_nothing(kind: str):
    image = noise()
    for exif in (b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        data = encoded(image, kind, exif=exif)
        assert open_picture(data).size == image.size
        with Image.open(io.BytesIO(data)) as unread:
            assert open_picture(unread).size == image.size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("opened", [True, False])
def test_pictures_are_turned_as_pillow_turns_them(orientation: int, opened: bool):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(noise(), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        wanted = ImageOps.exif_transpose(image)
        assert open_picture(image if opened else data).tobytes() == wanted.tobytes()


def test_odd_tags_beside_the_orientation_do_no_harm():
    """Pillow reads this EXIF, but cannot write it: where a number is due it holds text."""
    tags = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI4s", 0x0200, 2, 3, b"ab")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    data = encoded(noise(), "JPEG", exif=exif)
    assert open_picture(data).size == (20, 24)
    with Image.open(io.BytesIO(data)) as unread:
        assert open_picture(unread).size == (20, 24)


def jpeg_of_scans(count: int, between: bytes = b"", comment: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = encoded(noise("L"), "JPEG", progressive=True, comment=comment)
    last, scans = data.rindex(b"\xff\xda"), data.count(b"\xff\xda") - comment.count(b"\xff\xda")
    return data[:-2] + (between + data[last:-2]) * (count - scans) + data[-2:]


def test_the_scans_of_a_jpeg_are_bounded():
    for between in (b"", b"junk", b"\xff\xd0\xff", b"\xff\xfe\0\2"):
        assert open_picture(jpeg_of_scans(MAX_SCANS, between)).size == (24, 20)
        with pytest.raises(ValueError, match="the picture has more than 100 scans"):
            open_picture(jpeg_of_scans(MAX_SCANS + 1, between))


def test_what_only_looks_like_scans_is_no_scan():
    looks = b"\xff\xda" * MAX_SCANS
    assert open_picture(jpeg_of_scans(10, comment=looks)).size == (24, 20)
    assert open_picture(jpeg_of_scans(10) + looks).size == (24, 20), "a film behind a photo"


def test_a_format_that_is_not_allowed_is_no_picture(tmp_path: Path):
    path = tmp_path / "texture.dds"
    path.write_bytes(encoded(noise(), "DDS")[:200])
    with pytest.raises(ValueError, match=r"texture\.dds is not a picture$"):
        open_picture(path)


@pytest.mark.parametrize("raised", [MemoryError, IndexError("list index"), KeyError("x"), EOFError])
def test_every_error_of_the_decoder_names_the_file(raised, tmp_path: Path, monkeypatch):
    def broken(_: object) -> None:
        raise raised

    path = tmp_path / "photo.png"
    path.write_bytes(SAMPLES["PNG"])
    monkeypatch.setattr(ImageFile.ImageFile, "load", broken)
    with pytest.raises(ValueError, match=r"photo\.png .*damaged"):
        open_picture(path)


def test_a_warning_that_is_an_error_names_the_file(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(ValueError, match="the picture has too many pixels"):
            open_picture(SAMPLES["PNG"])


def test_an_unread_image_is_named_after_its_file(tmp_path: Path):
    path = tmp_path / "photo.png"
    path.write_bytes(SAMPLES["PNG"][:600])
    with Image.open(path) as unread, pytest.raises(ValueError, match=r"photo\.png is cut off"):
        open_picture(unread)
