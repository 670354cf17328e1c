"""Where pictures come from: files, pipes, open files, bytes and data URIs; all are bounded."""

import base64
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unitok import picture_sources
from unitok.picture_sources import read_path, read_stdin
from unitok.pictures import open_picture


def png() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PNG = png()
PIXELS = open_picture(PNG).tobytes()


def data_uri(data: bytes, start: str = "data:image/png;base64,") -> str:
    return start + base64.b64encode(data).decode()


# --- files ---------------------------------------------------------------------------------------


def test_a_folder_is_no_picture(tmp_path: Path):
    for source in (tmp_path, str(tmp_path)):
        with pytest.raises(IsADirectoryError) as error:
            open_picture(source)
        assert str(error.value) == f"{tmp_path} is a folder; give the files in it"


@pytest.mark.parametrize("name", ["none.png", "a\0b.png", "\ud800.png", "x" * 5000])
def test_what_is_not_there_is_not_found(name: str, tmp_path: Path):
    with pytest.raises(FileNotFoundError) as error:
        open_picture(tmp_path / name)
    assert len(str(error.value)) < 300


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError, match=r"a\.png"):
        open_picture(tmp_path / "a.png")


def test_an_error_while_a_file_is_read_names_it():
    with pytest.raises(OSError, match="/proc/self/mem"):
        read_path("/proc/self/mem")


def test_a_pipe_is_read(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(PNG,))
    writer.start()
    assert open_picture(pipe).tobytes() == PIXELS
    writer.join()


def test_dev_stdin_is_read():
    code = (
        "from unitok.picture_sources import read_path as r; print(len(r('/dev/stdin').getvalue()))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], input=PNG, env=env, capture_output=True)
    assert int(done.stdout) == len(PNG)


def test_a_terminal_is_told():
    ours, theirs = os.openpty()
    try:
        with pytest.raises(ValueError, match=r"is a terminal; pipe a picture into it$"):
            open_picture(os.ttyname(theirs))
    finally:
        os.close(ours)
        os.close(theirs)


def test_an_empty_file_is_told(tmp_path: Path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"a\.png is empty"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://a.org/b.png", "https://a.org/b.png"),
        ("HTTP://a.org", "HTTP://a.org"),
        (Path("https://a.org/b.png"), "https://a.org/b.png"),
    ],
)
def test_a_url_is_told_with_what_to_do(source: str | Path, shown: str):
    with pytest.raises(ValueError) as error:
        open_picture(source)
    assert str(error.value) == f"{shown} is a URL; download the picture, and give its file"


# --- bounds --------------------------------------------------------------------------------------


def test_a_source_without_an_end_is_left_at_the_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture_sources, "MAX_BYTES", 3 * 2**20)
    with pytest.raises(ValueError, match="/dev/zero is larger than 3,145,728 bytes"):
        open_picture("/dev/zero")


def test_every_source_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    sources = [path, PNG, io.BytesIO(PNG), data_uri(PNG)]
    for spare, refused in ((0, False), (-1, True)):
        monkeypatch.setattr(picture_sources, "MAX_BYTES", len(PNG) + spare)
        for source in sources:
            if refused:
                with pytest.raises(ValueError, match="is larger than"):
                    open_picture(source)
            else:
                assert open_picture(source).tobytes() == PIXELS


# --- open files ----------------------------------------------------------------------------------


class Trickle:
    """A stream with no methods but `read`, which gives a few bytes at a time."""

    def __init__(self) -> None:
        self.rest = PNG

    def read(self, size: int) -> bytes:
        first, self.rest = self.rest[:7], self.rest[7:]
        return first


def test_open_files_are_read_from_their_start(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(PNG)
    at_end = io.BytesIO()
    at_end.write(PNG)
    with (tmp_path / "a.png").open("rb") as file, (tmp_path / "a.png").open("rb", 0) as raw:
        for source in (at_end, file, file, raw, Trickle()):
            assert open_picture(source).tobytes() == PIXELS  # type: ignore[arg-type]


def test_open_files_that_cannot_be_read_are_told(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    with path.open() as text, pytest.raises(TypeError, match=r"a\.png is open as text; .* 'rb'"):
        open_picture(text)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="open as text"):
        open_picture(io.StringIO("a"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a\.png is closed"):
        open_picture(text.buffer)  # type: ignore[arg-type]
    with (
        path.open("ab") as file,
        pytest.raises(ValueError, match=r"a\.png is not open for reading"),
    ):
        open_picture(file)
    with pytest.raises(ValueError, match="the picture is empty"):
        open_picture(io.BytesIO())
    with pytest.raises(ValueError, match="the picture is not a picture"):
        open_picture(io.BytesIO(b"Dear reader"))


# --- data URIs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", ["data:image/png;base64,", "data:;base64,", "DATA:IMAGE/JPEG;x=1;BASE64,"]
)
def test_a_data_uri_holds_a_picture(start: str):
    assert open_picture(data_uri(PNG, start)).tobytes() == PIXELS


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("data:", "the data URI must begin like data:image/png;base64,"),
        ("data:image/png,abcd", "the data URI must begin like"),
        ("data:" + "x" * 10_000, "the data URI must begin like"),
        ("data:image/png;base64", "the data URI is not a picture"),
        ("data:image/png;base64,", "the data URI is not a picture"),
        ("data:image/png;base64,abc", "the data URI is not in base64: Incorrect padding"),
        ("data:image/png;base64,ab cd", "the data URI is not in base64"),
        ("data:image/png;base64,äöüß", "the data URI is not in base64"),
        ("data:text/plain;base64,aGVsbG8=", "the data URI is not a picture"),
        (data_uri(PNG[:60]), "the data URI is cut off or damaged"),
    ],
)
def test_a_wrong_data_uri_is_told_and_not_quoted(uri: str, told: str):
    with pytest.raises(ValueError) as error:
        open_picture(uri)
    assert str(error.value).startswith(told) and len(str(error.value)) < 200


# --- the program's own stdin ---------------------------------------------------------------------


def test_stdin_is_read_as_bytes_under_its_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PNG)))
    read = read_stdin()
    assert read.getvalue() == PNG and read.name == "stdin"


def test_a_program_without_stdin_or_with_a_terminal_is_told_to_pipe(
    monkeypatch: pytest.MonkeyPatch,
):
    terminal = io.TextIOWrapper(io.BytesIO(PNG))
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    for stdin in (None, terminal):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(ValueError, match="pipe a picture into it"):
            read_stdin()
