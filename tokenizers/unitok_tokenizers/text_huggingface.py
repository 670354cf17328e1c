"""Text tokenizers of `tokenizer.json`, over the library tokenizers of Hugging Face.

Source: https://github.com/huggingface/tokenizers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from unitok_tokenizers.bounded_files import parse_json
from unitok_tokenizers.text_backend import (
    BYTE_PIECES,
    markup_ids,
    open_library,
    required_id,
    respell,
)
from unitok_tokenizers.text_bytes import byte_letters, byte_of_piece
from unitok_tokenizers.text_files import FolderSettings
from unitok_tokenizers.text_limits import check_added, check_growth

_BYTE_OF_LETTER = {letter: byte for byte, letter in enumerate(byte_letters())}


class HuggingFaceBackend:
    """A `TextBackend` over the library tokenizers.

    Args:
        content: The content of a `tokenizer.json`.
        settings: What the files beside it say.

    Attributes:
        size: The number of token ids: one more than the largest.
        unsettled: The token ids whose text may change with the ids that follow.

    Raises:
        ValueError: The content cannot be read, or contradicts the settings.
    """

    def __init__(self, content: bytes, settings: FolderSettings):
        document = _read_document(content, settings)
        self._tokenizer = open_library(Tokenizer.from_buffer, content)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if isinstance(self._tokenizer.model, BPE):
            self._tokenizer.model.dropout = None  # of use in training: merges left out at random
        self._check_ids({t["id"]: t["content"] for t in document.get("added_tokens", [])})
        self._add(settings)
        if settings.is_llama and settings.bos:
            self._tokenizer.post_processor = self._llama_template(settings)

        added = self._tokenizer.get_added_tokens_decoder()
        markup = markup_ids(added, settings.special)
        self._plain_tokenizer = self._without_specials(added, markup)
        unknown = {self._unknown_id(document["model"])}
        self._forbidden = markup - unknown
        self._no_text = markup | unknown
        self._decoders = _decoders(document)
        vocabulary = document["model"]["vocab"]  # In a list of pieces, the index is the id.
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        self.size = max(0, *ids, *added) + 1
        # For one broken byte, this step breaks the whole run of bytes around it.
        breaks_runs = "ByteFallback" in self._decoders
        self.unsettled = self._byte_ids() if breaks_runs else frozenset[int]()

    def encode(self, text: str, add_special: bool) -> list[int]:
        """Encode trusted text, as `TextTokenizer.encode` does."""
        return self._tokenizer.encode(text, add_special_tokens=add_special).ids

    def encode_plain(self, text: str) -> list[int]:
        """Encode a user's text, as `TextTokenizer.encode_plain` does."""
        ids = self._plain_tokenizer.encode(text, add_special_tokens=False).ids
        return respell(ids, self._forbidden, self._spell)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Decode token ids, as `TextTokenizer.decode` does."""
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special)

    def find(self, token: str) -> int | None:
        """Find the id of a token by its string; None if there is none."""
        return self._tokenizer.token_to_id(token)

    def vocabulary(self) -> dict[str, int]:
        """List all tokens, as `TextTokenizer.vocabulary` does."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def token_bytes(self) -> list[bytes]:
        """List the bytes of all tokens, as `TextTokenizer.token_bytes` does."""
        found = [b""] * self.size
        for piece, i in self.vocabulary().items():
            if i not in self._no_text:
                found[i] = self._bytes(piece)
        return found

    def _bytes(self, piece: str) -> bytes:
        if "ByteLevel" in self._decoders:
            spelt = [_BYTE_OF_LETTER.get(letter) for letter in piece]
            whole = bytes(byte for byte in spelt if byte is not None)
            return whole if len(whole) == len(spelt) else piece.encode()
        single = byte_of_piece(piece) if "ByteFallback" in self._decoders else None
        if single is not None:
            return single
        if self._tokenizer.decoder is None:
            raise ValueError("the text tokenizer has no decoder, which joins tokens to a text")
        # Behind another piece, as decoders may drop what stands at the beginning.
        return self._tokenizer.decoder.decode(["x", piece]).removeprefix("x").encode()

    def _add(self, settings: FolderSettings) -> None:
        """Add the tokens that the file lacks, and change the flags of those that it has."""
        added = self._tokenizer.get_added_tokens_decoder()
        here = {token.content for token in added.values()}
        new = {i: token for i, token in settings.unflagged.items() if token.content not in here}
        new |= settings.added
        self._tokenizer.add_tokens([new[i] for i in sorted(new)])
        self._check_ids({i: t.content for i, t in [*settings.unflagged.items(), *new.items()]})
        named = settings.special - here - {token.content for token in new.values()}
        words = [name for name in sorted(named) if self.find(name) is not None]
        self._tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in words])

    def _check_ids(self, wanted: Mapping[int, str]) -> None:
        """Check ids, as the library numbers added tokens itself, silently, whatever a file says."""
        for i, token in wanted.items():
            if (found := self.find(token)) != i:
                raise ValueError(f"gives {token!r} the id {found}, where a file asks for {i}")

    def _without_specials(self, added: Mapping[int, AddedToken], markup: set[int]) -> Tokenizer:
        """The same vocabulary, in which special tokens are not found in a text.

        Some files do not flag their markup as special, and the switch below spares only what is.
        Other added tokens may be ordinary letters, and must stay.
        """
        plain = Tokenizer(self._tokenizer.model)
        for step in ("normalizer", "pre_tokenizer"):
            if (same := getattr(self._tokenizer, step)) is not None:
                setattr(plain, step, same)
        for i, token in added.items():
            token.special = i in markup
        plain.add_tokens([added[i] for i in sorted(added)])
        plain.encode_special_tokens = True
        return plain

    def _llama_template(self, settings: FolderSettings) -> TemplateProcessing:
        """BOS and EOS as transformers 4 adds them for Llama's class, whatever the file says.

        DeepSeek's files rely on it, as their own post-processor adds no BOS (issue 161 of
        huggingface/swift-transformers). transformers 5 adds none either.
        """
        before = [settings.bos] if settings.bos and settings.add_bos else []
        after = [settings.eos] if settings.eos and settings.add_eos else []
        ids = [(token, required_id(self, token)) for token in before + after]
        return TemplateProcessing(single=[*before, "$A", *after], special_tokens=ids)

    def _unknown_id(self, model: Mapping[str, Any]) -> int | None:
        """The id of what is in no vocabulary, which a user's text may well hold."""
        named = model.get("unk_token")
        return self.find(named) if named else model.get("unk_id")

    def _spell(self, i: int) -> list[int]:
        """The ids of the characters of a token."""
        piece = self._plain_tokenizer.id_to_token(i) or ""
        model = self._plain_tokenizer.model
        return [token.id for char in piece for token in model.tokenize(char)]

    def _byte_ids(self) -> frozenset[int]:
        return frozenset(i for piece in BYTE_PIECES if (i := self.find(piece)) is not None)


def _read_document(content: bytes, settings: FolderSettings) -> dict[str, Any]:
    """The content of a tokenizer.json, checked before the library makes anything of it.

    Raises:
        ValueError: It is no JSON object, or beyond a limit of `text_limits`.
    """
    document = open_library(parse_json, content)
    if not isinstance(document, dict):
        raise ValueError("holds no JSON object")
    check_growth(document)
    beside = (*settings.added.values(), *settings.unflagged.values())
    check_added([*_listed_tokens(document), *(token.content for token in beside)])
    return document


def _listed_tokens(document: Mapping[str, Any]) -> list[str]:
    """The added tokens that a document lists. The library checks that the list is well formed."""
    listed = document.get("added_tokens")
    tokens: list[Any] = listed if isinstance(listed, list) else []
    return [
        str(token["content"]) for token in tokens if isinstance(token, dict) and "content" in token
    ]


def _decoders(document: Mapping[str, Any]) -> frozenset[str]:
    """The types of the steps that make text of tokens."""
    decoder = document.get("decoder") or {}
    return frozenset(d["type"] for d in decoder.get("decoders", [decoder]) if d)
