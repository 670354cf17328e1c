"""Text tokenizers of `tokenizer.model`, over the library sentencepiece.

Source: https://github.com/google/sentencepiece.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken

from unitok_tokenizers.text_backend import (
    BYTE_PIECES,
    MARKUP,
    markup_ids,
    open_library,
    required_id,
    respell,
)
from unitok_tokenizers.text_bytes import byte_of_piece
from unitok_tokenizers.text_files import FolderSettings
from unitok_tokenizers.text_limits import check_added

# Python takes four more control characters for spaces than Unicode does.
SPACES = r"[^\S\x1c-\x1f]*"

BLANK = "\u2581"  # what pieces have for a space

# Protocol buffers merge messages that are written one after the other. This one sets
# ModelProto.normalizer_spec.add_dummy_prefix = false (sentencepiece_model.proto: fields 3 and 3).
NO_DUMMY_PREFIX = bytes([0x1A, 2, 0x18, 0])


class SentencePieceBackend:
    """A `TextBackend` over the library sentencepiece, which makes no control id from any text.

    `encode` finds control strings and added tokens. Each run of text between them is encoded on its
    own, and so with a space before its first word, as in the code that Meta gave with Llama, where
    each turn is encoded by itself. `legacy: false` leaves that space to the first run.

    Args:
        content: The content of a `tokenizer.model`.
        settings: What the files beside it say.

    Attributes:
        size: The number of token ids: one more than the largest.
        unsettled: Empty, as no token id changes the text of those before it.

    Raises:
        ValueError: The content cannot be read, or contradicts the settings.
    """

    unsettled: frozenset[int] = frozenset()

    def __init__(self, content: bytes, settings: FolderSettings):
        self._model = open_library(_read_model, content)
        self._pieces = [self._model.IdToPiece(i) for i in range(self._model.GetPieceSize())]
        bare = _read_model(content + NO_DUMMY_PREFIX)
        self._first = self._model if settings.legacy or settings.add_prefix_space else bare
        self._later = self._model if settings.legacy else bare

        added = dict(settings.unflagged) | dict(settings.added)
        self._check_ids(added)
        self._named = self._special_pieces(settings.special) | added
        check_added(token.content for token in self._named.values())
        self._ids = {token.content: i for i, token in self._named.items()}
        markup = markup_ids(self._named, settings.special)
        self._finder = TokenFinder(self._named)
        self._plain_finder = TokenFinder({i: self._named[i] for i in self._named.keys() - markup})
        self._forbidden = (markup | self._markup_pieces()) - {self._model.unk_id()}
        self._before = self._end(settings.bos, self._model.bos_id()) if settings.add_bos else []
        self._after = self._end(settings.eos, self._model.eos_id()) if settings.add_eos else []
        self.size = max([len(self._pieces), *(i + 1 for i in self._named)])

    def encode(self, text: str, add_special: bool) -> list[int]:
        """Encode trusted text, as `TextTokenizer.encode` does."""
        ids = self._encode(text, self._finder)
        return [*self._before, *ids, *self._after] if add_special else ids

    def encode_plain(self, text: str) -> list[int]:
        """Encode a user's text, as `TextTokenizer.encode_plain` does."""
        return respell(self._encode(text, self._plain_finder), self._forbidden, self._spell)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """Decode token ids, as `TextTokenizer.decode` does."""
        texts: list[str] = []
        run: list[int] = []
        for i in ids:
            token = self._named.get(i)
            if token is None or (skip_special and self._is_control(i)):
                run.append(i)  # The library is silent on control ids too, yet parts bytes there.
            elif not (skip_special and token.special):
                texts += [self._decode_run(run, bool(texts)), token.content]
                run = []
        return "".join([*texts, self._decode_run(run, bool(texts))])

    def find(self, token: str) -> int | None:
        """Find the id of a token by its string; None if there is none."""
        if token in self._ids:
            return self._ids[token]
        found = self._model.PieceToId(token)
        return found if self._pieces[found] == token else None

    def vocabulary(self) -> dict[str, int]:
        """List all tokens, as `TextTokenizer.vocabulary` does."""
        pieces = {piece: i for i, piece in enumerate(self._pieces) if i not in self._named}
        return pieces | self._ids

    def token_bytes(self) -> list[bytes]:
        """List the bytes of all tokens, as `TextTokenizer.token_bytes` does."""
        return [self._bytes(i) for i in range(self.size)]

    def _bytes(self, i: int) -> bytes:
        model = self._model
        # What is named parts runs of text, and markup is no text of an answer.
        if i in self._named or i in self._forbidden or i >= len(self._pieces):
            return b""
        if model.IsControl(i) or model.IsUnknown(i) or model.IsUnused(i):
            return b""
        piece = self._pieces[i]
        single = byte_of_piece(piece) if model.IsByte(i) else None
        return piece.replace(BLANK, " ").encode() if single is None else single

    def _encode(self, text: str, finder: "TokenFinder") -> list[int]:
        ids: list[int] = []
        at = 0
        for begin, end, token in finder.find(text):
            ids += [*self._encode_run(text[at:begin], at > 0), token]
            at = end
        return ids + self._encode_run(text[at:], at > 0)

    def _encode_run(self, run: str, is_later: bool) -> list[int]:
        return (self._later if is_later else self._first).EncodeAsIds(run)

    def _decode_run(self, run: list[int], is_later: bool) -> str:
        model = self._later if is_later else self._first
        return model.DecodeIds([i for i in run if i < len(self._pieces)])

    def _check_ids(self, added: Mapping[int, AddedToken]) -> None:
        """Check that added tokens take the place of control or user-defined pieces alone."""
        for i, token in added.items():
            piece = self._pieces[i] if i < len(self._pieces) else token.content
            elsewhere = self._model.PieceToId(token.content)
            is_elsewhere = self._pieces[elsewhere] == token.content and elsewhere != i
            if is_elsewhere or (piece != token.content and not self._is_placeholder(i)):
                raise ValueError(f"has no {token.content!r} at id {i}, where a file beside it has")

    def _is_control(self, i: int) -> bool:
        return i < len(self._pieces) and self._model.IsControl(i)

    def _is_placeholder(self, i: int) -> bool:
        model = self._model
        tests = (model.IsControl, model.IsUnknown, model.IsUnused, self._is_user_defined)
        return any(test(i) for test in tests)

    def _is_user_defined(self, i: int) -> bool:
        """Whether a piece was put in by hand, and so has no score: learned ones are below 0."""
        model = self._model
        learned = model.GetScore(i) != 0
        return not (learned or model.IsControl(i) or model.IsUnknown(i) or model.IsByte(i))

    def _markup_pieces(self) -> set[int]:
        """Pieces that look like markup, and that sentencepiece finds in any text."""
        found = (i for i, piece in enumerate(self._pieces) if MARKUP.fullmatch(piece))
        return {i for i in found if self._is_user_defined(i)}

    def _special_pieces(self, names: frozenset[str]) -> dict[int, AddedToken]:
        """Control pieces, and those that a file beside the model names special."""
        ids = {i for i in range(len(self._pieces)) if self._model.IsControl(i)}
        ids |= {i for i in map(self._model.PieceToId, names) if self._pieces[i] in names}
        return {i: AddedToken(self._pieces[i], special=True) for i in sorted(ids)}

    def _end(self, name: str, default: int) -> list[int]:
        """The id that begins or ends a text, if there is one."""
        if name:
            return [required_id(self, name)]
        return [default] if default >= 0 else []

    def _spell(self, i: int) -> list[int]:
        """The ids of the characters of a piece."""
        return [part for char in self._pieces[i] for part in self._spell_character(char)]

    def _spell_character(self, char: str) -> list[int]:
        """The character's own id, else those of its bytes, else that of the unknown token."""
        unknown = self._model.unk_id()
        whole = self._model.PieceToId(char)
        if whole != unknown:
            return [whole]
        parts = [self._model.PieceToId(BYTE_PIECES[byte]) for byte in char.encode()]
        return [unknown] if unknown in parts else parts


class TokenFinder:
    """Finds tokens in a text: the leftmost, and the longest of those that begin there.

    Args:
        tokens: The tokens to find, by their ids.
    """

    def __init__(self, tokens: Mapping[int, AddedToken]):
        self._ids = sorted(tokens, key=lambda i: -len(tokens[i].content))
        groups = (f"({_pattern(tokens[i])})" for i in self._ids)
        self._pattern = re.compile("|".join(groups) or "(?!)")  # (?!) matches nowhere.

    def find(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Yield begin, end and id of each token in a text, in order."""
        for match in self._pattern.finditer(text):
            yield match.start(), match.end(), self._ids[(match.lastindex or 0) - 1]


def _pattern(token: AddedToken) -> str:
    """A regular expression of what a token takes out of a text."""
    body = re.escape(token.content)
    if token.single_word:
        body = rf"(?<!\w){body}(?!\w)"
    before, after = (SPACES if strips else "" for strips in (token.lstrip, token.rstrip))
    return f"{before}{body}{after}"


def _read_model(content: bytes) -> SentencePieceProcessor:
    model = SentencePieceProcessor()
    model.LoadFromSerializedProto(content)
    return model
