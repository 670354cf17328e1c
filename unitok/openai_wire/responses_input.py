"""What a response is made of: items, which are messages and pictures that were drawn.

Items come from the body's "input", and from the responses that a conversation went on from. An item
is never changed, so that the responses of a conversation share them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unitok.messages import MAX_MESSAGES, check_list, read_message
from unitok.openai_wire.body import WireError, check_known, given_keys, take_text
from unitok.strict_json import JsonObject, shown_json

NAME = "input"
MESSAGE_KEYS = ("type", "role", "content", "id", "status", "phase")
TEXTS = ("input_text", "output_text")
TEXT_KEYS = ("type", "text", "annotations", "logprobs")
CALL = "image_generation_call"
CALL_KEYS = (
    *("type", "id", "status", "result", "revised_prompt", "action", "background", "output_format"),
    *("quality", "size", "seed", "error"),
)
REFERENCE = "item_reference"
CALL_PICTURE = "data:image/png;base64,"  # its content shows the format, not this name
OVERHEAD = 200  # bytes of a value of JSON in memory, about
_PLACE = re.compile(rf"{NAME}[\w.\[\]]*")


@dataclass(frozen=True, eq=False)
class Item:
    """An item of a conversation.

    Attributes:
        id: Its id, which no other item has.
        body: What the server tells of it, but for a picture that was drawn.
        fetched: The bytes of its pictures that came by their address or as a file, by the number of
            the part.
        place: Where it was given in the body; "" for one of an earlier response.
        drawn: The picture that was drawn, as a data URL; None for a message.
    """

    id: str
    body: JsonObject
    fetched: Mapping[int, bytes] = field(default_factory=dict)
    place: str = ""
    drawn: str | None = None

    @classmethod
    def of(cls, told: JsonObject, place: str = "") -> Item:
        """The item of what the server tells of it: a message of text, or a picture that was drawn.

        Args:
            told: What the server tells.
            place: Where it was given in the body.
        """
        if told["type"] != CALL:
            return cls(told["id"], told, place=place)
        body = {name: value for name, value in told.items() if name != "result"}
        return cls(told["id"], body, place=place, drawn=CALL_PICTURE + told["result"])

    @property
    def told(self) -> JsonObject:
        """What the server tells of it."""
        if self.drawn is None:
            return self.body
        return {**self.body, "result": self.drawn.removeprefix(CALL_PICTURE)}

    @property
    def role(self) -> str:
        """Who speaks."""
        return self.body.get("role", "assistant")

    @property
    def message(self) -> JsonObject:
        """The item in the form that `unitok.messages` explains. It has no copy of a picture."""
        if self.drawn is not None:
            parts = [{"type": "input_image", "image_url": self.drawn}]
            return {"role": self.role, "content": parts}
        parts = [
            {"type": "image", "image": self.fetched[number]}
            if number in self.fetched
            else {name: value for name, value in part.items() if name not in TEXT_KEYS[2:]}
            for number, part in enumerate(self.body["content"])
        ]
        return {"role": self.role, "content": parts}

    @property
    def size(self) -> int:
        """Its bytes in memory, about."""
        return size_of(self.body) + len(self.drawn or "") + sum(map(len, self.fetched.values()))


def read_input(body: object) -> list[Any]:
    """The items of a body's input, which are not checked yet. A text is a message of the user.

    Raises:
        WireError: It is missing, or neither text nor a list.
    """
    value = given_keys(body, '"body"').get(NAME)
    if value is None:
        raise WireError(f'"{NAME}" is missing', NAME)
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    try:
        given = check_list(value, f'"{NAME}"', MAX_MESSAGES, "text or a list of items")
    except (ValueError, TypeError) as error:
        raise WireError(str(error), NAME) from None
    if not given:
        raise WireError(f'"{NAME}" is empty', NAME)
    return list(given)


def read_items(
    given: Sequence[object],
    opened: Sequence[object],
    new_id: Callable[[str], str],
    find: Callable[[str, str], Item],
) -> list[Item]:
    """The items of a body's input, checked. No picture is opened.

    Args:
        given: What `read_input` gave.
        opened: The same, in which pictures that came by their address or as a file are bytes.
        new_id: Gives the id of a new item, for its prefix.
        find: An earlier item, by its id and the place where it is named.

    Raises:
        WireError: An item is wrong or unknown.
    """
    items = []
    for number, (value, with_bytes) in enumerate(zip(given, opened, strict=True)):
        place = f"{NAME}[{number}]"
        keys = given_keys(value, place, place)
        kind = keys.get("type", "message")
        if kind == "message":
            items.append(_message(keys, with_bytes, place, new_id("msg")))
        elif kind == REFERENCE or (kind == CALL and "result" not in keys):
            check_known(keys, CALL_KEYS if kind == CALL else ("type", "id"), f"{place}.")
            found = find(take_text(keys, "id", f"{place}."), f"{place}.id")
            items.append(replace(found, place=place))
        elif kind == CALL:
            items.append(_call(keys, place, new_id("ig")))
        else:
            known = f'"message", "{CALL}" or "{REFERENCE}"'
            told = f"{place}.type must be {known}, not {shown_json(kind)}"
            raise WireError(told, f"{place}.type")
    return items


def _message(keys: JsonObject, with_bytes: Any, place: str, id: str) -> Item:
    check_known(keys, MESSAGE_KEYS, f"{place}.")
    content = keys.get("content")
    role = take_text(keys, "role", f"{place}.")
    if isinstance(content, str):
        content = [{"type": TEXTS[role == "assistant"], "text": content}]
    fetched: dict[int, bytes] = {}
    if isinstance(content, list):
        for number, part in enumerate(content):
            _check_part(part, f"{place}.content[{number}]")
        if isinstance(with_bytes["content"], list):
            fetched = {
                number: part["image"]
                for number, part in enumerate(with_bytes["content"])
                if part["type"] == "image"
            }
        content = [given_keys(part, place) for part in content]
    body = {"id": id, "type": "message", "role": role, "status": "completed", "content": content}
    item = Item(id, body, fetched, place)
    try:
        read_message(
            item.message if isinstance(content, list) else {"role": role, "content": content},
            place,
            None,
        )
    except (ValueError, TypeError) as error:
        found = _PLACE.match(str(error))
        raise WireError(str(error), found[0] if found else place) from None
    return item


def _check_part(part: object, place: str) -> None:
    """Refuse a part that is of no kind of this API."""
    keys = given_keys(part, place, place)
    kind = take_text(keys, "type", f"{place}.")
    if kind in TEXTS:
        check_known(keys, TEXT_KEYS, f"{place}.")
    elif kind != "input_image":
        known = '"input_text", "output_text" or "input_image"'
        raise WireError(f"{place}.type must be {known}, not {shown_json(kind)}", f"{place}.type")


def _call(keys: JsonObject, place: str, id: str) -> Item:
    """A picture that was drawn, given again by a client that keeps conversations itself."""
    check_known(keys, CALL_KEYS, f"{place}.")
    take_text(keys, "result", f"{place}.")
    return Item.of({**keys, "id": id, "status": "completed"}, place)


def size_of(value: object) -> int:
    """The bytes of a JSON value in memory, about."""
    if isinstance(value, Mapping):
        return OVERHEAD + sum(size_of(k) + size_of(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return OVERHEAD + sum(map(size_of, value))
    return OVERHEAD + (len(value) if isinstance(value, str) else 0)
