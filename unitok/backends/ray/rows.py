"""A row of a dataset as a line: its columns are the keys of the JSON object."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

PICTURE = {"bytes", "path"}  # the keys of a picture in a column of Hugging Face's datasets
EXACT = 2.0**53  # below it, a float is the whole number that it was made of


def json_of_row(row: dict[str, Any]) -> bytes:
    """The JSON of a row.

    What is null is left out at every depth, as tables have a value in every column. So is what is
    not a number, which stands for null in tables of pandas; the whole numbers beside it are floats
    there, and become whole again. Bytes are pictures, which become data URIs.

    Raises:
        ValueError: A column holds what JSON has not. The message names it.
    """
    return json.dumps(_object(row, ""), ensure_ascii=False).encode()


def _object(values: dict[str, Any], where: str) -> dict[str, Any]:
    made = {name: _value(value, where or str(name)) for name, value in values.items()}
    return {name: value for name, value in made.items() if value is not None}


def _number(value: float) -> float | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() and abs(value) < EXACT else value


def _value(value: Any, column: str) -> Any:
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, bytes):
        return f"data:application/octet-stream;base64,{base64.b64encode(value).decode()}"
    if isinstance(value, dict) and set(value) == PICTURE:
        return _value(value["path"] if value["bytes"] is None else value["bytes"], column)
    if isinstance(value, dict):
        return _object(value, column)
    if isinstance(value, list):
        return [_value(one, column) for one in value]
    raise ValueError(
        f"the column {column} holds a {type(value).__name__}; give text, numbers, lists, structs, "
        "or pictures as the bytes of their files"
    )
