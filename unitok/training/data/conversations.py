"""One record of a data set, parsed and checked as a conversation. No picture is opened yet.

A record is `{"messages": [...]}` in the form that `unitok.messages` explains. A picture in a turn
of the assistant is one to be painted. What the assistant says is learned, unless its message or its
part has `"train": false`. A part `{"type": "image"}` that names no picture stands for the next one
of the list `"images"`, which the record may have beside its messages. A picture of the assistant
may have its `"codes"`, see `picture_codes.py`. Records of two answers are in `preferences.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from unitok.training.data.picture_codes import Codes, without_codes

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


PictureFile = ParsedPicture | StoredPicture


@dataclass(frozen=True)
class CodedPicture:
    """A picture whose codes are known, so that it is learned token for token as it was drawn.

    Attributes:
        picture: What is seen of it, and where it stands in the record.
        codes: Its codes, row by row.
    """

    picture: PictureFile
    codes: Codes

    @property
    def where(self) -> str:
        """Its place in the record, for errors."""
        return self.picture.where

    def open(self) -> Image.Image:
        """Open the picture.

        Raises:
            OSError, ValueError: As `ParsedPicture.open`.
        """
        return self.picture.open()


Picture = PictureFile | CodedPicture
Part = str | Picture
# Finds a picture that a record names inside the data set's own files.
FindPicture = Callable[[ParsedPicture], PictureFile]


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
        rejected: What the assistant should rather not have said in place of the last turn; None of
            a conversation that is no pair of answers.
    """

    name: str
    system: str | None
    turns: tuple[ConversationTurn, ...]
    epoch: int = 0
    rejected: ConversationTurn | None = None

    @property
    def sides(self) -> tuple[Conversation, ...]:
        """The conversation with the answer that is chosen, and the one with the other if any."""
        chosen = replace(self, rejected=None)
        if self.rejected is None:
            return (chosen,)
        return chosen, replace(chosen, turns=(*self.turns[:-1], self.rejected))


def as_stored(picture: ParsedPicture) -> ParsedPicture:
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
    system, spoken = separate_system(read)
    turns = tuple(joined(spoken))
    if (count := sum(len(turn.pictures) for turn in turns)) > MAX_PICTURES:
        raise ValueError(f"messages has {count} pictures; at most {MAX_PICTURES} are read")
    if not any(any(turn.learned) for turn in turns):
        raise ValueError('nothing is learned, as all that the assistant says has "train": false')
    return system, turns


ReadMessage = tuple[str, tuple[Part, ...], tuple[bool, ...]]


def separate_system(read: Sequence[ReadMessage]) -> tuple[str | None, Sequence[ReadMessage]]:
    """The system prompt, None if there is none, and the messages behind it."""
    if read[0][0] != "system":
        return None, read
    return system_text(read[0][1]), read[1:]  # type: ignore[arg-type]


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
    codes: list[Codes | None] = [None]
    if isinstance(plain, Mapping) and is_list(content := plain.get("content")):
        places = [f"{where}.content[{i}]" for i in range(len(content[: MAX_PARTS + 1]))]
        pairs = [without_train(part, at) for part, at in zip(content, places, strict=False)]
        flags = [flag for _, flag in pairs]
        coded = [without_codes(part, at) for (part, _), at in zip(pairs, places, strict=True)]
        codes = [known for _, known in coded]
        plain = {**plain, "content": [part for part, _ in coded]}
    role, parts = read_message(plain, where, folder)
    is_assistant = role == "assistant"
    if not is_assistant and True in (stated, *flags):
        raise ValueError(f"{where}: only what the assistant says is learned; leave out train")
    if not is_assistant and any(codes):
        raise ValueError(f"{where}: only what the assistant paints has codes; leave them out")
    found = tuple(found_part(part, known, find) for part, known in zip(parts, codes, strict=True))
    if is_assistant and not any(not isinstance(p, str) or p.strip() for p in found):
        raise ValueError(f"{where}: the message is empty")
    learned = (is_assistant and stated is not False and flag is not False for flag in flags)
    return role, found, tuple(learned)


def found_part(part: str | ParsedPicture, codes: Codes | None, find: FindPicture) -> Part:
    """A part, whose picture is found where the data set has it, with its codes if they are known.

    Raises:
        ValueError, TypeError: As `find`.
    """
    if isinstance(part, str):
        return part
    picture = find(part)
    return picture if codes is None else CodedPicture(picture, codes)


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
    return not {key for key, value in part.items() if value is not None} - {
        "type",
        "train",
        "codes",
    }
