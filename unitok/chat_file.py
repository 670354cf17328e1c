"""A chat as a file: JSON with its messages in the form that `unitok.messages` explains.

The pictures are in the file, as PNG in data URIs. So it can be moved, and reading it opens no other
file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitok.history import PNG_URI
from unitok.messages import ParsedMessages, parse_messages
from unitok.saving import write_whole
from unitok.strict_json import parse_json
from unitok.terminal import one_line

FORMAT, VERSION = "unitok chat", 1
MAX_BYTES = 200_000_000


def write_chat(path: Path, messages: Sequence[Mapping[str, Any]], model: str, new: bool) -> None:
    """Write a chat, completely or not at all.

    Args:
        path: The file.
        messages: The chat.
        model: The name of the model, which is kept for people.
        new: Whether the file must not exist yet.

    Raises:
        FileExistsError: The file exists, and `new` was asked for.
        OSError: The file cannot be written.
        ValueError: The chat could not be read again, as it is too large.
    """
    parse_messages(messages, last="assistant", name="the chat")
    document = {"format": FORMAT, "version": VERSION, "model": model, "messages": messages}
    data = (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode("utf-8")
    if len(data) > MAX_BYTES:
        raise ValueError(f"the chat takes {len(data):,} bytes; at most {MAX_BYTES:,} can be saved")
    write_whole(data, path, new)


def read_chat(path: Path) -> ParsedMessages:
    """Read a chat. Its pictures are not opened yet.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ValueError: It is not a chat that was saved, is damaged or too large.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: " + ("not a file" if path.exists() else "no such file"))
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes, which no saved chat has")
    document = parse_document(data, path)
    try:
        parsed = parse_messages(
            document.get("messages"), last="assistant", name=f"{path}: messages"
        )
    except TypeError as error:  # a wrong type in a file is a wrong value
        raise ValueError(str(error)) from None
    for picture in parsed.pictures:
        if not str(picture.source).startswith(PNG_URI):
            raise ValueError(f"{picture.where}: a saved picture begins with {PNG_URI}")
    return parsed


def parse_document(data: bytes, path: Path) -> Mapping[str, Any]:
    """The JSON object of a chat's file.

    Raises:
        ValueError: It is something else.
    """
    try:
        document = parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path} is not a saved chat, or is damaged: {one_line(error)}") from None
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise ValueError(f'{path} is not a saved chat: its "format" is not "{FORMAT}"')
    if document.get("version") != VERSION:
        found = one_line(repr(document.get("version")))
        raise ValueError(f"{path} is of version {found}; this unitok reads version {VERSION}")
    return document
