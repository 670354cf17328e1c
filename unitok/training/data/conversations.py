"""One record of a data set, parsed and checked as a conversation. No picture is opened yet.

A record is `{"messages": [...]}` in the form that `unitok.messages` explains. A picture in a turn
of the assistant is one to be painted. What the assistant says is learned, unless its message or its
part has `"train": false`. A part `{"type": "image"}` that names no picture stands for the next one
of the list `"images"`, which the record may have beside its messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeGuard, cast

from PIL import Image

from unitok.messages import (
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_PICTURES,
    ParsedPicture,
    check_list,
    check_order,
    read_keys,
    read_message,
    system_text,
)
from unitok.prompt import Role
from unitok.shown import shown
from unitok.terminal import one_line

KEYS = ("messages", "images", "id")


class DataError(ValueError):
    """A record of a data set is wrong. The message names the file, the line and the place."""


class DataChangedError(DataError):
    """A file changed while it was in use, so that all its records are wrong. None is skipped."""


@dataclass(frozen=True)
class StoredPicture:
    """A picture inside a file of a data set, which is read when it is opened.

    Attributes:
        load: Gives the bytes of its file.
        where: Its place in the record, for errors.
    """

    load: Callable[[], bytes]
    where: str

    def open(self) -> Image.Image:
        """Open the picture.

        Raises:
            OSError, ValueError: As `ParsedPicture.open`.
        """
        return ParsedPicture(self.load(), self.where).open()


Picture = ParsedPicture | StoredPicture
Part = str | Picture
# Finds a picture that a record names inside the data set's own files.
FindPicture = Callable[[ParsedPicture], Picture]


@dataclass(frozen=True)
class ConversationTurn:
    """What one side says.

    Attributes:
        role: Who speaks.
        parts: The texts and pictures, in their order.
        learned: Of each part, whether it is learned. Only the assistant's are.
    """

    role: Role
    parts: tuple[Part, ...]
    learned: tuple[bool, ...]

    @property
    def texts(self) -> list[tuple[str, bool]]:
        """The texts that are not empty, each with whether it is learned."""
        pairs = zip(self.parts, self.learned, strict=True)
        return [(part, learned) for part, learned in pairs if isinstance(part, str) and part]

    @property
    def pictures(self) -> list[tuple[Picture, bool]]:
        """The pictures, each with whether it is learned."""
        pairs = zip(self.parts, self.learned, strict=True)
        return [(part, learned) for part, learned in pairs if not isinstance(part, str)]

    @property
    def answers(self) -> bool:
        """Whether a text of it is learned."""
        return any(learned for _, learned in self.texts)


@dataclass(frozen=True)
class Conversation:
    """A conversation of a data set.

    Attributes:
        name: Where it comes from, such as "train.jsonl:12".
        system: The system prompt; None if there is no system message.
        turns: The turns of the user and of the assistant, one after the other. The user begins.
        epoch: How often its data set was passed before.
    """

    name: str
    system: str | None
    turns: tuple[ConversationTurn, ...]
    epoch: int = 0


def as_stored(picture: ParsedPicture) -> Picture:
    """A picture as the record names it."""
    return picture


def parse_conversation(
    record: object, name: str, folder: Path | None = None, find: FindPicture = as_stored
) -> Conversation:
    """Parse and check a record. No picture is opened.

    Args:
        record: The record, as JSON is read.
        name: Where it comes from, for errors.
        folder: Where relative paths of pictures start; None for the current folder.
        find: Finds the pictures that the record names.

    Raises:
        DataError: Something is missing, unknown, too much, of a wrong type or out of its place.
    """
    try:
        values = read_keys(record, "the record", KEYS, needed=("messages",))
        messages = check_list(values["messages"], "messages", MAX_MESSAGES)
        if "images" in values:
            images = check_list(values["images"], "images", MAX_PICTURES, "a list of pictures")
            messages = with_images(messages, images)
        system, turns = read_turns(messages, folder, find)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name}: {one_line(error)}") from None
    return Conversation(name, system, turns)


def read_turns(
    messages: Sequence[object], folder: Path | None, find: FindPicture
) -> tuple[str | None, tuple[ConversationTurn, ...]]:
    """The system prompt and the turns of messages; see `parse_conversation`.

    Raises:
        ValueError, TypeError: As `parse_messages`, or nothing is learned.
    """
    read = [read_one(message, f"messages[{i}]", folder, find) for i, message in enumerate(messages)]
    check_order([role for role, _, _ in read], "messages", "assistant")
    system = system_text(read.pop(0)[1]) if read[0][0] == "system" else None  # type: ignore[arg-type]
    turns = tuple(joined(read))
    if (count := sum(len(turn.pictures) for turn in turns)) > MAX_PICTURES:
        raise ValueError(f"messages has {count} pictures; at most {MAX_PICTURES} are read")
    if not any(any(turn.learned) for turn in turns):
        raise ValueError('nothing is learned, as all that the assistant says has "train": false')
    return system, turns


ReadMessage = tuple[str, tuple[Part, ...], tuple[bool, ...]]


def joined(read: Sequence[ReadMessage]) -> Iterator[ConversationTurn]:
    """Turns of messages, of which neighbours of one role become one turn."""
    for role, group in groupby(read, key=lambda message: message[0]):
        messages = list(group)
        parts = tuple(part for _, parts, _ in messages for part in parts)
        learned = tuple(flag for _, _, flags in messages for flag in flags)
        yield ConversationTurn(cast(Role, role), parts, learned)


def read_one(message: object, where: str, folder: Path | None, find: FindPicture) -> ReadMessage:
    """The role and the parts of a message, and which parts are learned.

    Raises:
        ValueError, TypeError: As `parse_messages`, or "train" stands where it means nothing.
    """
    plain, stated = without_train(message, where)
    flags: list[bool | None] = [None]
    if isinstance(plain, Mapping) and is_list(content := plain.get("content")):
        pairs = [
            without_train(part, f"{where}.content[{i}]")
            for i, part in enumerate(content[: MAX_PARTS + 1])
        ]
        flags = [flag for _, flag in pairs]
        plain = {**plain, "content": [part for part, _ in pairs]}
    role, parts = read_message(plain, where, folder)
    is_assistant = role == "assistant"
    if not is_assistant and True in (stated, *flags):
        raise ValueError(f"{where}: only what the assistant says is learned; leave out train")
    found = tuple(find(part) if isinstance(part, ParsedPicture) else part for part in parts)
    if is_assistant and not any(not isinstance(p, str) or p.strip() for p in found):
        raise ValueError(f"{where}: the message is empty")
    learned = (is_assistant and stated is not False and flag is not False for flag in flags)
    return role, found, tuple(learned)


def without_train(value: object, where: str) -> tuple[Any, bool | None]:
    """A message or a part without its key "train", and the key's value; None if it has none.

    Raises:
        TypeError: The value is neither true nor false.
    """
    if not isinstance(value, Mapping) or "train" not in value:
        return value, None
    stated = value["train"]
    if stated is not None and not isinstance(stated, bool):
        raise TypeError(f"{where}: train must be true or false, not {shown(stated)}")
    return {key: given for key, given in value.items() if key != "train"}, stated


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Whether a value of JSON or of a table is a list."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def with_images(messages: Sequence[object], images: Sequence[object]) -> list[object]:
    """Messages in which the parts that name no picture have those of a list, in their order.

    Raises:
        ValueError: There are more of the ones than of the others.
    """
    left = list(reversed(images))
    filled = [filled_message(message, f"messages[{i}]", left) for i, message in enumerate(messages)]
    if left:
        raise ValueError(
            f"images has {len(images)} pictures, and the messages show {len(images) - len(left)}"
        )
    return filled


def filled_message(message: object, where: str, left: list[object]) -> object:
    """A message whose nameless pictures are taken from the end of a list."""
    if not isinstance(message, Mapping) or not is_list(content := message.get("content")):
        return message
    parts: list[object] = []
    for i, part in enumerate(content[: MAX_PARTS + 1]):
        if is_nameless(part):
            if not left:
                raise ValueError(f"{where}.content[{i}]: images has no picture for it")
            part = {**part, "image": left.pop()}
        parts.append(part)
    return {**message, "content": parts}


def is_nameless(part: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a part is a picture of which nothing is said."""
    if not isinstance(part, Mapping) or part.get("type") != "image":
        return False
    return not {key for key, value in part.items() if value is not None} - {"type", "train"}
