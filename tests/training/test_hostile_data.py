"""Data sets made to do harm: they name no other files, run nothing, and take no memory."""

import gzip
import io
import json
import pickle
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.training.conversations import (
    asked,
    assistant,
    noise,
    picture,
    png,
    said,
    user,
    write_lines,
    write_tar,
)
from unitok.strict_json import MAX_DEPTH
from unitok.training.data import json_lines, tars
from unitok.training.data.conversations import DataError
from unitok.training.data.sources import open_source
from unitok.training.data.tar_members import MAX_HEADER, MAX_MEMBERS, samples_of


def first_of(path: Path) -> Any:
    """The first conversation of a data set."""
    source = open_source(path)
    return source.conversation(next(source.references(None)))


def record(name: str) -> dict[str, Any]:
    return {"messages": [user(picture(name), "a"), assistant("b")]}


# --- tars ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../secret.png", "secret.png", "2.png", "/etc/passwd", "1.json"])
def test_a_record_of_a_tar_names_pictures_of_its_sample_alone(name: str, tmp_path: Path):
    noise().save(tmp_path / "secret.png")
    path = write_tar(
        tmp_path / "a.tar", {"a/1.json": record(name), "a/1.png": png(), "a/2.png": png()}
    )
    with pytest.raises(DataError, match=r"a\.tar:a/1: messages\[0\].*the sample has no picture"):
        first_of(path)


def test_an_absolute_path_is_no_picture_of_a_tar(tmp_path: Path):
    noise().save(tmp_path / "secret.png")
    path = write_tar(tmp_path / "a.tar", {"1.json": record(str(tmp_path / "secret.png"))})
    with pytest.raises(DataError, match=r"the sample has no picture .*; it has none"):
        first_of(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_not_followed(kind: bytes, tmp_path: Path):
    noise().save(tmp_path / "secret.png")
    path = write_tar(tmp_path / "a.tar", {"1.json": record("1.png")})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = kind, str(tmp_path / "secret.png")
        tar.addfile(link)
    with pytest.raises(DataError, match=r"the sample has no picture '1\.png'"):
        first_of(path)


def test_names_that_lead_out_of_a_tar_write_nothing(tmp_path: Path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = write_tar(inside / "a.tar", {"../1.json": record("1.png"), "../1.png": png(3)})
    (shown,) = [p for turn in first_of(path).turns for p, _ in turn.pictures]
    assert shown.open().tobytes() == noise(3).tobytes()
    assert sorted(tmp_path.rglob("*")) == [inside, path]


class Harm:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harm"),))


def test_pickles_in_a_tar_are_never_read(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harm = pickle.dumps(Harm())
    members = {"1.json": asked("a", "b"), "1.pyd": harm, "1.pickle": harm, "1.pth": harm}
    assert said(first_of(write_tar(tmp_path / "a.tar", members))) == ["a", "b"]
    assert not Path("harm").exists()


def test_the_headers_of_a_tar_are_bounded(tmp_path: Path):
    for name, extended in (("long", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        path = tmp_path / f"{name}.tar"
        with tarfile.open(path, "w", format=extended) as tar:
            tar.addfile(tarfile.TarInfo("a" * (MAX_HEADER + 600) + ".json"))
        with pytest.raises(DataError, match=f"a header has .* bytes; at most {MAX_HEADER:,}"):
            list(samples_of(path))


def test_the_members_of_a_sample_are_bounded(tmp_path: Path):
    members = {f"1.{i}.txt": b"x" for i in range(MAX_MEMBERS + 1)}
    path = write_tar(tmp_path / "a.tar", {"0.json": asked("a", "b"), **members})
    source = open_source(path)
    references = source.references(None)
    assert said(source.conversation(next(references))) == ["a", "b"]
    with pytest.raises(DataError, match=f"a.tar:1 has more than {MAX_MEMBERS} members"):
        source.conversation(next(references))


def test_a_member_is_not_read_if_it_is_too_large(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tars, "MAX_LINE", 1000)
    monkeypatch.setattr(tars, "MAX_BYTES", 1000)
    path = write_tar(tmp_path / "a.tar", {"1.json": asked("a", "b" * 1000)})
    with pytest.raises(DataError, match=r"1\.json has 1,\d+ bytes; at most 1,000 are read"):
        first_of(path)
    path = write_tar(tmp_path / "b.tar", {"1.json": record("1.png"), "1.png": png()})
    shown, _ = first_of(path).turns[0].pictures[0]
    with pytest.raises(ValueError, match=r"1\.png has .* bytes; at most 1,000 are read"):
        shown.open()


def test_a_tar_that_is_cut_off_or_compressed_is_told(tmp_path: Path):
    whole = write_tar(tmp_path / "a.tar", {"1.json": asked("a", "b" * 5000)}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:2000])
    with pytest.raises(DataError, match=r"cut\.tar"):
        first_of(tmp_path / "cut.tar")
    (tmp_path / "b.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match=r"b\.tar is not a tar that is read here.*compressed"):
        first_of(tmp_path / "b.tar")


def test_the_headers_of_a_large_tar_are_not_kept(tmp_path: Path):
    members: dict[str, Any] = {f"{i:05}.json": b"{}" for i in range(800)}
    path = write_tar(tmp_path / "a.tar", members)
    tracemalloc.start()
    assert sum(1 for _ in samples_of(path)) == 800
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


# --- lines ---------------------------------------------------------------------------------------


def test_a_line_that_is_too_long_is_refused_and_not_kept(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE", 1000)
    path = write_lines(tmp_path / "a.jsonl", [asked("a", "b" * 20_000_000), asked("c", "d")])
    tracemalloc.start()
    source = open_source(path)
    with pytest.raises(DataError, match=r"a\.jsonl:1: the line is longer than 1,000 bytes"):
        source.conversation(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said(source.conversation(1)) == ["c", "d"]
    assert peak < 6_000_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * (MAX_DEPTH + 1), "nested deeper"),
        ('{"messages": NaN}', "NaN is not a number"),
        ('{"messages": [], "messages": []}', "this key is given twice"),
        ('{"messages": ' + "9" * 100 + "}", "a number of 100 digits"),
    ],
)
def test_json_that_others_would_not_read_is_refused(line: str, message: str, tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(line)
    with pytest.raises(DataError, match=f"a.jsonl:1: .*{message}"):
        first_of(path)


def test_an_address_of_the_web_is_not_opened(tmp_path: Path):
    path = write_lines(tmp_path / "a.jsonl", [record("https://example.org/cat.png")])
    shown, _ = first_of(path).turns[0].pictures[0]
    with pytest.raises(ValueError, match="is a URL; download the picture"):
        shown.open()


def test_special_tokens_of_a_record_stay_text(tmp_path: Path):
    path = write_lines(tmp_path / "a.jsonl", [asked("<|Assistant|>", "<｜end▁of▁sentence｜>")])
    assert said(first_of(path)) == ["<|Assistant|>", "<｜end▁of▁sentence｜>"]
    import unitok

    with unitok.load(device="cpu") as model:
        family = model.family
        ids = family.answer_ids("<｜end▁of▁sentence｜>")
    end = family.tokenizer.id("<｜end▁of▁sentence｜>")
    assert ids.count(end) == 1 and ids[-1] == end and len(ids) > 3


def test_data_in_a_tar_is_json_by_the_same_rules(tmp_path: Path):
    file = io.BytesIO(json.dumps(asked("a", "b")).encode()[:-1])
    path = write_tar(tmp_path / "a.tar", {"1.json": file.getvalue()})
    with pytest.raises(DataError, match=r"a\.tar:1: not JSON: it breaks off"):
        first_of(path)
