"""Messages -> lines of ids with slots for pictures.

A template is a list of pieces: special tokens, which are trusted and become their ids, ordinary
text, which never does, and pictures. Neighbouring text is tokenized together, as the references
do, because a tokenizer may merge across the seam.
"""

from dataclasses import dataclass, field
from typing import Literal

from unitok_tokenizers.text import TextTokenizer

Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn: its text, and how many pictures stand before the text."""

    role: Role
    text: str
    pictures: int = 0


@dataclass(frozen=True)
class Line:
    """Ids, and where each picture's placeholders begin."""

    ids: tuple[int, ...]
    slots: tuple[int, ...] = ()


@dataclass
class LineBuilder:
    """Collects pieces; text waits until something else follows, then is tokenized at once."""

    tokenizer: TextTokenizer
    ids: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    _text: str = ""

    def special(self, token: str) -> "LineBuilder":
        self.flush().ids.append(self.tokenizer.id(token))
        return self

    def text(self, text: str) -> "LineBuilder":
        self._text += text
        return self

    def picture(self, begin: str, placeholder: str, end: str, length: int) -> "LineBuilder":
        self.special(begin)
        self.slots.append(len(self.ids))
        self.ids += [self.tokenizer.id(placeholder)] * length
        return self.special(end)

    def flush(self) -> "LineBuilder":
        if self._text:
            self.ids += self.tokenizer.encode_plain(self._text)
            self._text = ""
        return self

    def line(self) -> Line:
        self.flush()
        return Line(tuple(self.ids), tuple(self.slots))
