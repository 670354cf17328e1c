"""Refuses a text that cannot fit the context, without tokenizing all of it.

To tokenize millions of characters takes many seconds and gigabytes. No number of characters says
that a text is too long: tokenizers may drop spaces, normalize several characters to one, or take a
run of unknown ones as one token. So a long text is tokenized piece by piece, until its tokens are
certainly too many.
"""

from typing import Protocol

CHARACTERS = 4  # of a piece, for each token of the context
MARGIN = 2  # how many times too many a text's tokens must be to be refused here


class ContextFullError(ValueError):
    """A prompt, with what follows it, does not fit into the context.

    Attributes:
        tokens: What the prompt takes.
        needed: How many more are needed.
        limit: The size of the context.
    """

    def __init__(self, tokens: int, needed: int, limit: int) -> None:
        """Say so, with the numbers."""
        self.tokens, self.needed, self.limit = tokens, needed, limit
        super().__init__(
            f"the prompt takes {self.taken} and needs {needed:,} more; the context holds "
            f"{limit:,}: shorten it, or take a smaller picture"
        )

    @property
    def taken(self) -> str:
        """What the prompt takes, in words."""
        return f"{self.tokens:,} tokens"


class TextTooLongError(ContextFullError):
    """A text is far too long for the context, so that not all of it was tokenized.

    Attributes:
        tokens: What the beginning of the text takes.
    """

    def __init__(self, characters: int, tokenized: int, tokens: int, limit: int) -> None:
        """Say so, with the numbers.

        Args:
            characters: The length of the text.
            tokenized: The length of its beginning, which was tokenized.
            tokens: What the beginning takes.
            limit: The size of the context.
        """
        super().__init__(tokens, 1, limit)
        self.args = (
            f"the prompt has {characters:,} characters, and the first {tokenized:,} of them take "
            f"{tokens:,} tokens; the context holds {limit:,}: shorten it",
        )

    @property
    def taken(self) -> str:
        """What the text takes, in words."""
        return f"more than {self.tokens:,} tokens"


class PlainTokenizer(Protocol):
    """What is needed of a text tokenizer."""

    def encode_plain(self, text: str, /) -> list[int]:
        """Encode a user's text."""
        ...


def check_length(text: str, tokenizer: PlainTokenizer, context: int) -> None:
    """Check that a text is not far too long for the context. Whether it fits is counted later.

    A text of a few characters for each token of the context is not looked at. In a longer one,
    tokens that a cut between two pieces parts count twice. There is at most one cut in thousands of
    characters, and a text is refused only for twice the tokens of the context, so that one that
    fits is never refused. Blanks at the ends do not count, as templates drop them.

    Args:
        text: What a user wrote.
        tokenizer: The model's.
        context: The most tokens of a prompt and what follows it.

    Raises:
        TextTooLongError: The text is too long.
    """
    size = CHARACTERS * context
    if len(text) <= size:
        return
    text, tokens = text.strip(), 0
    for start in range(0, len(text), size):
        piece = text[start : start + size]
        tokens += len(tokenizer.encode_plain(piece))
        if tokens > MARGIN * context:
            raise TextTooLongError(len(text), start + len(piece), tokens, context)
