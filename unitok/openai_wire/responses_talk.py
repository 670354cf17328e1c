"""The conversation of a response's items, in the form that models take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unitok.messages import ParsedMessages, ParsedTurn, parse_messages
from unitok.openai_wire.body import WireError
from unitok.openai_wire.responses_input import NAME, Item
from unitok.picture_sources import Refused
from unitok.pictures import PictureLike
from unitok.strict_json import JsonObject

_NUMBERED = re.compile(r"messages\[(\d+)\]([\w.\[\]]*)")


@dataclass(frozen=True)
class Talk:
    """A conversation that is to be gone on with.

    Attributes:
        messages: In the form that `unitok.messages` explains.
        places: Where each message was given in the body; "" for one of an earlier response.
        parsed: The messages, of which no picture is opened.
    """

    messages: Sequence[JsonObject]
    places: Sequence[str]
    parsed: ParsedMessages

    @classmethod
    def of(cls, items: Sequence[Item], instructions: str | None) -> Talk:
        """The conversation of items.

        Args:
            items: All of them. What systems and developers say stands at the beginning.
            instructions: What the system says before that; None for nothing.

        Raises:
            WireError: The order is wrong, or there is too much.
        """
        count = next((i for i, item in enumerate(items) if not is_system(item)), len(items))
        texts = [] if instructions is None else [instructions]
        texts += [part["text"] for item in items[:count] for part in item.message["content"]]
        messages = [{"role": "system", "content": "\n".join(texts)}] if texts else []
        places = ["instructions"] if texts else []
        messages += [item.message for item in items[count:]]
        places += [item.place for item in items[count:]]
        try:
            parsed = parse_messages(messages)
        except (ValueError, TypeError) as error:
            raise placed(str(error), places) from None
        return cls(messages, places, parsed)

    @property
    def last(self) -> ParsedTurn:
        """What the user said last."""
        return self.parsed.turns[-1]

    @property
    def text(self) -> str:
        """Its text."""
        return "\n".join(part for part in self.last.parts if isinstance(part, str))

    @property
    def shown(self) -> list[PictureLike]:
        """The pictures that the user showed with it."""
        return [part.source for part in self.last.parts if not isinstance(part, str)]

    @property
    def pictures(self) -> list[PictureLike]:
        """All pictures of the conversation, in their order."""
        return [picture.source for picture in self.parsed.pictures]

    def broken(self) -> Refused | None:
        """Why the first picture that cannot be read cannot; None if all can."""
        for picture in self.parsed.pictures:
            try:
                picture.open()
            except Refused as error:
                return error
        return None


def is_system(item: Item) -> bool:
    """Whether an item tells the model how to answer."""
    return item.role in ("system", "developer")


def placed(message: str, places: Sequence[str], code: str | None = None) -> WireError:
    """An error of messages, as one of the body that they were made of.

    Args:
        message: What is wrong, which may begin with a place such as "messages[2].content[0]".
        places: Where each message was given in the body; "" for one of an earlier response.
        code: A word for programs, if there is one.
    """
    found = _NUMBERED.match(message)
    if found is None:
        return WireError(message.replace("messages", NAME, 1), NAME, code)
    place, rest = places[int(found[1])], message[found.end() :]
    if not place:
        told = f"a message of an earlier response{rest}"
        return WireError(told, "previous_response_id", code)
    return WireError(f"{place}{found[2]}{rest}", place + found[2], code)
