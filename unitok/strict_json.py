"""Reads JSON of users strictly: finite numbers, whole characters, no key twice, bounded depth.

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
MAX_DIGITS = 40  # of a whole number; seeds, the longest that mean something, have twenty
SHOWN = 60  # characters of a key or a value in a message

# A string, which may hold brackets, or a bracket. Nothing is ever tried twice (*+).
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[\[{]|[\]}]', re.DOTALL)


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
        ValueError: It is not JSON, nested too deeply, or holds what is refused here.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not JSON: byte {error.start + 1:,} is not UTF-8") from None
    if _is_too_deep(text):
        raise ValueError(f"not JSON that is read here: it is nested deeper than {MAX_DEPTH} levels")
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
    for path, part in _walk(value):
        _check(path, part)
    return value


def shown_json(value: object) -> str:
    """A value as JSON for a message, cut off if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
    return text.encode("utf-8", "backslashreplace").decode()


def _is_too_deep(text: str) -> bool:
    """Whether brackets are nested too deeply; looked at first, as the reader calls itself."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        depth += (first in "[{") - (first in "]}")
        if depth > MAX_DEPTH:
            return True
    return False


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


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """All values and keys inside a value, each with its path, in the order of the text."""
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        path, value = todo.pop()
        yield path, value
        if isinstance(value, dict):
            yield from ((_join(path, key), key) for key in value)
            todo += [(_join(path, key), part) for key, part in reversed(value.items())]
        elif isinstance(value, list):
            todo += [(f"{path}[{i}]", value[i]) for i in reversed(range(len(value)))]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _check(path: str, value: Any) -> None:
    """Refuse a value that no other JSON reader would understand."""
    if isinstance(value, _Wrong):
        raise ValueError(_at(path if value.key is None else _join(path, value.key)) + value.why)
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            why = f"{half} is half of a pair of surrogates, and no character"
            raise ValueError(_at(path) + why) from None


def _at(path: str) -> str:
    """The beginning of a message about a value."""
    return f"{shown_json(path)}: " if path else ""
