"""What a saved picture says of itself: PNG text, EXIF in other formats, and its size."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageFile

from unitok import Picture, read_info
from unitok.picture_info import EXIF_FORMATS, LONGEST_EXIF
from unitok.pictures import FORMATS

KINDS = [format for format in EXIF_FORMATS if format in FORMATS]
INFO = {"prompt": "zwei Äpfel 🍎", "seed": "7", "model": "emoji", "sample": "0"}


def picture(**changes: str) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Picture.wrap(torch.from_numpy(pixels), INFO | changes)


def saved(image: Image.Image, format: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file


@pytest.mark.parametrize("format", ["PNG", *KINDS])
def test_a_picture_remembers_its_prompt_and_seed(format: str, tmp_path: Path):
    path = tmp_path / f"a.{format.lower()}"
    picture().save(path)
    assert read_info(path) == read_info(str(path)) == read_info(path.read_bytes()) == INFO
    with path.open("rb") as file:
        assert read_info(file) == INFO
    assert read_info(saved(picture(), format)) == INFO


def test_a_suffix_or_a_file_names_the_format(tmp_path: Path):
    for name in ("a.JPG", "b.jpeg", "c.tif"):
        picture().save(str(tmp_path / name))
        assert read_info(tmp_path / name) == INFO
    with (tmp_path / "d.webp").open("wb") as file:
        picture().save(file)
    assert read_info(tmp_path / "d.webp") == INFO


def test_the_text_of_a_png_is_what_it_was():
    with Image.open(saved(picture(), "PNG")) as image:
        assert image.info == INFO
        assert not image.getexif()


@pytest.mark.parametrize("format", KINDS)
def test_viewers_find_the_prompt_and_the_program(format: str):
    with Image.open(saved(picture(), format)) as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.Software] == "unitok"
        shown = exif[ExifTags.Base.ImageDescription].encode("latin-1").decode()
        assert shown == (json.dumps(INFO) if format == "TIFF" else INFO["prompt"])


@pytest.mark.parametrize("format", ["GIF", "BMP"])
def test_other_formats_keep_nothing(format: str):
    assert read_info(saved(picture(), format)) == {}


def test_options_of_the_caller_come_first():
    own = Image.Exif()
    own[ExifTags.Base.Software] = "mine"
    with Image.open(saved(picture(), "JPEG", exif=own, quality=30)) as image:
        assert image.getexif()[ExifTags.Base.Software] == "mine"


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "jpeg"])
def test_a_compressed_tiff_remembers_them_too(compression: str):
    assert read_info(saved(picture(), "TIFF", compression=compression)) == INFO


@pytest.mark.parametrize("letter", ["a", "ä", "🍎", "\0"])
def test_a_prompt_that_exif_cannot_hold_is_cut(letter: str):
    info = read_info(saved(picture(prompt=letter * 100_000), "JPEG"))
    prompt = info.pop("prompt")
    assert info | {"prompt": INFO["prompt"]} == INFO
    assert prompt.endswith("...") and set(prompt[:-3]) == {letter}
    assert len(prompt) > LONGEST_EXIF / 40
    assert read_info(saved(picture(prompt=letter * 100_000), "PNG"))["prompt"] == letter * 100_000


def exif_with(comment: object) -> Image.Exif:
    exif = Image.Exif()
    comments = exif.get_ifd(ExifTags.IFD.Exif)
    comments[ExifTags.Base.UserComment] = comment
    exif[ExifTags.IFD.Exif] = comments
    return exif


@pytest.mark.parametrize(
    "comment",
    [
        b"",
        b"ASCII\0\0\0",
        b"ASCII\0\0\0a photo of my cat",
        b"ASCII\0\0\0[1, 2]",
        b"ASCII\0\0\0" + b"[" * 9000,
        b"UNICODE\0a\0b\0",
        b"\xff\xfe",
    ],
)
def test_what_others_wrote_is_no_info(comment: bytes):
    photo = Image.new("RGB", (8, 8))
    assert read_info(saved(photo, "JPEG", exif=exif_with(comment))) == {}
    assert read_info(saved(photo, "JPEG")) == read_info(saved(photo, "PNG")) == {}


def test_values_that_are_no_text_are_left_out():
    comment = b"ASCII\0\0\0" + json.dumps({"prompt": "a", "seed": 7, "x": None}).encode()
    data = saved(Image.new("RGB", (8, 8)), "WEBP", exif=exif_with(comment))
    assert read_info(data) == {"prompt": "a"}


def test_reading_info_is_as_safe_as_reading_pixels(tmp_path: Path):
    (tmp_path / "a.png").write_text("Dear reader")
    with pytest.raises(ValueError, match=r"a\.png is not a picture"):
        read_info(tmp_path / "a.png")
    with pytest.raises(ValueError, match="cut off or damaged"):
        read_info(saved(picture(), "PNG").getvalue()[:60])
    with pytest.raises(FileNotFoundError):
        read_info(tmp_path / "b.png")


def test_no_pixel_is_decoded(monkeypatch):
    files = [saved(picture(), format) for format in ("PNG", *KINDS)]

    def load(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert [read_info(file) for file in files] == [INFO] * len(files)


# --- larger --------------------------------------------------------------------------------------


def test_a_scaled_picture_has_each_pixel_as_a_square():
    small = picture()
    large = small.scaled(3)
    assert isinstance(large, Picture) and large.size == (24, 18)
    assert np.array_equal(np.array(large), np.array(small).repeat(3, 0).repeat(3, 1))
    assert small.size == (8, 6) and np.array_equal(np.array(small.scaled(1)), np.array(small))
    assert read_info(saved(large, "PNG")) == INFO


@pytest.mark.parametrize("factor", [0, -1, 9])
def test_a_factor_out_of_range_is_told(factor: int):
    with pytest.raises(ValueError, match=f"factor must be from 1 to 8, not {factor}"):
        picture().scaled(factor)
    with pytest.raises(TypeError):
        picture().scaled(1.5)  # type: ignore[arg-type]
    assert picture().scaled(np.int64(2)).size == (16, 12)  # type: ignore[arg-type]
