"""Text tokenizers: text to token ids and back, for all families of models.

They read Hugging Face's `tokenizer.json` and sentencepiece's `tokenizer.model`. Token ids are those
of the code that checkpoints were trained with: those of the library tokenizers for a
`tokenizer.json`, and those of sentencepiece itself for a `tokenizer.model`. transformers 5 rebuilds
the second kind, and thereby loses spaces before the first word and ids that the files give.
"""

from collections.abc import Sequence
from pathlib import Path

from unitok_tokenizers.bounded_files import read_file
from unitok_tokenizers.detokenizer import Detokenizer
from unitok_tokenizers.text_backend import TextBackend
from unitok_tokenizers.text_files import FolderSettings, locate, read_settings
from unitok_tokenizers.text_huggingface import HuggingFaceBackend
from unitok_tokenizers.text_sentencepiece import SentencePieceBackend


class TextTokenizer:
    """A text tokenizer. Make one with `load`.

    Trusted text, such as a prompt template, goes through `encode`; what a user wrote goes through
    `encode_plain`.

    Args:
        backend: The tokenizer over its library.
        without_id: Special tokens that a file names and no file gives an id.
    """

    def __init__(self, backend: TextBackend, without_id: Sequence[str] = ()):
        self._backend = backend
        self._without_id = without_id

    @classmethod
    def load(cls, path: str | Path) -> "TextTokenizer":
        """Load a tokenizer from a file or a folder.

        Args:
            path: A `.json` or `.model` file by itself, or a folder that holds `tokenizer.json` or
                else `tokenizer.model`. From a folder, the added and special tokens of
                `tokenizer_config.json`, `added_tokens.json` and `special_tokens_map.json` are read
                too.

        Raises:
            FileNotFoundError: There is no tokenizer.
            ValueError: A file cannot be read or is beyond a limit (docs/security.md), or two files
                contradict each other.
        """
        path = Path(path)
        file = locate(path)
        backend_type = HuggingFaceBackend if file.suffix == ".json" else SentencePieceBackend
        settings = read_settings(path) if path.is_dir() else FolderSettings()
        content = read_file(file)
        try:
            backend = backend_type(content, settings)
        except ValueError as error:
            raise ValueError(f"{file} {error}") from error
        return cls(backend, [t for t in sorted(settings.special) if backend.find(t) is None])

    @property
    def size(self) -> int:
        """The number of token ids: one more than the largest."""
        return self._backend.size

    def encode(self, text: str, add_special: bool) -> list[int]:
        """Encode trusted text: special strings in it become their token ids.

        Args:
            text: The text.
            add_special: Whether to begin and end as the tokenizer's files ask, most often with BOS
                alone.

        Raises:
            ValueError: The text is not valid Unicode, or holds a special string that no file gives
                an id.
        """
        for token in self._without_id:
            if token in text:
                raise ValueError(f"no file gives {token!r} an id: add it to added_tokens.json")
        return self._backend.encode(_valid(text), add_special)

    def encode_plain(self, text: str) -> list[int]:
        """Encode a user's text: nothing in it becomes a special id, and nothing is added.

        Raises:
            ValueError: The text is not valid Unicode.
        """
        return self._backend.encode_plain(_valid(text))

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Decode token ids into text.

        Args:
            ids: The token ids. An id of no token gives no text.
            skip_special: Whether special tokens give no text.

        Returns:
            The text, where bytes that are no character become U+FFFD.
        """
        return self._backend.decode(ids, skip_special)

    def id(self, token: str) -> int:
        """Find the id of a token by its string.

        Raises:
            ValueError: There is no such token.
        """
        found = self._backend.find(token)
        if found is None:
            raise ValueError(f"the text tokenizer has no token {token!r}")
        return found

    def vocabulary(self) -> dict[str, int]:
        """List all tokens by their strings, spelt as the files spell them, with their ids."""
        return self._backend.vocabulary()

    def token_bytes(self) -> list[bytes]:
        """List the bytes that each token id adds to a text behind other tokens, as UTF-8.

        Returns:
            The bytes by id. There are none for special and unknown tokens, and for ids of no token.

        Raises:
            ValueError: The tokenizer's file does not say how tokens are joined to a text.
        """
        return self._backend.token_bytes()

    def stream(self, skip_special: bool = True) -> Detokenizer:
        """Make a decoder for token ids that come a few at a time.

        Args:
            skip_special: Whether special tokens give no text.
        """
        return Detokenizer(self._backend, skip_special)


def _valid(text: str) -> str:
    """The text, if it can be written as UTF-8; a broken command line may hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text is not valid Unicode at character {error.start}") from None
    return text
