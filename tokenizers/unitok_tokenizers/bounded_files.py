"""Small files of a checkpoint, which are read as a whole, within limits.

A file that somebody else wrote may be made to fill the memory, or to exhaust the stack of a parser.
"""

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 32 * 2**20
"""The largest file that is read as a whole; the tokenizer.json of Emu3 has less than 20 MB."""

MAX_DEPTH = 64
"""The most objects and lists that may lie in one another in a JSON file."""


def read_file(file: Path, most: int = MAX_BYTES) -> bytes:
    """Read a whole file.

    Raises:
        ValueError: It is larger than `most` bytes.
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(
            f"{file} is larger than {most:,} bytes, the most that such a file may have"
        )
    return content


def read_text(file: Path, most: int = MAX_BYTES) -> str:
    """Read a whole file as text.

    Raises:
        ValueError: It is larger than `most` bytes, or not in UTF-8.
        OSError: It cannot be read.
    """
    try:
        return _decode(read_file(file, most))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8 at byte {error.start}") from None


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: It is larger than `MAX_BYTES`, is no JSON, is nested deeper than `MAX_DEPTH`, or
            holds something else.
        OSError: It cannot be read.
    """
    content = read_file(file)
    try:
        document = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{file} is {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file} holds no JSON object")
    return document


def parse_json(content: bytes) -> Any:
    """Parse JSON in UTF-8.

    Raises:
        ValueError: It is no JSON, or nested deeper than `MAX_DEPTH`. The message continues "It is".
    """
    try:
        document = json.loads(_decode(content))
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not JSON: no UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except ValueError:  # Python reads no number of thousands of digits
        raise ValueError("not JSON that can be read: a number has too many digits") from None
    if _depth_exceeds(document, MAX_DEPTH):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return document


def _decode(content: bytes) -> str:
    """Text in UTF-8, which may begin with a mark that says so."""
    return content.decode("utf-8-sig")


def _depth_exceeds(document: object, limit: int) -> bool:
    """Whether more than so many objects and lists lie in one another."""
    level = _containers([document])
    for _ in range(limit):
        if not level:
            return False
        level = [inner for outer in level for inner in _containers(_values(outer))]
    return bool(level)


def _values(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def _containers(values: Any) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]
