"""Reads what is written down of a thing: a JSON file, and an object of its fields."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Protocol, TypeVar


class Record(Protocol):
    """What is known of a thing."""

    @property
    def id(self) -> str:
        """Its id, which no other has."""
        ...


R = TypeVar("R", bound=Record)


def read_record(path: Path, kind: type[R], id: str, pattern: re.Pattern[str]) -> R:
    """What is known of a thing.

    Args:
        path: The JSON file.
        kind: The class of what is known.
        id: The thing's id, as the file's place tells it.
        pattern: What ids look like.

    Raises:
        ValueError: The file is damaged, or of another thing.
    """
    try:
        record = kind(**json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise ValueError(f"{path} is damaged: remove it") from None
    if record.id != id or not pattern.fullmatch(id):
        raise ValueError(f"{path} is not of {id}: remove it")
    return record
