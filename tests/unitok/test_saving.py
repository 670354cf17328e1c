"""Pictures are saved whole or not at all."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unitok.saving import picture_format, save_whole

RED, BLUE = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
RED_AND_BLUE = ((255, 0, 0), (0, 0, 255))


class Broken(Image.Image):
    """A picture whose writing breaks off."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        fp.write(b"half")
        raise KeyboardInterrupt


def colour_of(path: Path) -> object:
    with Image.open(path) as picture:
        return picture.convert("RGB").getpixel((0, 0))


def test_the_suffix_names_the_format(tmp_path):
    for name, kind in (("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.tiff", "TIFF"), ("d.webp", "WEBP")):
        save_whole(RED, tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind == picture_format(tmp_path / name)
    assert picture_format(tmp_path / "e.xyz") is None


@pytest.mark.parametrize("new", [True, False])
def test_what_breaks_off_leaves_nothing(new, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        save_whole(Broken(), tmp_path / "a.png", new)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "a.png"
    save_whole(RED, path)
    with pytest.raises(KeyboardInterrupt):
        save_whole(Broken(), path)
    assert colour_of(path) == (255, 0, 0)
    save_whole(BLUE, path)
    assert colour_of(path) == (0, 0, 255)
    assert list(tmp_path.iterdir()) == [path]


def test_two_threads_may_save_in_one_folder(tmp_path):
    class Slow(Image.Image):
        """A picture that is being written while another thread saves one beside it."""

        def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(save_whole, BLUE, tmp_path / "b.png").result()
            RED.save(fp, format)

    save_whole(Slow(), tmp_path / "a.png")
    assert (colour_of(tmp_path / "a.png"), colour_of(tmp_path / "b.png")) == RED_AND_BLUE
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    link, path = tmp_path / "link.png", tmp_path / "there/a.png"
    link.symlink_to(path)
    save_whole(RED, link)
    assert link.is_symlink() and colour_of(path) == (255, 0, 0)


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_replaces_another(links, tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError("no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "a.png"
    save_whole(RED, path, new=True)
    with pytest.raises(FileExistsError):
        save_whole(BLUE, path, new=True)
    assert colour_of(path) == (255, 0, 0)
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_may_be_read_by_whom_other_files_may(tmp_path):
    (tmp_path / "plain").touch()
    save_whole(RED, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: .*a\.png'$") as error:
        save_whole(RED, tmp_path / "a.png")
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
