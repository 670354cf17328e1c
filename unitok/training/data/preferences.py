"""A record of two answers to the same messages, one of which is better: `{"messages": [...],
"chosen": ..., "rejected": ...}`.

The messages end with one of the user. An answer is a message of the assistant, or a list of such,
with texts, pictures, or both. Nothing before the answers is learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unitok.messages import MAX_MESSAGES, MAX_PICTURES, check_list, check_order, read_keys
from unitok.terminal import one_line
from unitok.training.data.conversations import (
    KEYS,
    Conversation,
    ConversationTurn,
    DataError,
    FindPicture,
    as_stored,
    filled_message,
    is_list,
    joined,
    parse_conversation,
    read_one,
    separate_system,
)

ANSWERS = ("chosen", "rejected")


def parse_record(
    record: object, name: str, folder: Path | None = None, find: FindPicture = as_stored
) -> Conversation:
    """Parse and check a record of any kind: a conversation, or a pair of answers.

    Args and raises are those of `parse_conversation`.
    """
    is_pair = isinstance(record, Mapping) and any(record.get(key) is not None for key in ANSWERS)
    return (parse_preference if is_pair else parse_conversation)(record, name, folder, find)


def parse_preference(
    record: object, name: str, folder: Path | None = None, find: FindPicture = as_stored
) -> Conversation:
    """Parse and check a pair of answers. No picture is opened.

    Args:
        record: The record, as JSON is read.
        name: Where it comes from, for errors.
        folder: Where relative paths of pictures start; None for the current folder.
        find: Finds the pictures that the record names.

    Raises:
        DataError: Something is missing, unknown, too much, of a wrong type or out of its place, or
            the answers are the same.
    """
    try:
        needed = ("messages", *ANSWERS)
        values = read_keys(record, "the record", (*KEYS, *ANSWERS), needed)
        return _Reading(values, name, folder, find).conversation()
    except (ValueError, TypeError) as error:
        raise DataError(f"{name}: {one_line(error)}") from None


class _Reading:
    """The reading of one record."""

    def __init__(
        self, values: Mapping[str, Any], name: str, folder: Path | None, find: FindPicture
    ) -> None:
        self.name, self.folder, self.find = name, folder, find
        self.given = {key: as_list(values[key], key) for key in ("messages", *ANSWERS)}
        if "images" in values:
            self._fill(check_list(values["images"], "images", MAX_PICTURES, "a list of pictures"))

    def _fill(self, images: Sequence[object]) -> None:
        """Let nameless pictures be those of a list, which go through messages and answers."""
        left = list(reversed(images))
        for key, messages in self.given.items():
            labelled = zip(messages, labels(key, len(messages)), strict=True)
            self.given[key] = [filled_message(message, where, left) for message, where in labelled]
        if left:
            raise ValueError(
                f"images has {len(images)} pictures, and the record shows {len(images) - len(left)}"
            )

    def conversation(self) -> Conversation:
        """The prompt with the chosen answer, and the other answer beside it."""
        prompt = self._read("messages")
        check_order([role for role, _, _ in prompt], "messages", "user")
        system, spoken = separate_system(prompt)
        before = tuple(not_learned(turn) for turn in joined(spoken))
        if self.given["chosen"] == self.given["rejected"]:
            raise ValueError("chosen and rejected are the same, so nothing can be learned of them")
        chosen, rejected = (self._answer(key) for key in ANSWERS)
        count = sum(len(turn.pictures) for turn in (*before, chosen, rejected))
        if count > MAX_PICTURES:
            raise ValueError(f"the record has {count} pictures; at most {MAX_PICTURES} are read")
        return Conversation(self.name, system, (*before, chosen), rejected=rejected)

    def _read(self, key: str) -> list[Any]:
        messages = self.given[key]
        labelled = zip(messages, labels(key, len(messages)), strict=True)
        return [read_one(message, where, self.folder, self.find) for message, where in labelled]

    def _answer(self, key: str) -> ConversationTurn:
        """One of the answers.

        Raises:
            ValueError: It is not the assistant's, or nothing of it is learned.
        """
        read = self._read(key)
        other = next((role for role, _, _ in read if role != "assistant"), None)
        if other is not None or not read:
            who = "empty" if other is None else f"of the {other}"
            raise ValueError(f"{key} must be a message of the assistant; it is {who}")
        (turn,) = joined(read)
        if not any(turn.learned):
            raise ValueError(f'{key}: nothing is learned, as all of it has "train": false')
        return turn


def as_list(value: object, key: str) -> Sequence[object]:
    """Messages of a record; one alone may stand without a list.

    Raises:
        TypeError, ValueError: It is no list of messages, or too long a one.
    """
    if key in ANSWERS and not is_list(value):
        return [value]
    return check_list(value, key, MAX_MESSAGES)


def labels(key: str, count: int) -> list[str]:
    """What messages of a record are called in errors."""
    return [key] if key in ANSWERS and count == 1 else [f"{key}[{i}]" for i in range(count)]


def not_learned(turn: ConversationTurn) -> ConversationTurn:
    """A turn of which nothing is learned."""
    return replace(turn, learned=(False,) * len(turn.parts))
