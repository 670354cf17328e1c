"""Pictures in: every mode and layout becomes RGB; what is no picture is one clear error."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, features

from unitok import pictures
from unitok.pictures import FORMATS, digest, open_picture

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noise(height: int = 20, width: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_of_header(width: int, height: int) -> bytes:
    """A PNG whose header promises a size; little else is in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9))


# --- files and modes -----------------------------------------------------------------------------


def test_path_text_bytes_and_image_give_the_same_picture(tmp_path: Path):
    image = Image.fromarray(noise())
    path = tmp_path / "noise.png"
    image.save(path)
    for source in (path, str(path), path.read_bytes(), image):
        opened = open_picture(source)
        assert opened.mode == "RGB" and np.array_equal(np.array(opened), noise())


def test_cmyk_becomes_rgb():
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    opened = open_picture(encoded(cyan, "JPEG", quality=95))
    red, green, blue = np.array(opened).mean((0, 1))
    assert opened.mode == "RGB" and red < 20 and green > 235 and blue > 235


def test_sixteen_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    opened = np.array(open_picture(encoded(Image.fromarray(ramp), "PNG")))
    assert np.array_equal(opened[..., 0].ravel(), np.arange(256))
    assert (opened == opened[..., :1]).all()


def test_dark_sixteen_bit_grey_stays_dark():
    for top in (200, 300):
        dark = Image.fromarray(np.array([[0, top]], dtype=np.uint16))
        assert np.array(open_picture(encoded(dark, "PNG")))[0, :, 0].tolist() == [0, top >> 8]


def test_whole_numbers_are_bytes_unless_one_is_too_large():
    for top, shown in ((200, 200), (51200, 200)):
        image = Image.fromarray(np.array([[0, top]], dtype=np.int32))
        assert np.array(open_picture(image))[0, :, 0].tolist() == [0, shown]


def test_a_float_that_is_no_number_is_refused():
    image = Image.fromarray(np.array([[0.5, np.nan]], dtype=np.float32))
    with pytest.raises(ValueError, match="not numbers"):
        open_picture(image)


def test_float_grey_counts_as_zero_to_one_or_as_bytes():
    for top in (1.0, 255.0):
        image = Image.fromarray(np.array([[0.0, top]], dtype=np.float32))
        assert np.array(open_picture(image))[0, :, 0].tolist() == [0, 255]


def test_a_clear_palette_entry_turns_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*BLUE, *RED])
    image.putpixel((1, 2), 1)
    opened = open_picture(encoded(image, "PNG", transparency=0))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 2)) == RED


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (*RED, 0))
    image.putpixel((2, 0), (*RED, 51))
    opened = open_picture(encoded(image, "PNG"))
    assert [opened.getpixel((x, 0)) for x in range(3)] == [RED, (255, 255, 255), (255, 204, 204)]
    grey = Image.new("LA", (1, 1), (0, 0))
    assert open_picture(grey).getpixel((0, 0)) == (255, 255, 255)


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (6, 6), colour) for colour in (GREEN, RED, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_picture(data).getpixel((3, 3)) == GREEN


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1)])
def test_thin_pictures_are_read(size: tuple[int, int]):
    assert open_picture(encoded(Image.new("RGB", size, BLUE), "PNG")).size == size


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode: str):
    assert open_picture(Image.new("RGB", (4, 4), "white").convert(mode)).getpixel((0, 0)) == (
        255,
        255,
        255,
    )


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_a_file_cut_anywhere_raises_nothing_but_a_value_error(format: str):
    data = encoded(Image.fromarray(noise()), format)
    for length in range(0, len(data) // 2, 3):
        with pytest.raises(ValueError, match=r"^the picture is (cut off or damaged|not a picture)"):
            open_picture(data[:length])


def test_errors_name_the_file(tmp_path: Path):
    path = tmp_path / "notes.png"
    path.write_text("no picture at all")
    with pytest.raises(ValueError, match=r"notes\.png is not a picture"):
        open_picture(path)
    path.write_bytes(encoded(Image.fromarray(noise()), "PNG")[:600])
    with pytest.raises(ValueError, match=r"notes\.png is cut off"):
        open_picture(path)
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such file"):
        open_picture(tmp_path / "none.png")


def test_too_many_pixels_are_refused_by_the_header_alone():
    for width, height in ((50_000, 20_000), (8001, 4000)):
        with pytest.raises(ValueError, match=r"^the picture has .*32,000,000 are read"):
            open_picture(png_of_header(width, height))


def test_a_large_jpeg_is_decoded_at_half_its_size(monkeypatch: pytest.MonkeyPatch):
    image = Image.fromarray(noise(3, 5)).resize((100, 60), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "JPEG", quality=95, exif=exif)
    whole = open_picture(data)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 5999)
    halved = open_picture(data)
    assert whole.size == (60, 100) and halved.size == (30, 50)
    close = np.array(whole.reduce(2)).astype(int) - np.array(halved)
    assert abs(close).mean() < 2
    with pytest.raises(ValueError, match="at most 5,999 are read: shrink it first"):
        open_picture(encoded(image, "PNG"))
    monkeypatch.setattr(pictures, "MAX_JPEG_PIXELS", 5999)
    with pytest.raises(ValueError, match="at most 5,999 are read"):
        open_picture(data)


