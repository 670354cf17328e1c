"""Conversations in the messages form of chat APIs: parsed and checked, with no picture opened yet.

A message is `{"role": ..., "content": ...}`, and a content is text or a list of parts. The parts
are those of the OpenAI API, and those of Hugging Face's chat templates:

    {"type": "text", "text": "what is this?"}
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}
    {"type": "image", "image": "scene.png"}    "path", "url" or "base64" instead of "image"

A key whose value is None counts as absent. Nothing else is ignored: an error names the place.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from PIL import Image

from unitok.picture_sources import Refused
from unitok.pictures import PictureLike, open_picture
from unitok.prompt import Role
from unitok.shown import shown
from unitok.terminal import one_line

MAX_MESSAGES = 1000
MAX_PARTS = 100  # of a message
MAX_PICTURES = 100  # of a conversation

ROLES = ("system", "developer", "user", "assistant")  # "developer" is a newer word for "system"
TEXT_PARTS = ("text", "input_text", "output_text")
# Where a picture stands in each type of part. Only one of the keys is given.
PICTURE_PARTS = {
    "image_url": ("image_url",),
    "input_image": ("image_url",),
    "image": ("image", "path", "url", "base64"),
}
SHOWN_TYPES = "text, image_url and image"  # in messages; the others are for the responses API

# A data URI or a URL is no path. The letter of a Windows drive is no scheme.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


@dataclass(frozen=True)
class ParsedPicture:
    """A picture of a message, which is not opened yet.

    Attributes:
        source: What `open_picture` takes.
        where: Its place in the messages, for errors.
    """

    source: PictureLike
    where: str

    def open(self) -> Image.Image:
        """Open the picture.

        Raises:
            FileNotFoundError, OSError, ValueError, TypeError: As `open_picture`, with the place.
        """
        try:
            return open_picture(self.source)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.where}: {one_line(error)}") from None
        except OSError as error:
            raise OSError(f"{self.where}: {one_line(error)}") from None
        except Refused as error:
            told = f"{self.where}: {one_line(error)}"
            raise Refused(told, error.reason, self.where) from None
        except ValueError as error:
            raise ValueError(f"{self.where}: {one_line(error)}") from None
        except TypeError as error:
            raise TypeError(f"{self.where}: {one_line(error)}") from None


Part = str | ParsedPicture


@dataclass(frozen=True)
class ParsedTurn:
    """What one side says, with the texts and pictures in their order."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ParsedMessages:
    """A conversation.

    Attributes:
        system: The system prompt; None if there is no system message.
        turns: The turns of the user and of the assistant, one after the other. The user begins.
    """

    system: str | None
    turns: tuple[ParsedTurn, ...]

    @property
    def pictures(self) -> list[ParsedPicture]:
        """All pictures, in their order."""
        return [p for turn in self.turns for p in turn.parts if isinstance(p, ParsedPicture)]


def parse_messages(
    messages: object, folder: Path | None = None, last: Role = "user", name: str = "messages"
) -> ParsedMessages:
    """Parse and check a conversation. No picture is opened.

    Neighbouring messages of one role become one turn.

    Args:
        messages: The messages.
        folder: Where relative paths of pictures start; None for the current folder.
        last: Whose message must be the last one.
        name: What the messages are called in errors.

    Raises:
        ValueError: Something is missing, unknown, too much or out of its place.
        TypeError: Something is of a wrong type.
    """
    given = check_list(messages, name, MAX_MESSAGES)
    read = [read_message(m, f"{name}[{i}]", folder) for i, m in enumerate(given)]
    check_order([role for role, _ in read], name, last)
    system = system_text(read[0][1]) if read[0][0] == "system" else None
    parsed = ParsedMessages(system, joined_turns(read if system is None else read[1:]))
    if (count := len(parsed.pictures)) > MAX_PICTURES:
        raise ValueError(f"{name} has {count} pictures; at most {MAX_PICTURES} are read")
    return parsed


def check_order(roles: Sequence[str], name: str, last: Role) -> None:
    """Check who speaks when.

    Args:
        roles: Of all messages.
        name: What the messages are called in errors.
        last: Whose message must be the last one.

    Raises:
        ValueError: A system message is not the first one, the user does not begin, or the last
            message is not of whom it must be.
    """
    first = 1 if roles[:1] == ["system"] else 0
    if len(roles) == first:
        raise ValueError(f"{name} has no message of the user")
    for i, role in enumerate(roles):
        if role == "system" and i:
            raise ValueError(f"{name}[{i}]: a system message can only be the first one")
    if roles[first] != "user":
        raise ValueError(f"{name}[{first}]: the user begins, not the {roles[first]}")
    if roles[-1] != last:
        place = f"{name}[{len(roles) - 1}]"
        raise ValueError(f"{place}: the last message must be of the {last}, not the {roles[-1]}")


def joined_turns(talk: Sequence[tuple[str, tuple[Part, ...]]]) -> tuple[ParsedTurn, ...]:
    """Turns of messages, of which neighbours of one role become one turn."""
    sides = groupby(talk, key=lambda message: message[0])
    return tuple(
        ParsedTurn(cast(Role, role), tuple(part for _, parts in messages for part in parts))
        for role, messages in sides
    )


