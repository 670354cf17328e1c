"""JSON schemas as options of requests: an object, or the text of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unitok.shown import shown

MAX_CHARACTERS = 2**17  # of a schema: thousands of properties take seconds to prepare


def schema_text(value: Any) -> str:
    """A JSON schema as text, so that a request that has it stays as it is.

    Raises:
        TypeError: It is neither an object nor text.
        ValueError: It is no JSON object, or it is too long.
    """
    if isinstance(value, str):
        return _checked(value, _parsed(value))
    if not isinstance(value, Mapping):
        raise TypeError
    try:
        text = json.dumps(_plain(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"json_schema cannot be written as JSON: {error}") from None
    return _checked(text, value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"json_schema is no JSON: {error}") from None


def _checked(text: str, schema: object) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"json_schema has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are taken"
        )
    if not isinstance(schema, Mapping):
        raise ValueError(f"json_schema must be an object, not {shown(schema)}")
    return text


def _plain(value: Any) -> Any:
    """Mappings of any kind as dicts, which alone the library writes."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