def test_a_picture_of_many_strips_is_that_of_one(monkeypatch: pytest.MonkeyPatch):
    rgb = Image.fromarray(noise())
    deep = np.arange(480, dtype=np.int32).reshape(20, 24)
    clear = rgb.convert("P")
    clear.info["transparency"] = 3
    sources = [rgb.convert(mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "LAB")]
    sources += [clear, Image.fromarray(deep), Image.fromarray(deep / np.float32(480))]
    sources += [Image.fromarray(deep.astype(np.uint16) * 100), noise() / 255]
    whole = [open_picture(source) for source in sources]
    for pixels in (1, 24, 100):
        monkeypatch.setattr(pictures, "STRIP", pixels)
        for source, wanted in zip(sources, whole, strict=True):
            assert open_picture(source).tobytes() == wanted.tobytes()


def test_an_image_of_the_caller_stays_as_it_is():
    image = Image.fromarray(noise())
    image.getexif()[0x0112] = 6
    opened = open_picture(image)
    assert opened.size == (20, 24) and image.size == (24, 20)
    opened.paste(RED, (0, 0, 9, 9))
    assert np.array_equal(np.array(image), noise())


def test_an_unread_photo_with_a_second_picture_behind_it_is_read(tmp_path: Path):
    image = Image.fromarray(noise())
    image.save(tmp_path / "photo.mpo", save_all=True, append_images=[image])
    with Image.open(tmp_path / "photo.mpo") as unread:
        assert unread.format == "MPO"
        assert open_picture(unread).tobytes() == open_picture(tmp_path / "photo.mpo").tobytes()


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(size: tuple[int, int]):
    for mode in ("RGB", "F", "P"):
        with pytest.raises(ValueError, match=f"no pixels: its size is {size[0]} x {size[1]}"):
            open_picture(Image.new(mode, size))