def read_message(message: object, where: str, folder: Path | None) -> tuple[str, tuple[Part, ...]]:
    """The role and the parts of a message. The role "developer" becomes "system".

    Raises:
        ValueError, TypeError: As `parse_messages`.
    """
    values = read_keys(message, where, ("role", "content"), needed=("role", "content"))
    role = values["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"{where}: unknown role {shown(role)}; the roles are {', '.join(ROLES)}")
    parts = tuple(read_content(values["content"], f"{where}.content", folder))
    if role in ("system", "developer"):
        if any(isinstance(part, ParsedPicture) for part in parts):
            raise ValueError(f"{where}: a {role} message holds text only")
        return "system", parts
    if role == "user" and not any(isinstance(p, ParsedPicture) or p.strip() for p in parts):
        raise ValueError(f"{where}: the message is empty")
    return role, parts


def system_text(parts: Sequence[Part]) -> str:
    """The text of a system message."""
    return "\n".join(part for part in parts if isinstance(part, str))


def read_content(content: object, where: str, folder: Path | None) -> Iterator[Part]:
    """The parts of a message's content.

    Raises:
        ValueError, TypeError: As `parse_messages`.
    """
    if isinstance(content, str):
        yield read_text(content, where)
        return
    for i, part in enumerate(check_list(content, where, MAX_PARTS, "text or a list of parts")):
        yield read_part(part, f"{where}[{i}]", folder)


def read_part(part: object, where: str, folder: Path | None) -> Part:
    """A part of a message's content.

    Raises:
        ValueError, TypeError: As `parse_messages`.
    """
    if isinstance(part, str):
        return read_text(part, where)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(kind, str) and kind in TEXT_PARTS:
        values = read_keys(part, where, ("type", "text"), needed=("text",))
        return read_text(values["text"], where)
    if isinstance(kind, str) and kind in PICTURE_PARTS:
        return ParsedPicture(placed(read_picture(part, kind, where), folder), where)
    read_keys(part, where, None, needed=("type",))
    raise ValueError(f"{where}: unknown part type {shown(kind)}; the types are {SHOWN_TYPES}")


def read_text(text: object, where: str) -> str:
    """A text that a tokenizer can read.

    Raises:
        TypeError: It is no text.
        ValueError: It is not valid Unicode, as JSON with half of a surrogate pair gives.
    """
    if not isinstance(text, str):
        raise TypeError(f"{where}: text must be text, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{where}: the text is not valid Unicode") from None
    return text


def read_picture(part: object, kind: str, where: str) -> PictureLike:
    """The source of a picture.

    Raises:
        ValueError, TypeError: As `parse_messages`.
    """
    keys = PICTURE_PARTS[kind]
    extra = ("detail",) if kind == "input_image" else ()
    values = read_keys(part, where, ("type", *keys, *extra))
    check_detail(values, where)
    given = [key for key in keys if key in values]
    if len(given) != 1:
        raise ValueError(f"{where}: an {kind} part needs {one_of(keys)}")
    source = values[given[0]]
    if given[0] == "image_url" and isinstance(source, Mapping):
        inner = read_keys(source, f"{where}.image_url", ("url", "detail"), needed=("url",))
        check_detail(inner, f"{where}.image_url")
        source = inner["url"]
    if given[0] != "image" and not isinstance(source, str | Path):
        raise TypeError(f"{where}: {given[0]} must be text, not {type(source).__name__}")
    return decoded(str(source), where) if given[0] == "base64" else source


def one_of(keys: Sequence[str]) -> str:
    """Keys of which one is needed, in words."""
    return repr(keys[0]) if len(keys) == 1 else f"one of {', '.join(map(repr, keys))}"


def check_detail(values: Mapping[str, Any], where: str) -> None:
    """Check how closely a picture shall be looked at: a model has one way only.

    Raises:
        ValueError: A certain way is asked for.
    """
    if values.get("detail", "auto") != "auto":
        asked = shown(values["detail"])
        raise ValueError(f"{where}: detail can only be 'auto', not {asked}; leave it out")


def decoded(text: str, where: str) -> bytes:
    """The bytes that base64 stands for.

    Raises:
        ValueError: It is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{where}: the picture is not valid base64") from None


def placed(source: PictureLike, folder: Path | None) -> PictureLike:
    """A picture's source; a relative path starts at the folder."""
    if folder is None or not isinstance(source, str | Path):
        return source
    return source if isinstance(source, str) and _SCHEME.match(source) else folder / source


def read_keys(
    value: object, where: str, known: Sequence[str] | None, needed: Sequence[str] = ()
) -> dict[str, Any]:
    """The keys of an object that are not None.

    Args:
        value: The object.
        where: Its place, for errors.
        known: The keys that it may have; None for any.
        needed: Those that it must have.

    Raises:
        ValueError: A key is unknown or missing.
        TypeError: It is no object.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{where} must be a dictionary, not {type(value).__name__}")
    values = {key: given for key, given in value.items() if given is not None}
    for key in values:
        if known is not None and key not in known:
            raise ValueError(f"{where}: unknown key {shown(key)}; the keys are {', '.join(known)}")
    for key in needed:
        if key not in values:
            raise ValueError(f"{where}: {key!r} is missing")
    return values


def check_list(
    value: object, where: str, most: int, what: str = "a list of messages"
) -> Sequence[object]:
    """A list of bounded length.

    Args:
        value: The list.
        where: Its place, for errors.
        most: Its greatest length.
        what: What it is, in words.

    Raises:
        TypeError: It is no list.
        ValueError: It is too long.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(f"{where} must be {what}, not {type(value).__name__}")
    if len(value) > most:
        raise ValueError(f"{where} has {len(value):,} entries; at most {most:,} are read")
    return value
