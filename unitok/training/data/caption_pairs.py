"""A picture with a caption as a conversation: one to read the picture, one to paint it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

QUESTION = "Describe the picture."

Way = Literal["read", "paint"]
Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class CaptionPairs:
    """What is made of a picture with a caption.

    Attributes:
        ways: "read": the user shows the picture and asks, and the assistant says the caption.
            "paint": the user says the caption, and the assistant paints the picture.
        question: What the user asks when the picture is read.
    """

    ways: tuple[Way, ...] = ("read", "paint")
    question: str = QUESTION

    def messages(self, way: Way, picture: object, caption: str) -> Messages:
        """The messages of one way. The picture is whatever its part shall name."""
        image = {"type": "image", "image": picture}
        if way == "paint":
            return [message("user", caption), message("assistant", [image])]
        asked = [image, {"type": "text", "text": self.question}]
        return [message("user", asked), message("assistant", caption)]

    def all_messages(self, picture: object, caption: str) -> Iterator[Messages]:
        """The messages of all ways."""
        return (self.messages(way, picture, caption) for way in self.ways)


def message(role: str, content: object) -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": content}