def test_too_many_pixels_are_refused_in_an_image_and_in_an_array(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    for source in (Image.new("RGB", (11, 10)), np.zeros((10, 11, 3)), torch.zeros(3, 11, 10)):
        with pytest.raises(ValueError, match="at most 100"):
            open_picture(source)
    assert open_picture(Image.new("RGB", (10, 10))).size == (10, 10)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called `gs`, first on PATH; the file at this path is there once it has run."""
    ran, program = tmp_path / "it ran", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho yes >> '{ran}'\necho 9.99\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it may be known not to be there
    return ran


def test_the_trap_works_where_pillow_guesses_the_format(tmp_path: Path, ghostscript: Path):
    path = tmp_path / "scene.png"
    path.write_bytes(EPS)
    with Image.open(path) as image, pytest.raises(OSError):
        image.load()
    assert ghostscript.exists()


@pytest.mark.parametrize("name", ["scene.png", "scene.eps", "scene"])
def test_no_file_starts_a_program_whatever_it_is_called(
    name: str, tmp_path: Path, ghostscript: Path
):
    path = tmp_path / name
    path.write_bytes(EPS)
    for source in (path, str(path), EPS):
        with pytest.raises(ValueError, match="is not a picture"):
            open_picture(source)
    with Image.open(path) as unread, pytest.raises(ValueError, match="an unread EPS file"):
        open_picture(unread)
    assert not ghostscript.exists()


def test_a_picture_whose_caller_read_it_may_have_been_of_any_format():
    file = io.BytesIO(encoded(Image.fromarray(noise()), "PPM"))
    with pytest.raises(ValueError, match="is not a picture"):
        open_picture(file.getvalue())
    with Image.open(file) as image:
        image.load()
        assert np.array_equal(np.array(open_picture(image)), noise())


def test_avif_is_read_where_pillow_can():
    assert ("AVIF" in FORMATS) == features.check("avif") and len(set(FORMATS)) >= 6


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_that_is_named_is_read(format: str):
    opened = open_picture(encoded(Image.new("RGB", (16, 16), RED), format))
    assert abs(np.array(opened).astype(int) - RED).max() < 20


@pytest.mark.parametrize("source", [None, 3, ["a.png"], {"image": "a.png"}])
def test_other_objects_are_type_errors(source: object):
    with pytest.raises(TypeError, match=f"not {type(source).__name__}"):
        open_picture(source)  # type: ignore[arg-type]


# --- arrays and tensors --------------------------------------------------------------------------


def test_every_layout_of_an_array_gives_the_same_picture():
    array = noise()
    first, unit = array.transpose(2, 0, 1), array.astype(np.float32) / 255
    sources = [array, first, unit, unit.transpose(2, 0, 1), unit.astype(np.float64)]
    sources += [torch.from_numpy(np.ascontiguousarray(s)) for s in list(sources)]
    sources += [array[::1, ::-1][:, ::-1], torch.from_numpy(unit).requires_grad_()]
    for source in sources:
        assert np.array_equal(np.array(open_picture(source)), array)


def test_bf16_tensors_are_read_to_their_precision():
    unit = torch.from_numpy(noise()).permute(2, 0, 1) / 255
    opened = np.array(open_picture(unit.bfloat16())).astype(int)
    assert abs(opened - noise()).max() <= 1


def test_a_matrix_is_grey():
    grey = noise()[..., 0]
    opened = np.array(open_picture(grey))
    assert all(np.array_equal(opened[..., c], grey) for c in range(3))
    assert np.array_equal(np.array(open_picture(torch.from_numpy(grey))), opened)


def test_a_picture_of_three_rows_is_height_by_width():
    array = noise(3, 3)
    assert np.array_equal(np.array(open_picture(array)), array)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 4), (1, 4, 4), (2, 3, 4, 4), (0, 4, 3), (4, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]):
    for source in (np.zeros(shape), torch.zeros(shape)):
        with pytest.raises(ValueError, match=r"\[H, W, 3\] or \[3, H, W\]"):
            open_picture(source)


@pytest.mark.parametrize("value", [-0.1, 1.1, 200.0, float("nan"), float("inf")])
def test_floats_outside_the_unit_range_are_refused(value: float):
    array = np.zeros((4, 4, 3), dtype=np.float32)
    array[1, 2, 0] = value
    for source in (array, torch.from_numpy(array)):
        with pytest.raises(ValueError, match=r"lies in 0\.\.1"):
            open_picture(source)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "int64", "uint64"])
def test_whole_numbers_are_bytes(dtype: str):
    array = noise() // 2
    values = array.astype(dtype)
    assert np.array_equal(np.array(open_picture(values)), array)
    assert np.array_equal(np.array(open_picture(values[..., 0]))[..., 1], array[..., 0])
    if dtype in ("uint8", "int8", "int16", "int32", "int64"):
        assert np.array_equal(np.array(open_picture(torch.from_numpy(values))), array)


def test_whole_numbers_that_are_no_bytes_are_refused():
    for value in (-1, 256):
        array = np.zeros((4, 4, 3), dtype=np.int32)
        array[1, 2, 0] = value
        for source in (array, torch.from_numpy(array)):
            with pytest.raises(ValueError, match=r"whole numbers lies in 0\.\.255"):
                open_picture(source)


def test_truth_values_are_white_and_black():
    mask = noise()[..., 0] > 127
    for source in (mask, torch.from_numpy(mask)):
        assert np.array_equal(np.array(open_picture(source))[..., 2], mask * 255)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.float8_e5m2])
def test_floats_of_every_width_are_read(dtype: torch.dtype):
    levels = torch.tensor([0.0, 0.25, 0.5, 1.0]).repeat(4, 1)
    opened = np.array(open_picture(levels.to(dtype)))
    assert opened[0, :, 0].tolist() == [0, 64, 128, 255]
    half = levels.numpy().astype(np.float16)
    assert np.array_equal(np.array(open_picture(half)), opened)


@pytest.mark.parametrize("dtype", ["complex64", "object", "U1", "datetime64[s]"])
def test_arrays_of_other_things_are_type_errors(dtype: str):
    with pytest.raises(TypeError, match="holds whole numbers or floats, not"):
        open_picture(np.zeros((4, 4, 3), dtype=dtype))


def test_tensors_without_values_to_read_are_refused():
    for tensor in (torch.zeros(4, 4, 3, device="meta"), torch.zeros(4, 4).to_sparse()):
        with pytest.raises(ValueError, match="a picture tensor is dense and holds its values"):
            open_picture(tensor)
    with pytest.raises(TypeError, match=r"not torch\.complex64"):
        open_picture(torch.zeros(4, 4, dtype=torch.complex64))
    assert open_picture(torch.zeros(4, 4, dtype=torch.complex64).conj().imag).size == (4, 4)


# --- digests -------------------------------------------------------------------------------------


def test_a_digest_tells_pixels_and_readers_apart():
    pixels = torch.rand(3, 4, 4)
    other = pixels.clone()
    other[0, 0, 0] += 1e-3
    assert digest(pixels, "a") == digest(pixels.clone(), "a")
    assert len({digest(pixels, "a"), digest(other, "a"), digest(pixels, "b")}) == 3


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    picture = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: the file's left is the picture's top
    picture.save(tmp_path / "photo.jpg", exif=exif)
    assert open_picture(tmp_path / "photo.jpg").size == (2, 4)
