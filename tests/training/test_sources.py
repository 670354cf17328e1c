"""Data sets on disk: JSON lines, tars and tables give their conversations, one by one."""

import json
from pathlib import Path
from typing import Any

import datasets
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
from unitok.training.data.caption_pairs import CaptionPairs
from unitok.training.data.conversations import Conversation, DataError
from unitok.training.data.json_lines import JsonLines
from unitok.training.data.order import permutation, shuffled_in_buffer
from unitok.training.data.sources import Source, open_source
from unitok.training.data.tars import Tars


def all_of(source: Source, seed: int | None = None) -> list[Conversation]:
    return [source.conversation(reference) for reference in source.references(seed)]


def pictures(conversation: Conversation) -> list[bytes]:
    return [p.open().tobytes() for turn in conversation.turns for p, _ in turn.pictures]


# --- orders --------------------------------------------------------------------------------------


def test_a_permutation_is_the_same_for_its_seed_and_another_for_another():
    orders = [list(permutation(50, seed)) for seed in (None, 1, 1, 2)]
    assert orders[0] == list(range(50))
    assert orders[1] == orders[2] != orders[3]
    assert sorted(orders[1]) == sorted(orders[3]) == orders[0]


def test_a_buffer_shuffles_and_loses_nothing():
    one, same, other = (list(shuffled_in_buffer(range(50), 8, seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert sorted(one) == sorted(other) == list(range(50))
    assert all(position > item - 8 for position, item in enumerate(one))


# --- JSON lines ----------------------------------------------------------------------------------


def test_json_lines_are_read_by_their_places(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    lines = [json.dumps(asked(f"é{i}", "b"), ensure_ascii=False) for i in range(3)]
    path.write_bytes(b"\xef\xbb\xbf" + "\n\n".join(lines).encode() + b"\n \n")
    source = open_source(path)
    assert isinstance(source, JsonLines) and source.size == 3
    assert [said(c)[0] for c in all_of(source)] == ["é0", "é1", "é2"]
    assert [c.name for c in all_of(source)] == [f"{path}:{n}" for n in (1, 3, 5)]
    assert said(source.conversation(2)) == ["é2", "b"]


def test_a_wrong_line_is_named_and_the_others_go_on(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"messages": [\n{"messages": 1}\n' + json.dumps(asked("a", "b")))
    source = open_source(path)
    for index, message in enumerate(("not JSON: it breaks off", "messages must be a list")):
        with pytest.raises(DataError, match=f"train.jsonl:{index + 1}: {message}"):
            source.conversation(index)
    assert said(source.conversation(2)) == ["a", "b"]


def test_a_file_that_changes_is_noticed(tmp_path: Path):
    path = write_lines(tmp_path / "train.jsonl", [asked("a", "b")])
    source = open_source(path)
    write_lines(path, [asked("a", "b")] * 2)
    with pytest.raises(DataError, match="changed while it was in use"):
        source.conversation(0)


def test_an_empty_file_and_what_is_not_there_are_errors(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(ValueError, match=r"empty\.jsonl is empty"):
        open_source(tmp_path / "empty.jsonl")
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file"):
        open_source(tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError, match="no file has such a name"):
        open_source(tmp_path / "train-*.tar")
    with pytest.raises(ValueError, match="unitok data make"):
        open_source(tmp_path)


# --- tars ----------------------------------------------------------------------------------------


def test_records_of_a_tar_name_the_pictures_of_their_sample(tmp_path: Path):
    record = {"messages": [user(picture("7.png"), "what?"), assistant(picture("7.out.png"))]}
    path = write_tar(
        tmp_path / "train.tar",
        {"a/7.json": record, "a/7.png": png(1), "a/7.out.png": png(2), "a/8.json": asked("b", "c")},
    )
    first, second = all_of(open_source(path))
    assert (first.name, second.name) == (f"{path}:a/7", f"{path}:a/8")
    assert pictures(first) == [noise(1).tobytes(), noise(2).tobytes()]
    assert said(second) == ["b", "c"]


def test_a_caption_and_its_picture_are_read_and_painted(tmp_path: Path):
    members = {"1.png": png(1), "1.txt": b"a cat\n", "1.json": {"width": 32}, "1.cls": b"3"}
    path = write_tar(tmp_path / "train.tar", members)
    read, paint = all_of(open_source(path, CaptionPairs(question="what?")))
    assert [turn.role for turn in read.turns] == ["user", "assistant"]
    assert said(read) == ["what?", "a cat"] and said(paint) == ["a cat"]
    assert pictures(read) == pictures(paint) == [noise(1).tobytes()]
    assert paint.turns[1].learned == (True,)
    (alone,) = all_of(open_source(path, CaptionPairs(("read",))))
    assert said(alone)[1:] == ["a cat"]


def test_several_tars_are_one_data_set_whose_shuffle_mixes_them(tmp_path: Path):
    for shard in range(3):
        records = {f"{shard}{i}.json": asked(f"{shard}{i}", "a") for i in range(10)}
        write_tar(tmp_path / f"train-{shard}.tar", records)
    names = [f"{shard}{i}" for shard in range(3) for i in range(10)]
    source = open_source(tmp_path)
    assert isinstance(source, Tars) and source.size is None
    assert [said(c)[0] for c in all_of(source)] == names
    assert [said(c)[0] for c in all_of(open_source(tmp_path / "train-[01].tar"))] == names[:20]
    one, same, other = ([said(c)[0] for c in all_of(source, seed)] for seed in (1, 1, 2))
    assert one == same != other and sorted(one) == sorted(other) == names
    small = Tars(source.paths, CaptionPairs(), buffer=2)
    order = [said(c)[0] for c in all_of(small, 1)]
    assert sorted(order) == names and order != names


WRONG_SAMPLES: list[tuple[dict[str, Any], str]] = [
    ({"1.png": png()}, "the sample has no .json member; it has png"),
    ({"1.txt": b"a cat"}, "the sample has 0 pictures for its caption, and not one"),
    ({"1.txt": b"a", "1.png": png(), "1.b.jpg": png()}, "the sample has 2 pictures"),
    ({"1.txt": b" ", "1.png": png()}, "the caption is empty"),
    ({"1.txt": b"\xff", "1.png": png()}, "byte 1 of the caption is not UTF-8"),
    ({"1.json": b"{"}, "not JSON: it breaks off"),
    ({"1.json": asked("a", "")}, "messages[1]: the message is empty"),
]


@pytest.mark.parametrize(("members", "message"), WRONG_SAMPLES, ids=[m for _, m in WRONG_SAMPLES])
def test_a_wrong_sample_of_a_tar_is_named(tmp_path: Path, members: dict[str, Any], message: str):
    path = write_tar(tmp_path / "train.tar", members)
    source = open_source(path)
    with pytest.raises(DataError) as caught:
        all_of(source)
    assert str(caught.value).startswith(f"{path}:1: ") and message in str(caught.value)


# --- tables of `datasets` ------------------------------------------------------------------------


def table() -> datasets.Dataset:
    """Two rows of messages whose pictures stand in a column."""
    show = [{"type": "image", "text": None}, {"type": "text", "text": "what?"}]
    paint = [{"type": "text", "text": "a dog"}]
    done, painted = [{"type": "text", "text": "a cat"}], [{"type": "image", "text": None}]
    rows = {
        "messages": [
            [{"role": "user", "content": show}, {"role": "assistant", "content": done}],
            [{"role": "user", "content": paint}, {"role": "assistant", "content": painted}],
        ],
        "images": [[noise(1)], [noise(2)]],
        "score": [1, 2],
    }
    made = datasets.Dataset.from_dict(rows)
    return made.cast_column("images", datasets.List(datasets.Image()))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Where the library keeps what it makes of parquet files."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)


def test_a_saved_table_and_parquet_files_give_the_same(tmp_path: Path):
    table().save_to_disk(tmp_path / "saved")
    table().to_parquet(tmp_path / "train.parquet")
    for path in (tmp_path / "saved", tmp_path / "train.parquet"):
        source = open_source(path)
        assert source.size == 2
        read, paint = all_of(source)
        assert read.name == f"{path}: row 0"
        assert (said(read), said(paint)) == (["what?", "a cat"], ["a dog"])
        assert pictures(read) == [noise(1).tobytes()] and pictures(paint) == [noise(2).tobytes()]


def test_a_table_of_pictures_and_captions_is_read_and_painted(tmp_path: Path):
    made = datasets.Dataset.from_dict({"image": [noise(1)], "text": ["a cat"]})
    made.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    source = open_source(tmp_path / "saved")
    assert source.size == 2
    read, paint = all_of(source)
    assert said(read)[1:] == ["a cat"] and said(paint) == ["a cat"]
    assert pictures(read) == pictures(paint) == [noise(1).tobytes()]


def test_tables_that_hold_no_conversations_are_refused(tmp_path: Path):
    datasets.Dataset.from_dict({"a": [1]}).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match="needs the column messages, or image and text; it has a"):
        open_source(tmp_path / "other")
    datasets.DatasetDict({"train": table()}).save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match=r"several splits; name one of .*splits/train"):
        open_source(tmp_path / "splits")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"train\.parquet cannot be read as a table"):
        open_source(tmp_path / "train.parquet")


def test_a_wrong_row_is_named(tmp_path: Path):
    rows = {"messages": [[{"role": "user", "content": "a"}]]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"saved: row 0: .*the last message must be of"):
        all_of(open_source(tmp_path / "saved"))
