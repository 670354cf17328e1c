"""Small files are read as a whole, but not beyond their limits."""

import json
from pathlib import Path

import pytest

from unitok_tokenizers.bounded_files import (
    MAX_BYTES,
    MAX_DEPTH,
    parse_json,
    read_file,
    read_object,
    read_text,
)
from unitok_tokenizers.text import TextTokenizer


def make_large(file: Path) -> Path:
    """A file of one byte too many, which takes no room on the disk."""
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    return file


def nested(depth: int, opening: str = '{"a":', closing: str = "}") -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


def test_a_file_may_be_as_large_as_the_limit(tmp_path: Path):
    file = tmp_path / "some.txt"
    file.write_bytes(b"abc")
    assert read_file(file, most=3) == b"abc"
    with pytest.raises(ValueError, match=r"some\.txt is larger than 2 bytes, the most that"):
        read_file(file, most=2)
    assert len(read_file(make_large(file), most=MAX_BYTES + 1)) == MAX_BYTES + 1
    with pytest.raises(ValueError, match=r"some\.txt is larger than 33,554,432 bytes"):
        read_file(file)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_tokenizer_beyond_the_limit_is_refused(tmp_path: Path, name: str):
    make_large(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is larger than 33,554,432 bytes"):
        TextTokenizer.load(tmp_path)


def test_text_is_in_utf_8_with_a_mark_or_without(tmp_path: Path):
    file = tmp_path / "some.txt"
    for content in ("héllo".encode(), "héllo".encode("utf-8-sig")):
        file.write_bytes(content)
        assert read_text(file) == "héllo"
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"some\.txt is not text in UTF-8 at byte 0$"):
        read_text(file)


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]"), ('[{"a":', "}]")])
def test_json_may_be_nested_as_deeply_as_the_limit(opening: str, closing: str):
    each = opening.count("[") + opening.count("{")
    parse_json(nested(MAX_DEPTH // each, opening, closing))
    for depth in (MAX_DEPTH // each + 1, 200_000):
        with pytest.raises(ValueError, match=r"^nested more than 64 deep$"):
            parse_json(nested(depth, opening, closing))


def test_what_is_no_json_says_where(tmp_path: Path):
    file = tmp_path / "some.json"
    for content, message in (
        (b'{"a" 1}', r"is not JSON: Expecting ':' delimiter: line 1 column 6"),
        (b"\xff\xfe{}", r"is not JSON: no UTF-8 at byte 0$"),
        (b"1" * 5000, r"is not JSON that can be read: a number has too many digits$"),
        (b"[1]", r"holds no JSON object"),
        (nested(100), r"is nested more than 64 deep"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"some\.json {message}"):
            read_object(file)


def test_of_equal_keys_the_last_counts_as_everywhere(tmp_path: Path):
    file = tmp_path / "some.json"
    file.write_text('{"a": 1, "a": 2}')
    assert read_object(file) == json.loads(file.read_text()) == {"a": 2}
