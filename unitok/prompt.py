"""Messages become prompts: token ids, and embeddings that stand in for pictures.

A template is a list of special tokens, texts and pictures. A special token becomes its token id.
Ordinary text never becomes a special token. Neighbouring texts are tokenized together, as in the
reference implementations, because a tokenizer may merge characters of both.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from unitok_engine import Branch, Embeddings
from unitok_tokenizers.text import TextTokenizer

Role = Literal["user", "assistant"]

IMAGES_PER_CALL = 16  # of an image encoder


@dataclass(frozen=True)
class ImageEncoderBatch:
    """Encodes images of one shape together.

    Two encoders are equal if their `encode` is. The engine computes embeddings of equal encoders
    together.

    Attributes:
        encode: Takes pixels [B, 3, S, S] and gives embeddings [B, n, d]; B is bounded by
            `IMAGES_PER_CALL`.
    """

    encode: Callable[[Tensor], Tensor]

    def __call__(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Encode images, given as pixels [3, S, S] each, into embeddings [n, d] each."""
        parts = torch.stack(list(images)).split(IMAGES_PER_CALL)
        return [embeddings for part in parts for embeddings in self.encode(part)]


@dataclass(frozen=True)
class EncodedImage:
    """An image as part of a prompt.

    Attributes:
        segments: Runs of token ids and of embeddings, in order.
    """

    segments: tuple[tuple[int, ...] | Embeddings, ...]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        text: All that is said.
        pictures: All pictures.
        order: The texts and pictures in their order; () for the pictures, then the text.
    """

    role: Role
    text: str
    pictures: tuple[EncodedImage, ...] = ()
    order: tuple[str | EncodedImage, ...] = ()

    @classmethod
    def of(cls, role: Role, parts: Iterable[str | EncodedImage]) -> "Message":
        """A turn of texts and pictures in any order. Neighbouring texts become lines of one."""
        pieces = joined_texts(parts)
        texts = [piece for piece in pieces if isinstance(piece, str)]
        pictures = tuple(piece for piece in pieces if not isinstance(piece, str))
        is_usual = not any(isinstance(piece, str) for piece in pieces[:-1])
        return cls(role, "\n".join(texts), pictures, () if is_usual else pieces)

    @property
    def pieces(self) -> tuple[str | EncodedImage, ...]:
        """The texts and pictures in their order, without empty texts."""
        return self.order or (*self.pictures, *([self.text] if self.text else []))


def joined_texts(parts: Iterable[str | EncodedImage]) -> tuple[str | EncodedImage, ...]:
    """Parts of which neighbouring texts are lines of one text, and empty texts are left out."""
    pieces: list[str | EncodedImage] = []
    for is_text, group in groupby(parts, key=lambda part: isinstance(part, str)):
        if is_text:
            pieces += filter(None, ["\n".join(str(text) for text in group if text)])
        else:
            pieces += group
    return tuple(pieces)


@dataclass
class PromptBuilder:
    """Collects the pieces of a prompt.

    Text waits until something else follows, and is then tokenized in one piece.

    Attributes:
        tokenizer: The text tokenizer of the model.
        token_ids: The token ids so far, with placeholders for embeddings.
        embeddings: The embeddings that replace placeholders.
    """

    tokenizer: TextTokenizer
    token_ids: list[int] = field(default_factory=list)
    embeddings: list[Embeddings] = field(default_factory=list)
    _text: str = ""

    def special(self, token: str) -> "PromptBuilder":
        """Add a special token by its name."""
        return self.id(self.tokenizer.id(token))

    def id(self, id: int) -> "PromptBuilder":
        """Add a token id."""
        self.flush().token_ids.append(id)
        return self

    def text(self, text: str) -> "PromptBuilder":
        """Add ordinary text, in which special tokens are not recognised."""
        self._text += text
        return self

    def picture(self, picture: EncodedImage) -> "PromptBuilder":
        """Add a picture."""
        self.flush()
        for segment in picture.segments:
            if isinstance(segment, Embeddings):
                self.embeddings.append(replace(segment, start=len(self.token_ids)))
                self.token_ids += [segment.placeholder] * segment.length
            else:
                self.token_ids += segment
        return self

    def piece(self, piece: str | EncodedImage) -> "PromptBuilder":
        """Add a piece of a message: ordinary text, or a picture."""
        return self.text(piece) if isinstance(piece, str) else self.picture(piece)

    def flush(self) -> "PromptBuilder":
        """Tokenize the text that has been collected."""
        if self._text:
            self.token_ids += self.tokenizer.encode_plain(self._text)
            self._text = ""
        return self

    def branch(self, weight: float = 1.0) -> Branch:
        """The prompt that was collected, as a branch of a request.

        Args:
            weight: The weight of the branch's logits, as in `unitok_engine.Branch`.
        """
        self.flush()
        return Branch(tuple(self.token_ids), weight, tuple(self.embeddings))
