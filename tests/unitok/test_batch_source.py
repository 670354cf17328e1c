"""The lines of a batch come from files and streams."""

import json
import os
import threading
from pathlib import Path

import pytest

from tests.unitok.batches import WORK, by_line, results, runner, work_in, write
from unitok.batch import source as source_module
from unitok.batch.source import Source


@pytest.fixture
def source(tmp_path) -> Path:
    return work_in(tmp_path / "input")


@pytest.fixture
def batch(short_folder, tmp_path):
    return runner(short_folder, tmp_path)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_lines_are_read_from_stdin(name, batch, source, tmp_path, monkeypatch):
    monkeypatch.chdir(source.parent)  # the path of the picture is relative to it
    half = "".join(json.dumps(line) + "\n" for line in WORK[:3])
    done = batch(name, input=half)
    assert done.exit_code == 0 and "3 new, 0 kept, 0 failed" in done.stdout, done.output
    assert "3 new, 3 kept, 0 failed" in batch(name, input=source.read_text()).stdout
    assert [r["request"] for r in by_line(tmp_path / "out")] == WORK


def test_a_file_keeps_the_results_of_the_same_lines_from_stdin(batch, source, monkeypatch):
    monkeypatch.chdir(source.parent)
    batch("-", input=source.read_text())
    assert "0 new, 6 kept, 0 failed" in batch(source).stdout


def test_lines_are_read_from_a_named_pipe(batch, source, tmp_path, monkeypatch):
    monkeypatch.chdir(source.parent)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(source.read_text()))
    writer.start()
    done = batch(pipe)
    writer.join()
    assert done.exit_code == 0 and "6 new, 0 kept, 0 failed" in done.stdout, done.output


def test_a_stream_is_not_counted_and_a_file_is(source, tmp_path):
    assert Source(source).count() == 6
    assert Source(Path("-")).count() is None
    os.mkfifo(tmp_path / "pipe")
    assert Source(tmp_path / "pipe").count() is None


def test_a_picture_is_no_stream(source, batch, tmp_path):
    """It would be read for the key, and then be empty; stdin may hold the lines themselves."""
    os.mkfifo(source.parent / "pipe.png")
    write(source, [{"caption": "pipe.png"}, WORK[2]])
    done = batch(source)
    assert done.exit_code == 1
    assert "pipe.png is a stream or a device; give the file of a picture" in done.stderr
    assert "1 new, 0 kept, 1 failed" in done.stdout


def test_a_folder_is_told_as_one(batch, tmp_path):
    done = batch(tmp_path)
    assert done.exit_code == 2
    assert f"{tmp_path} is a folder; give a file of JSON lines" in done.stderr


def test_a_gigantic_line_is_not_kept_in_memory_and_the_others_go_on(
    batch, source, tmp_path, monkeypatch
):
    write(source, [WORK[1], {"draw": "x" * 1000}, WORK[2], {"draw": "y" * 1000}])
    source.write_bytes(source.read_bytes().removesuffix(b"\n"))
    monkeypatch.setattr(source_module, "MAX_LINE", 500)
    longest: list[int] = []
    parse = source_module.Line.__init__

    def noting(self, number, data, too_long=False):
        longest.append(len(data))
        parse(self, number, data, too_long)

    monkeypatch.setattr(source_module.Line, "__init__", noting)
    done = batch(source)
    assert done.exit_code == 1
    assert [line[:32] for line in done.stderr.splitlines()] == [
        f"unitok: line {number}: the line is long" for number in (2, 4)
    ]
    assert max(longest) <= 500
    assert sorted(r["line"] for r in results(tmp_path / "out")) == [1, 3]
