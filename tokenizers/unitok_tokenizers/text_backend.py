"""What the libraries behind a text tokenizer have in common.

Text comes in two kinds. A prompt template is trusted: a special string such as `<|User|>` in it is
meant, and becomes its token id. What a user wrote is not trusted: there the same string stays
ordinary characters, or a prompt could close its own turn and speak for the model.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from tokenizers import AddedToken

MARKUP = re.compile(r"<.+>|\[.+\]", re.DOTALL)
# The pieces that both libraries fall back to for a character that is in no vocabulary.
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))

Opened = TypeVar("Opened")

LONGEST_REASON = 200
"""Characters of a library's own message, which may quote the file at length."""


class TextBackend(Protocol):
    """A text tokenizer over one library.

    Attributes:
        size: The number of token ids: one more than the largest.
        unsettled: The token ids whose text may change with the ids that follow.
    """

    size: int
    unsettled: frozenset[int]

    def encode(self, text: str, add_special: bool) -> list[int]:
        """Encode trusted text, as `TextTokenizer.encode` does."""
        ...

    def encode_plain(self, text: str) -> list[int]:
        """Encode a user's text, as `TextTokenizer.encode_plain` does."""
        ...

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Decode token ids, as `TextTokenizer.decode` does."""
        ...

    def find(self, token: str) -> int | None:
        """Find the id of a token by its string; None if there is none."""
        ...

    def vocabulary(self) -> dict[str, int]:
        """List all tokens, as `TextTokenizer.vocabulary` does."""
        ...

    def token_bytes(self) -> list[bytes]:
        """List the bytes of all tokens, as `TextTokenizer.token_bytes` does."""
        ...


def open_library(library: Callable[[bytes], Opened], content: bytes) -> Opened:
    """Open the content of a tokenizer file with a library.

    Raises:
        ValueError: The library cannot read the content.
    """
    try:
        return library(content)
    except Exception as error:  # Both libraries raise bare Exceptions for a broken file.
        reason = str(error)
        short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]} ..."
        raise ValueError(f"is not a readable tokenizer: {short}") from error


def required_id(backend: TextBackend, token: str) -> int:
    """Find the id of a token that tokenizer_config.json puts around each text.

    Raises:
        ValueError: The tokenizer has no such token.
    """
    found = backend.find(token)
    if found is None:
        raise ValueError(f"has no {token!r}, which tokenizer_config.json puts around each text")
    return found


def markup_ids(tokens: Mapping[int, AddedToken], special: frozenset[str]) -> set[int]:
    """Find the ids of the tokens that a user's text must not become.

    Args:
        tokens: Added tokens by their ids.
        special: The strings that a file names special.
    """
    return {
        i
        for i, token in tokens.items()
        if token.special or token.content in special or MARKUP.fullmatch(token.content)
    }


def respell(ids: list[int], forbidden: set[int], spell: Callable[[int], list[int]]) -> list[int]:
    """Replace forbidden token ids, as some models find special strings by themselves.

    Args:
        ids: The token ids of a user's text.
        forbidden: The ids to replace.
        spell: Gives the ids of the characters of a token.
    """
    if forbidden.isdisjoint(ids):
        return ids
    return [part for i in ids for part in (spell(i) if i in forbidden else [i])]
