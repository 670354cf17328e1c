"""JSON schemas as options of requests: an object, or the text of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unitok.shown import shown

MAX_CHARACTERS = 2**17  # of a schema: thousands of properties take seconds to prepare
MAX_DEPTH = 64  # objects and lists that lie in one another


def schema_text(value: Any) -> str:
    """A JSON schema as text, so that a request that has it stays as it is.

    Raises:
        TypeError: It is neither an object nor text.
        ValueError: It is no JSON object, it is too long, or nested too deeply.
    """
    if isinstance(value, str):
        text, value = _short(value), _parsed(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"json_schema must be an object, not {shown(value)}")
        _plain(value)
        return text
    if not isinstance(value, Mapping):
        raise TypeError
    plain = _plain(value)
    try:
        text = json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"json_schema cannot be written as JSON: {error}") from None
    return _short(text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"json_schema is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise ValueError(f"json_schema is no JSON: {error}") from None


def _short(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"json_schema has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are taken"
        )
    return text


def _plain(value: Any, levels: int = MAX_DEPTH) -> Any:
    """Mappings of any kind as dicts, which alone the library writes."""
    if levels < 0:
        raise ValueError(f"json_schema is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {key: _plain(part, levels - 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, levels - 1) for part in value]
    return value
