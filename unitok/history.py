"""What was said in a chat: messages that keep their pictures, and which of them are dropped."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from unitok.prompt import EncodedImage, Message, Role
from unitok.results import Dropped

PNG_URI = "data:image/png;base64,"


@dataclass(frozen=True)
class Said:
    """A message of a chat.

    Attributes:
        message: As the model reads it.
        files: Its pictures as PNG files, which take less memory than pixels.
    """

    message: Message
    files: tuple[bytes, ...] = ()

    @classmethod
    def of(
        cls,
        role: Role,
        parts: Iterable[str | Image.Image],
        encode: Callable[[Image.Image], EncodedImage],
    ) -> Said:
        """A message of texts and RGB pictures in their order.

        Args:
            role: Who speaks.
            parts: The texts and pictures, which are taken one by one.
            encode: How a picture enters a prompt.
        """
        encoded: list[str | EncodedImage] = []
        files: list[bytes] = []
        for part in parts:
            if isinstance(part, str):
                encoded.append(part)
            else:
                encoded.append(encode(part))
                files.append(to_png(part))
        return cls(Message.of(role, encoded), tuple(files))

    def to_json(self) -> dict[str, Any]:
        """The message in the form that `unitok.messages` explains, with PNG in data URIs."""
        if not self.files:
            return {"role": self.message.role, "content": self.message.text}
        files = iter(self.files)
        parts = [
            text_part(piece) if isinstance(piece, str) else picture_part(next(files))
            for piece in self.message.pieces
        ]
        return {"role": self.message.role, "content": parts}

    def without_pictures(self) -> Said:
        """The message's text alone."""
        return Said(Message(self.message.role, self.message.text))


# Messages of the user and of the assistant by turns: an exchange is two of them.
History = Sequence[Said]


def without_oldest(history: History) -> History:
    """A history without its oldest pictures; one without pictures loses its oldest exchange.

    An exchange of which nothing but pictures would be asked or answered, such as a drawing, is left
    out as a whole.
    """
    for i in range(0, len(history), 2):
        exchange = history[i : i + 2]
        if any(said.files for said in exchange):
            rest = [said.without_pictures() for said in exchange]
            kept = rest if all(said.message.text for said in rest) else []
            return [*history[:i], *kept, *history[i + 2 :]]
    return history[2:]


def shortened(history: History) -> Iterator[History]:
    """Histories of which each has lost more of its oldest part; the last one is empty."""
    while history:
        history = without_oldest(history)
        yield history


def what_dropped(before: History, after: History) -> Dropped | None:
    """How much a history has lost; None if it is whole."""
    if len(before) == len(after) and pictures_of(before) == pictures_of(after):
        return None
    exchanges = (len(before) - len(after)) // 2
    return Dropped(pictures_of(before) - pictures_of(after), exchanges)


def pictures_of(history: History) -> int:
    """The number of pictures in a history."""
    return sum(len(said.files) for said in history)


def to_png(image: Image.Image) -> bytes:
    """An RGB picture as a PNG file that holds pixels only."""
    file = BytesIO()
    Image.Image.save(image, file, "PNG", compress_level=1, icc_profile=None)
    return file.getvalue()


def text_part(text: str) -> dict[str, Any]:
    """A text as a part of a message."""
    return {"type": "text", "text": text}


def picture_part(png: bytes) -> dict[str, Any]:
    """A picture as a part of a message."""
    url = PNG_URI + base64.b64encode(png).decode("ascii")
    return {"type": "image_url", "image_url": {"url": url}}
