"""Files of results are there completely or not at all, on a disk and in a store."""

import os
import subprocess
import sys

import pytest
from PIL import Image
from pyarrow import fs

from tests.ray.batches import environment, write_work
from unitok.backends.ray.output import Output
from unitok.backends.ray.parts import PARTS, ShardResults
from unitok.backends.ray.run import Identity, check_empty_or_run
from unitok.backends.ray.shards import Span
from unitok.batch.form import Entry
from unitok.batch.own_lines import OwnLines
from unitok.requests import Draw

SPAN = Span(1, 3, 3)


@pytest.fixture(params=["disk", "store"])
def output(request, tmp_path) -> Output:
    """A folder of this disk, and one of a store as pyarrow's own tests have it."""
    if request.param == "disk":
        return Output.at(str(tmp_path / "out"))
    files = fs._MockFileSystem()  # type: ignore[attr-defined]
    for folder in ("results", "errors", "pictures"):  # which real stores do not have
        files.create_dir(f"out/{folder}")
    return Output(files, "out", "store://out")


# --- files ---------------------------------------------------------------------------------------


def test_files_are_written_replaced_listed_and_removed(output):
    for data in (b"one", b"two"):
        output.write("results/a", data)
        assert output.has("results/a") and output.read("results/a") == data
    assert output.names("results") == ["a"] and output.names("elsewhere") == []
    for _ in range(2):
        output.remove("results/a")
        assert not output.has("results/a")


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    output = Output.at(str(tmp_path))
    output.write("results/a", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        output.write("results/a", b"new")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a"]
    assert output.read("results/a") == b"old"


def test_what_a_killed_replica_left_is_swept_away(tmp_path):
    output = Output.at(str(tmp_path))
    output.write("results/a", b"whole")
    (tmp_path / "results/.0a1b.part").write_bytes(b"ha")
    assert output.names("results") == ["a"]
    output.sweep("results")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a"]


def test_a_second_run_is_refused_on_a_disk(tmp_path):
    output = Output.at(str(tmp_path))
    told = pytest.raises(ValueError, match="another run is writing to")
    with output.locked(), told, output.locked():
        raise AssertionError("both have the lock")
    with output.locked():
        pass


@pytest.mark.parametrize(
    ("place", "told"), [("nope://a/b", "nope://a/b: "), ("mock://a", "folders, or to S3, Google")]
)
def test_places_that_are_no_folders_are_told(place, told):
    with pytest.raises(ValueError, match=told):
        Output.at(place)


def test_a_file_in_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(NotADirectoryError, match="out is not a folder"):
        Output.at(str(tmp_path / "out"))


# --- runs ----------------------------------------------------------------------------------------


def test_a_folder_belongs_to_one_run(output):
    mine = Identity("model", "lines", 64, "jsonl")
    check_empty_or_run(Output(output.files, f"{output.root}/new", "new"))
    mine.check(output)
    mine.check(output)
    with pytest.raises(ValueError, match="of another run: other lines and lines per part; name a"):
        Identity("model", "others", 32, "jsonl").check(output)
    output.write("run.json", b"[")
    with pytest.raises(ValueError, match=r"run\.json is damaged; name a new folder"):
        mine.check(output)


def test_a_folder_of_something_else_is_told(tmp_path):
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"is not empty and holds no results .* results\.jsonl"):
        check_empty_or_run(Output.at(str(tmp_path)))


# --- parts ---------------------------------------------------------------------------------------


def record(line: int) -> dict[str, object]:
    return {"line": line, "key": f"key {line}", "text": "a cat"}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_what_was_committed_is_read_again(part, output):
    results = ShardResults(part, output, SPAN)
    entry = Entry(2, "2" * 64, {"draw": "a"}, Draw("a"), OwnLines())
    names = results.pictures.save(entry, [Image.new("RGB", (4, 4), c) for c in ("red", "blue")])
    results.append({"line": 2, "key": entry.key, "pictures": names})
    results.append(record(1))
    results.report({"line": 3, "error": "wrong"})
    assert output.names("results") == []
    results.commit()
    again = ShardResults(part, output, SPAN)
    assert again.done == {"key 1", entry.key}
    assert (
        output.read("errors/lines-000000001-000000003.jsonl") == b'{"line": 3, "error": "wrong"}\n'
    )
    again.append(record(3))
    again.commit()
    assert output.names("errors") == []
    last = part.decode(output.read(f"results/lines-000000001-000000003{part.suffix}"))
    assert [done.line for done in last] == [1, 2, 3]
    assert (len(last[1].pictures), len(output.names("pictures"))) in ((2, 0), (0, 2))


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_damaged_part_is_told(part, output):
    output.write(f"results/lines-000000001-000000003{part.suffix}", b'{"line": 1')
    with pytest.raises(ValueError, match="is damaged; remove it, and its lines run again"):
        ShardResults(part, output, SPAN)


def test_errors_are_there_before_the_results_and_go_after_them(output, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(Output, "write", lambda _, name, __: order.append(name))
    monkeypatch.setattr(Output, "remove", lambda _, name: order.append(f"remove {name}"))
    failed, right = (ShardResults(PARTS["jsonl"], output, SPAN) for _ in range(2))
    failed.report({"line": 1})
    failed.commit()
    right.append(record(1))
    right.commit()
    name = "lines-000000001-000000003.jsonl"
    assert order == [
        f"errors/{name}",
        f"results/{name}",
        f"results/{name}",
        f"remove errors/{name}",
    ]


# --- without Ray ---------------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None
from unitok.cli import main
main()
"""


@pytest.mark.parametrize("library", ["ray", "pyarrow"])  # Ray alone does not bring the other
def test_without_a_library_one_line_says_what_to_install(library, tmp_path):
    work = write_work(tmp_path / "in", [{"draw": "a cat"}])
    words = ["batch", str(work), "-o", "out", "--ray", "local"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, library, *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    extra = "pip install 'unitok-engine[ray]'"
    told = f"unitok: this needs {library}, which is not installed: {extra}\n"
    assert (done.returncode, done.stderr) == (2, told)
    assert not (tmp_path / "out").exists()
