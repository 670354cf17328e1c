"""Messages -> lines of ids with features for pictures.

A template is a list of pieces: special tokens, which are trusted and become their ids, ordinary
text, which never does, and pictures. Neighbouring text is tokenized together, as the references
do, because a tokenizer may merge across the seam.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from unitok_engine import Features
from unitok_tokenizers.text import TextTokenizer

Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class Vectors:
    """A stretch of a line that is no ids but vectors; `placeholder` holds its places.

    `compute` gives [length, d], when a prefill first needs it; equal digests mean equal vectors.
    `compute_many`, if there is one, gives those of several payloads: stretches that a step needs
    and that have the same function are computed in one call of it.
    """

    placeholder: int
    length: int
    digest: str
    compute: Callable[[], Tensor]
    payload: Any = None
    compute_many: Callable[[Sequence[Any]], Sequence[Tensor]] | None = None


PICTURES_A_CALL = 16


@dataclass(frozen=True)
class Reader:
    """Reads pictures of one shape together; `read` takes pixels [B, 3, S, S], B bounded.

    Readers with the same `read` are equal, so that the engine knows what to compute together.
    """

    read: Callable[[Tensor], Tensor]

    def __call__(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        """Pixels [3, S, S] of each -> features [n, d] of each."""
        parts = torch.stack(list(pictures)).split(PICTURES_A_CALL)
        return [features for part in parts for features in self.read(part)]


@dataclass(frozen=True)
class ReadPicture:
    """How a picture that is read enters a line: stretches of ids and of vectors, in order."""

    segments: tuple[tuple[int, ...] | Vectors, ...]


@dataclass(frozen=True)
class Message:
    """One turn: its text, and the pictures that stand before the text."""

    role: Role
    text: str
    pictures: tuple[ReadPicture, ...] = ()


@dataclass(frozen=True)
class Line:
    """Ids, and the features that stand in for some of them."""

    ids: tuple[int, ...]
    features: tuple[Features, ...] = ()


@dataclass
class LineBuilder:
    """Collects pieces; text waits until something else follows, then is tokenized at once."""

    tokenizer: TextTokenizer
    ids: list[int] = field(default_factory=list)
    features: list[Features] = field(default_factory=list)
    _text: str = ""

    def special(self, token: str) -> "LineBuilder":
        return self.id(self.tokenizer.id(token))

    def id(self, id: int) -> "LineBuilder":
        self.flush().ids.append(id)
        return self

    def text(self, text: str) -> "LineBuilder":
        self._text += text
        return self

    def picture(self, picture: ReadPicture) -> "LineBuilder":
        self.flush()
        for segment in picture.segments:
            if isinstance(segment, Vectors):
                s, where = segment, (len(self.ids), segment.length)
                features = Features(*where, s.digest, s.compute, s.payload, s.compute_many)
                self.features.append(features)
                self.ids += [segment.placeholder] * segment.length
            else:
                self.ids += segment
        return self

    def flush(self) -> "LineBuilder":
        if self._text:
            self.ids += self.tokenizer.encode_plain(self._text)
            self._text = ""
        return self

    def line(self) -> Line:
        self.flush()
        return Line(tuple(self.ids), tuple(self.features))
