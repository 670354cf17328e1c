"""JSON of users is read strictly, and each message names the key."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitok.strict_json import MAX_DEPTH, MAX_DIGITS, MAX_VALUES, parse_json, shown_json


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1e400}', '"a": 1e400 is not finite'),
        ('{"id": {"b": [1, -1e400]}}', '"id.b[1]": -1e400 is not finite'),
        ('{"a": NaN}', '"a": NaN is not a number'),
        ("[-Infinity]", '"[0]": -Infinity is not a number'),
        ('{"a": 1, "b": 2, "a": 1}', '"a": this key is given twice'),
        ('{"a": {"b": [{"c": 1, "c": 2}]}}', '"a.b[0].c": this key is given twice'),
        ('{"a": ' + "1" * 10_000 + "}", '"a": a number of 10,000 digits; at most 40 are read'),
        ('{"a": "x\\udc80"}', '"a": \\udc80 is half of a pair of surrogates'),
        ('{"\\ud800": 1}', '"\\ud800": \\ud800 is half of a pair of surrogates'),
        ("[" * 200_000, "nested deeper than 64 levels"),
        ('{"a":' * 200_000, "nested deeper than 64 levels"),
        ('["\\"[", ' + "[" * 200_000, "nested deeper than 64 levels"),
        ('{"draw": "a cat"', "not JSON: it breaks off"),
        ("", "not JSON: it breaks off"),
        ('{"a": 1} {"b": 2}', 'not JSON from column 10 on: {"b": 2}'),
        ("{'a': 1}", "not JSON from column 2 on: 'a': 1}"),
        ('{"a": "\x00"}', "not JSON from column 8 on: \\u0000"),
    ],
)
def test_what_is_refused_is_named_in_a_short_line(text, told):
    with pytest.raises(ValueError) as caught:
        parse_json(text.encode())
    message = str(caught.value)
    assert message.startswith(told) or told in message
    assert len(message) < 200 and "\n" not in message
    message.encode("utf-8")


def test_text_that_is_not_utf_8_is_told_by_the_byte():
    with pytest.raises(ValueError, match="byte 3 is not UTF-8"):
        parse_json(b'{"\xff": 1}')


def test_brackets_in_strings_are_no_levels():
    value = {"a": "[" * 500 + '"' + "{" * 500, "b": [[]] * 100}
    assert parse_json(json.dumps(value).encode()) == value


def test_what_is_within_the_limits_is_read():
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deep.encode())) == deep
    with pytest.raises(ValueError, match="deeper"):
        parse_json(f"[{deep}]".encode())
    assert parse_json(b"-" + b"1" * MAX_DIGITS) == -int("1" * MAX_DIGITS)
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert parse_json(b"[1e-400, null, true]") == [0.0, None, True]


def test_a_line_of_too_many_values_is_refused_before_it_is_read(monkeypatch):
    most = b"[" + b"0," * (MAX_VALUES - 2) + b"0]"  # the list is a value too
    assert len(parse_json(most)) == MAX_VALUES - 1
    assert parse_json(b'["' + b"," * MAX_VALUES + b'"]') == ["," * MAX_VALUES]
    monkeypatch.setattr("json.loads", None)
    for many in (b"0," + most, b"[" + b"[]," * MAX_VALUES, b'{"a":[' + b"{}," * MAX_VALUES):
        with pytest.raises(ValueError, match="it has more than 500,000 values"):
            parse_json(many)


def test_a_long_key_takes_its_memory_once_not_once_for_each_value_behind_it():
    line = b'{"' + b"k" * 100_000 + b'": [' + b"0," * 9_999 + b"0]}"
    tracemalloc.start()
    try:
        parse_json(line)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50 * len(line)


def test_a_long_value_is_cut_off_in_messages():
    assert shown_json("x" * 10_000) == '"' + "x" * 56 + "..."
    assert shown_json(["\ud800"]) == '["\\ud800"]'


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=40)
@given(JSON)
def test_what_json_can_say_is_read_as_it_is(value):
    assert parse_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=60) | st.text('[]{}",:\\u1eE+-.0NaInfity ', max_size=60).map(str.encode))
def test_whatever_is_given_is_read_or_refused(data):
    try:
        value = parse_json(data)
    except ValueError as error:
        assert type(error) is ValueError
    else:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")


def test_many_lists_of_the_greatest_depth_are_read():
    """Their brackets are more than the depth allows, so that the levels themselves are counted."""
    deepest = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    read = parse_json(f"[{deepest},{deepest}]".encode())
    assert isinstance(read, list) and len(read) == 2
    with pytest.raises(ValueError, match="nested deeper"):
        parse_json(f"[{deepest},[{deepest}]]".encode())
