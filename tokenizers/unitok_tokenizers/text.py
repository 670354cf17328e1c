"""Text to ids and back, over Hugging Face `tokenizer.json` and sentencepiece `tokenizer.model`.

Text comes in two kinds. Templates are ours: a special string such as `<|User|>` in them is meant,
and becomes its id. What a user wrote is not: there the same string stays ordinary characters, or
a prompt could close its own turn and speak for the model.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers

REPLACEMENT = "\ufffd"  # what decoders write for bytes that are not (yet) a character
MARKUP = re.compile(r"<\S+>")


class _Backend(Protocol):
    """What the two libraries have in common."""

    size: int

    def encode(self, text: str, add_special: bool) -> list[int]: ...
    def encode_plain(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int], skip_special: bool) -> str: ...
    def find(self, token: str) -> int | None: ...


class TextTokenizer:
    """One small face over the text tokenizers of all families. Make one by `load`."""

    def __init__(self, backend: _Backend):
        self._backend = backend

    @classmethod
    def load(cls, path: str | Path) -> "TextTokenizer":
        """From a file, or from a folder that holds `tokenizer.json` or else `tokenizer.model`.

        Raises FileNotFoundError if there is none, ValueError if it cannot be read.
        """
        file = _locate(Path(path))
        backend = _HuggingFace if file.suffix == ".json" else _SentencePiece
        try:
            return cls(backend(file.read_bytes()))
        except Exception as error:  # both libraries raise bare Exceptions for a broken file
            raise ValueError(f"{file} is not a readable tokenizer: {error}") from error

    @property
    def size(self) -> int:
        """How many ids there are: one more than the largest."""
        return self._backend.size

    def encode(self, text: str, add_special: bool) -> list[int]:
        """Ids of trusted text: special strings in it become their ids.

        With `add_special` the ids begin (and end) as the file asks, most often with BOS.
        """
        return self._backend.encode(_valid(text), add_special)

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a user's text: nothing in it becomes a special id, nothing is put around it."""
        return self._backend.encode_plain(_valid(text))

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of ids; bytes that are no character become U+FFFD."""
        return self._backend.decode(ids, skip_special)

    def id(self, token: str) -> int:
        """Id of a token by its string; ValueError if there is none."""
        found = self._backend.find(token)
        if found is None:
            raise ValueError(f"the text tokenizer has no token {token!r}")
        return found

    def stream(self, skip_special: bool = True) -> "Detokenizer":
        """A decoder for ids that come a few at a time."""
        return Detokenizer(self, skip_special)


class Detokenizer:
    """Decodes ids as they come: all that `push` and `finish` gave, joined, is the whole text.

    An id may carry a part of a character, and a decoder may drop the space before the first word.
    So each step decodes the new ids together with the last ones that gave text, and gives what
    the new ones add; while the end is an unfinished character, it is held back.
    """

    def __init__(self, tokenizer: TextTokenizer, skip_special: bool = True):
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._context: list[int] = []  # already given; decoded again for what stands before
        self._pending: list[int] = []  # not yet given

    def push(self, ids: Sequence[int]) -> str:
        """The text that these ids complete; it may be empty."""
        self._pending.extend(ids)
        text = self._decode_pending()
        return "" if text.endswith(REPLACEMENT) else self._give(text)

    def finish(self) -> str:
        """The rest, where a character that was never finished is U+FFFD."""
        return self._give(self._decode_pending())

    def _decode_pending(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _give(self, text: str) -> str:
        if text:
            self._context, self._pending = self._pending, []
        return text

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, self._skip_special)


class _HuggingFace:
    """Over the `tokenizers` library."""

    def __init__(self, content: bytes):
        self._trusting = _read_json(content)
        # Some files do not flag their markup as special, and the switch below spares only what
        # is. Other added tokens may be ordinary letters, and must stay.
        markup = [
            token
            for token in self._trusting.get_added_tokens_decoder().values()
            if not token.special and MARKUP.fullmatch(token.content)
        ]
        self._plain = _read_json(content)
        self._plain.add_special_tokens(markup)
        self._plain.encode_special_tokens = True
        self.size = max(self._trusting.get_vocab().values()) + 1

    def encode(self, text: str, add_special: bool) -> list[int]:
        return self._trusting.encode(text, add_special_tokens=add_special).ids

    def encode_plain(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        return self._trusting.decode(ids, skip_special_tokens=skip_special)

    def find(self, token: str) -> int | None:
        return self._trusting.token_to_id(token)


def _read_json(content: bytes) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_buffer(content)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class _SentencePiece:
    """Over the `sentencepiece` library, which itself makes no control id from any text.

    `encode` finds the control strings; each run of text between them is encoded on its own.
    """

    def __init__(self, content: bytes):
        self._model = sentencepiece.SentencePieceProcessor()
        self._model.LoadFromSerializedProto(content)
        self.size = self._model.GetPieceSize()
        pieces = {i: self._model.IdToPiece(i) for i in range(self.size)}
        self._controls = {pieces[i]: i for i in pieces if self._model.IsControl(i)}
        self._splitter = re.compile(f"({'|'.join(map(re.escape, self._controls))})")
        self._markup = {
            i for i, piece in pieces.items() if MARKUP.fullmatch(piece) and self._is_visible(i)
        }

    def encode(self, text: str, add_special: bool) -> list[int]:
        ids = [self._model.bos_id()] if add_special and self._model.bos_id() >= 0 else []
        for run in self._splitter.split(text) if self._controls else [text]:
            ids += [self._controls[run]] if run in self._controls else self._model.EncodeAsIds(run)
        return ids

    def encode_plain(self, text: str) -> list[int]:
        ids = self._model.EncodeAsIds(text)
        return [part for i in ids for part in (self._spell(i) if i in self._markup else [i])]

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        texts, run = [], []
        for i in ids:
            if not self._model.IsControl(i):
                run.append(i)
            elif not skip_special:
                texts += [self._model.DecodeIds(run), self._model.IdToPiece(i)]
                run = []
        return "".join([*texts, self._model.DecodeIds(run)])

    def find(self, token: str) -> int | None:
        found = self._model.PieceToId(token)
        return found if self._model.IdToPiece(found) == token else None

    def _is_visible(self, i: int) -> bool:
        model = self._model
        hidden = (model.IsControl, model.IsUnknown, model.IsUnused, model.IsByte)
        return not any(test(i) for test in hidden)

    def _spell(self, i: int) -> list[int]:
        """Ids of the characters of a piece: by themselves, else by their bytes, else unknown."""
        return [part for char in self._model.IdToPiece(i) for part in self._spell_character(char)]

    def _spell_character(self, char: str) -> list[int]:
        unknown = self._model.unk_id()
        whole = self._model.PieceToId(char)
        if whole != unknown:
            return [whole]
        parts = [self._model.PieceToId(f"<0x{byte:02X}>") for byte in char.encode()]
        return [unknown] if unknown in parts else parts


def _locate(path: Path) -> Path:
    """The tokenizer file that a path means."""
    if path.is_dir():
        for name in ("tokenizer.json", "tokenizer.model"):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"no tokenizer.json and no tokenizer.model in {path}")
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}")
    if path.suffix not in (".json", ".model"):
        raise ValueError(f"{path} is not a tokenizer: expected a .json or a .model file")
    return path


def _valid(text: str) -> str:
    """The text, if it can be written as UTF-8; a broken command line may hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text is not valid Unicode at character {error.start}") from None
    return text
