"""Messages become prompts: token ids, and embeddings that stand in for pictures.

A template is a list of pieces: special tokens, which are trusted and become their ids, ordinary
text, which never does, and pictures. Neighbouring text is tokenized together, as the references
do, because a tokenizer may merge across the seam.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from unitok_engine import Branch, Embeddings
from unitok_tokenizers.text import TextTokenizer

Role = Literal["user", "assistant"]


IMAGES_PER_CALL = 16


@dataclass(frozen=True)
class ImageEncoderBatch:
    """Encodes images of one shape together.

    Two of them are equal if their `encode` is, which tells the engine what to compute together.

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
    """How an image enters a prompt: runs of token ids and of embeddings, in order."""

    segments: tuple[tuple[int, ...] | Embeddings, ...]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        text: What is said.
        pictures: The pictures that stand before the text.
    """

    role: Role
    text: str
    pictures: tuple[EncodedImage, ...] = ()


@dataclass
class PromptBuilder:
    """Collects the pieces of a prompt.

    Text waits until something else follows, and is then tokenized in one piece.

    Attributes:
        tokenizer: The text tokenizer of the model.
        token_ids: What was collected so far.
        embeddings: Those that stand in for some of the token ids.
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
        """Add ordinary text, in which no special token is recognised."""
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

    def flush(self) -> "PromptBuilder":
        """Tokenize the text that waits."""
        if self._text:
            self.token_ids += self.tokenizer.encode_plain(self._text)
            self._text = ""
        return self

    def branch(self, weight: float = 1.0) -> Branch:
        """The prompt that was collected, as a branch of a request.

        Args:
            weight: Of the branch's logits, as in `unitok_engine.Branch`.
        """
        self.flush()
        return Branch(tuple(self.token_ids), weight, tuple(self.embeddings))
