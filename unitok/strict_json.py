"""Reads JSON of users strictly: finite numbers, whole characters, no key twice, bounded size.

Python's reader takes NaN, numbers that overflow, halves of surrogate pairs and repeated keys. What
is read here can be written again as JSON, and every message names the key that is wrong.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]

MAX_DEPTH = 64  # levels; a chat with pictures has seven, and Python's reader ends near a thousand
# A conversation of as many messages and parts as are read has 300,000. Each takes up to 72 bytes.
MAX_VALUES = 500_000
MAX_DIGITS = 40  # of a whole number; seeds, the longest that mean something, have twenty
SHOWN = 60  # characters of a key or a value in a message

# A string, which may hold brackets and commas, or one of these. Nothing is ever tried twice (*+).
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[\[{\]},]', re.DOTALL)

# Where a value is: the place around it, and its key or its number there; None for the whole text.
# It is put in words only for an error, as a key may be long, and many values may lie behind it.
_Place = tuple["_Place", str | int] | None


@dataclass(frozen=True)
class _Wrong:
    """Stands in for a value that is refused, until its key is known."""

    why: str
    key: str | None = None  # of the object that stands here; None for all of it


def parse_json(data: bytes) -> Any:
    """The value of a JSON text.

    Args:
        data: The text in UTF-8.

    Raises:
        ValueError: It is not JSON, is nested too deeply, or holds too much or what is refused here.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not JSON: byte {error.start + 1:,} is not UTF-8") from None
    _check_size(text)
    try:
        value = json.loads(
            text,
            parse_constant=_constant,
            parse_float=_number,
            parse_int=_whole_number,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise ValueError(_where(error)) from None
    for place, part in _walk(value):
        _check(place, part)
    return value


def shown_json(value: object) -> str:
    """A value as JSON for a message, cut off if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
    return text.encode("utf-8", "backslashreplace").decode()


def _check_size(text: str) -> None:
    """Refuse a text that is nested too deeply or has too many values.

    This comes before reading, as the reader calls itself, and makes an object of each value.
    """
    opened = text.count("[") + text.count("{")
    if opened <= MAX_DEPTH and opened + text.count(",") < MAX_VALUES:
        return
    depth, values = 0, 1
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        depth += (first in "[{") - (first in "]}")
        values += first in "[{,"
        if depth > MAX_DEPTH:
            raise ValueError(
                f"not JSON that is read here: it is nested deeper than {MAX_DEPTH} levels"
            )
        if values > MAX_VALUES:
            raise ValueError(f"not JSON that is read here: it has more than {MAX_VALUES:,} values")


def _where(error: json.JSONDecodeError) -> str:
    """Where a text stops being JSON."""
    rest = error.doc[error.pos :].strip()
    if not rest:
        return "not JSON: it breaks off"
    seen = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in rest[:SHOWN])
    return f"not JSON from column {error.colno:,} on: {seen}"


def _constant(name: str) -> _Wrong:
    return _Wrong(f"{name} is not a number")


def _number(text: str) -> float | _Wrong:
    value = float(text)
    return value if abs(value) < float("inf") else _Wrong(f"{text[:SHOWN]} is not finite")


def _whole_number(text: str) -> int | _Wrong:
    digits = len(text.lstrip("-"))
    if digits <= MAX_DIGITS:
        return int(text)
    return _Wrong(f"a number of {digits:,} digits; at most {MAX_DIGITS} are read")


def _object(pairs: list[tuple[str, Any]]) -> JsonObject | _Wrong:
    found: JsonObject = {}
    for key, value in pairs:
        if key in found:
            return _Wrong("this key is given twice", key)
        found[key] = value
    return found


def _walk(value: Any) -> Iterator[tuple[_Place, Any]]:
    """All values and keys inside a value, each with its place, in the order of the text."""
    todo: list[tuple[_Place, Any]] = [(None, value)]
    while todo:
        place, value = todo.pop()
        yield place, value
        if isinstance(value, dict):
            yield from (((place, key), key) for key in value)
            todo += [((place, key), part) for key, part in reversed(value.items())]
        elif isinstance(value, list):
            todo += [((place, i), value[i]) for i in reversed(range(len(value)))]


def _check(place: _Place, value: Any) -> None:
    """Refuse a value that no other JSON reader would understand."""
    if isinstance(value, _Wrong):
        raise ValueError(_at(place if value.key is None else (place, value.key)) + value.why)
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            why = f"{half} is half of a pair of surrogates, and no character"
            raise ValueError(_at(place) + why) from None


def _at(place: _Place) -> str:
    """The beginning of a message about a value."""
    return "" if place is None else f"{shown_json(_path(place))}: "


def _path(place: _Place) -> str:
    """A place in words, such as messages[0].content."""
    path = ""
    while place is not None:
        place, step = place
        path = f"[{step}]{path}" if isinstance(step, int) else f".{step}{path}"
    return path.removeprefix(".")
