"""Lines are cut into shards, whose results have the keys that they have without Ray."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.ray.batches import mixed, write_work
from unitok.backends.ray.lines import check_read, read_files, table_of
from unitok.backends.ray.output import Output
from unitok.backends.ray.replica import Runs, Work, entries_of
from unitok.backends.ray.rows import json_of_row
from unitok.backends.ray.shards import Cutter, Shard
from unitok.batch.entries import EntryReader, WrongLine, own_or_openai
from unitok.batch.form import Entry
from unitok.batch.own_lines import OwnLines
from unitok.batch.source import MAX_LINE, Line, Source
from unitok.requests import Draw


def cut(path: Path, size: int) -> list[Shard]:
    """The shards of a file, as they arrive at a replica."""
    (table,) = read_files({"path": [str(path)]})
    cutter = Cutter()
    shards = [cutter.cut(table.slice(i, size)) for i in range(0, len(table), size)]
    return [Shard.of(shard.table().to_pylist()[0]) for shard in shards]


def no_model() -> Runs:
    raise AssertionError("no model is loaded")


def work_in(folder: Path, load: Callable[[], Runs] = no_model) -> Work:
    return Work(Output.at(str(folder / "out")), "jsonl", folder, "the model", load)


def told(entry: Entry | WrongLine) -> tuple[Any, ...]:
    """What a result and an error depend on."""
    if isinstance(entry, Entry):
        return entry.line, entry.key, entry.asked, entry.request
    return entry.line, entry.asked, str(entry.error), type(entry.error)


def test_shards_have_the_entries_that_the_file_has(tmp_path):
    path = write_work(tmp_path, mixed(60))
    path.write_text(path.read_text().replace("\n", "\n\n", 7) + "no JSON\n[1]\n")
    plain = EntryReader(Source(path), "the model", own_or_openai("a model"))
    work = work_in(tmp_path)
    for size in (1, 7, 100):
        shards = cut(path, size)
        entries = [told(e) for shard in shards for e in entries_of(shard, work, "a model")]
        assert entries == [told(entry) for entry in plain_again(plain)]
    assert len({entry[1] for entry in entries if isinstance(entry[1], str)}) >= 40
    assert any("is that of line" in str(entry[2]) for entry in entries)


def plain_again(reader: EntryReader) -> EntryReader:
    """A reader that has seen no line yet."""
    return EntryReader(reader.source, reader.identity, own_or_openai("a model"))


def test_a_shard_is_named_after_its_lines_and_blank_ones_count(tmp_path):
    path = tmp_path / "work.jsonl"
    path.write_bytes(b'\n{"draw": "a"}\n\n{"draw": "b"}\n{"draw": "c"}')
    first, second = cut(path, 2)
    assert first.span.name == "lines-000000002-000000004" and first.span.count == 2
    assert second.span.name == "lines-000000005-000000005" and second.span.count == 1


def test_a_long_line_is_told_and_the_next_one_is_read(tmp_path):
    path = tmp_path / "work.jsonl"
    path.write_bytes(b'{"draw": "' + b"a" * MAX_LINE + b'"}\n{"draw": "b"}\n')
    (shard,) = cut(path, 9)
    wrong, right = entries_of(shard, work_in(tmp_path), "a model")
    assert isinstance(wrong, WrongLine) and "longer than" in str(wrong.error)
    assert isinstance(right, Entry) and right.line == 2


def test_long_lines_are_handed_on_in_small_tables(tmp_path, monkeypatch):
    path = write_work(tmp_path, [{"draw": "a" * 100}] * 5 + [{"draw": "a"}] * 600)
    monkeypatch.setattr("unitok.backends.ray.lines.MANY_BYTES", 200)
    tables = list(read_files({"path": [str(path)]}))
    assert [len(table) for table in tables[:3]] == [2, 2, 8]
    numbers = [n for table in tables for n in table.column("number").to_pylist()]
    assert numbers == list(range(1, 606))
    monkeypatch.undo()
    assert [len(table) for table in read_files({"path": [str(path)]})] == [256, 256, 93]


def test_the_digest_is_that_of_all_lines_in_their_order():
    a, b = ([Line(0, json.dumps({"draw": name}).encode())] for name in "ab")

    def digest(*tables: list[Line]) -> str:
        cutter = Cutter()
        for table in tables:
            cutter.cut(table_of(table))
        return cutter.digest

    assert digest(a, b) == digest([*a, *b])
    assert len({digest(a, b), digest(b, a), digest(a), digest(a, a)}) == 4


def test_rows_are_numbered_by_their_place():
    rows = [Line(0, json_of_row({"draw": "a", "seed": None})) for _ in range(3)]
    cutter = Cutter()
    spans = [cutter.cut(table_of(some)).span for some in (rows[:2], rows[2:])]
    assert [(span.first, span.last) for span in spans] == [(1, 2), (3, 3)]


def test_a_file_that_is_not_there_where_it_is_read_is_told(tmp_path):
    (table,) = read_files({"path": [str(tmp_path / "nowhere.jsonl")]})
    with pytest.raises(ValueError, match=r"nowhere\.jsonl"):
        check_read(table)


# --- rows ----------------------------------------------------------------------------------------


def test_a_row_is_a_line_without_what_is_null_or_no_number():
    row = {
        "draw": "ein Kätzchen",
        "seed": None,
        "guidance": float("nan"),
        "messages": [{"role": "user", "content": None, "image_url": {"url": "a.png", "x": None}}],
    }
    assert json.loads(json_of_row(row)) == {
        "draw": "ein Kätzchen",
        "messages": [{"role": "user", "image_url": {"url": "a.png"}}],
    }


def test_whole_numbers_of_pandas_are_whole_though_one_is_missing(tmp_path):
    table = pd.DataFrame({"draw": ["a", "b"], "seed": [7, None], "guidance": [1.5, 5]})
    rows = [json.loads(json_of_row(row)) for row in table.to_dict("records")]
    assert rows == [{"draw": "a", "seed": 7, "guidance": 1.5}, {"draw": "b", "guidance": 5}]
    asked = [OwnLines().request(1, row, tmp_path) for row in rows]
    assert [(one.seed, one.guidance) for one in asked if isinstance(one, Draw)] == [
        (7, 1.5),
        (None, 5),
    ]
    assert json.loads(json_of_row({"seed": 1e300}))["seed"] == 1e300


@pytest.mark.parametrize("picture", [b"PNG", {"bytes": b"PNG", "path": "a.png"}])
def test_bytes_are_a_picture(picture):
    made = json.loads(json_of_row({"caption": picture}))
    assert made == {"caption": "data:application/octet-stream;base64,UE5H"}


def test_a_picture_without_bytes_is_a_path():
    row = {"caption": {"bytes": None, "path": "a.png"}}
    assert json.loads(json_of_row(row)) == {"caption": "a.png"}


def test_what_json_has_not_is_told_by_its_column():
    with pytest.raises(ValueError, match="the column when holds a complex"):
        json_of_row({"draw": "a", "when": [1j]})
