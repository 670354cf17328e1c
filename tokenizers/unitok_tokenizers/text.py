"""Text to ids and back, over Hugging Face `tokenizer.json` and sentencepiece `tokenizer.model`.

Text comes in two kinds. Templates are ours: a special string such as `<|User|>` in them is meant,
and becomes its id. What a user wrote is not: there the same string stays ordinary characters, or
a prompt could close its own turn and speak for the model.

Ids are those of the code that checkpoints were trained with: of the `tokenizers` library for a
`tokenizer.json`, of sentencepiece itself for a `tokenizer.model`. transformers 5 rebuilds the
second kind, and on the way loses spaces before the first word and ids that the files give.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing

REPLACEMENT = "\ufffd"  # what decoders write for bytes that are not (yet) a character
MARKUP = re.compile(r"<.+>|\[.+\]", re.DOTALL)
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))  # what both libraries fall back to
SPACES = r"[^\S\x1c-\x1f]*"  # Python takes four control characters more for spaces than Unicode
SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")

# Protocol buffers merge messages that are written one after the other. This one sets
# ModelProto.normalizer_spec.add_dummy_prefix = false (sentencepiece_model.proto: fields 3 and 3).
NO_DUMMY_PREFIX = bytes([0x1A, 2, 0x18, 0])

Opened = TypeVar("Opened")


class _Backend(Protocol):
    """What the two libraries have in common."""

    size: int
    unsettled: frozenset[int]  # ids whose text may change with the ids that follow

    def encode(self, text: str, add_special: bool) -> list[int]: ...
    def encode_plain(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int], skip_special: bool) -> str: ...
    def find(self, token: str) -> int | None: ...


class TextTokenizer:
    """One small face over the text tokenizers of all families. Make one by `load`."""

    def __init__(self, backend: _Backend, without_id: Sequence[str] = ()):
        self._backend = backend
        self._without_id = without_id  # special tokens that a file names and none gives an id

    @classmethod
    def load(cls, path: str | Path) -> "TextTokenizer":
        """From a file by itself, or from a folder that holds `tokenizer.json` or else
        `tokenizer.model`, with the added and special tokens of `tokenizer_config.json`,
        `added_tokens.json` and `special_tokens_map.json` there.

        Raises FileNotFoundError if there is none, ValueError if a file cannot be read or if two
        contradict each other.
        """
        path = Path(path)
        file = _locate(path)
        library = _HuggingFace if file.suffix == ".json" else _SentencePiece
        beside = _read_beside(path) if path.is_dir() else _Beside()
        try:
            backend = library(file.read_bytes(), beside)
        except ValueError as error:
            raise ValueError(f"{file} {error}") from error
        return cls(backend, [t for t in sorted(beside.special) if backend.find(t) is None])

    @property
    def size(self) -> int:
        """How many ids there are: one more than the largest."""
        return self._backend.size

    def encode(self, text: str, add_special: bool) -> list[int]:
        """Ids of trusted text: special strings in it become their ids.

        With `add_special` the ids begin (and end) as the files ask, most often with BOS. Raises
        ValueError for a special string whose id no file gives.
        """
        for token in self._without_id:
            if token in text:
                raise ValueError(f"no file gives {token!r} an id: add it to added_tokens.json")
        return self._backend.encode(_valid(text), add_special)

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a user's text: nothing in it becomes a special id, nothing is put around it."""
        return self._backend.encode_plain(_valid(text))

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of ids; bytes that are no character become U+FFFD, ids of no token nothing."""
        return self._backend.decode(ids, skip_special)

    def id(self, token: str) -> int:
        """Id of a token by its string; ValueError if there is none."""
        found = self._backend.find(token)
        if found is None:
            raise ValueError(f"the text tokenizer has no token {token!r}")
        return found

    def stream(self, skip_special: bool = True) -> "Detokenizer":
        """A decoder for ids that come a few at a time."""
        return Detokenizer(self._backend, skip_special)


class Detokenizer:
    """Decodes ids as they come: all that `push` and `finish` gave, joined, is the whole text.

    An id may carry a part of a character, and a decoder may drop the space before the first word.
    So each step decodes the new ids together with the last ones that gave text, and gives what
    the new ones add; while the end is an unfinished character, it is held back.
    """

    def __init__(self, backend: _Backend, skip_special: bool = True):
        self._backend = backend
        self._skip_special = skip_special
        self._context: list[int] = []  # already given; decoded again for what stands before
        self._pending: list[int] = []  # not yet given

    def push(self, ids: Sequence[int]) -> str:
        """The text that these ids complete; it may be empty."""
        self._pending.extend(ids)
        if self._is_unsettled():
            return ""
        text = self._decode_pending()
        return "" if text.endswith(REPLACEMENT) else self._give(text)

    def finish(self) -> str:
        """The rest, where a character that was never finished is U+FFFD."""
        return self._give(self._decode_pending())

    def _is_unsettled(self) -> bool:
        """Whether the last id that shows is one whose text may still change."""
        for i in reversed(self._pending):
            if i in self._backend.unsettled:
                return True
            if self._decode([i]):
                return False
        return False

    def _decode_pending(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _give(self, text: str) -> str:
        if text:
            # By themselves, spaces may be nothing, and would then not keep the next ones.
            is_enough = bool(self._decode(self._pending))
            self._context = self._pending if is_enough else self._context + self._pending
            self._pending = []
        return text

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, self._skip_special)


@dataclass(frozen=True)
class _Beside:
    """What the files beside a tokenizer say, in the words of transformers; by default nothing."""

    added: Mapping[int, AddedToken] = field(default_factory=dict)
    older: Mapping[int, AddedToken] = field(default_factory=dict)  # of a file that knows no flags
    special: frozenset[str] = frozenset()  # all that a file names special, with an id or without
    bos: str = ""  # "" = not named
    eos: str = ""
    add_bos: bool = True
    add_eos: bool = False
    is_llama: bool = False
    legacy: bool = True
    add_prefix_space: bool = True


class _HuggingFace:
    """Over the `tokenizers` library."""

    def __init__(self, content: bytes, beside: _Beside):
        self._trusting = _open(Tokenizer.from_buffer, content)
        self._trusting.no_padding()
        self._trusting.no_truncation()
        document = json.loads(content)
        self._check_ids({t["id"]: t["content"] for t in document.get("added_tokens", [])})
        self._add(beside)
        if beside.is_llama and beside.bos:
            self._trusting.post_processor = self._llama_ends(beside)

        added = self._trusting.get_added_tokens_decoder()
        markup = _markup(added, beside.special)
        self._plain = self._distrusting(added, markup)
        self._forbidden = markup - {self._unknown(document["model"])}
        vocabulary = document["model"]["vocab"]  # a list of pieces where the place is the id
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        self.size = max(0, *ids, *added) + 1
        self.unsettled = self._bytes() if _takes_bytes_back(document) else frozenset()

    def encode(self, text: str, add_special: bool) -> list[int]:
        return self._trusting.encode(text, add_special_tokens=add_special).ids

    def encode_plain(self, text: str) -> list[int]:
        ids = self._plain.encode(text, add_special_tokens=False).ids
        return _respell(ids, self._forbidden, self._spell)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        return self._trusting.decode(ids, skip_special_tokens=skip_special)

    def find(self, token: str) -> int | None:
        return self._trusting.token_to_id(token)

    def _add(self, beside: _Beside) -> None:
        """Tokens that the file has not, and other flags for those that it has."""
        here = {token.content for token in self._trusting.get_added_tokens_decoder().values()}
        new = {i: token for i, token in beside.older.items() if token.content not in here}
        new |= beside.added
        self._trusting.add_tokens([new[i] for i in sorted(new)])
        self._check_ids({i: t.content for i, t in [*beside.older.items(), *new.items()]})
        named = beside.special - here - {token.content for token in new.values()}
        words = [name for name in sorted(named) if self.find(name) is not None]
        self._trusting.add_special_tokens([AddedToken(word, normalized=False) for word in words])

    def _check_ids(self, wanted: Mapping[int, str]) -> None:
        """The library counts added tokens itself, silently, where a file counts otherwise."""
        for i, token in wanted.items():
            if (found := self.find(token)) != i:
                raise ValueError(f"gives {token!r} the id {found}, where a file asks for {i}")

    def _distrusting(self, added: Mapping[int, AddedToken], markup: set[int]) -> Tokenizer:
        """The same vocabulary, blind to special tokens.

        Some files do not flag their markup as special, and the switch below spares only what is.
        Other added tokens may be ordinary letters, and must stay.
        """
        blind = Tokenizer(self._trusting.model)
        for step in ("normalizer", "pre_tokenizer"):
            if (same := getattr(self._trusting, step)) is not None:
                setattr(blind, step, same)
        for i, token in added.items():
            token.special = i in markup
        blind.add_tokens([added[i] for i in sorted(added)])
        blind.encode_special_tokens = True
        return blind

    def _llama_ends(self, beside: _Beside) -> TemplateProcessing:
        """BOS and EOS as transformers 4 put them for Llama's class, whatever the file says.

        DeepSeek's files rely on it, as their own post-processor puts no BOS (issue 161 of
        huggingface/swift-transformers). transformers 5 puts none either.
        """
        before = [beside.bos] if beside.bos and beside.add_bos else []
        after = [beside.eos] if beside.eos and beside.add_eos else []
        ids = [(token, _known(self, token)) for token in before + after]
        return TemplateProcessing(single=[*before, "$A", *after], special_tokens=ids)

    def _unknown(self, model: Mapping[str, Any]) -> int | None:
        """Id of what is in no vocabulary, which a user's text may well hold."""
        named = model.get("unk_token")
        return self.find(named) if named else model.get("unk_id")

    def _spell(self, i: int) -> list[int]:
        piece = self._plain.id_to_token(i) or ""
        return [token.id for char in piece for token in self._plain.model.tokenize(char)]

    def _bytes(self) -> frozenset[int]:
        return frozenset(i for piece in BYTE_PIECES if (i := self.find(piece)) is not None)


class _SentencePiece:
    """Over the `sentencepiece` library, which itself makes no control id from any text.

    `encode` finds control strings and added tokens; each run of text between them is encoded on
    its own, and so with a space before its first word, as in the code that Meta gave with Llama,
    where each turn is encoded by itself. `legacy: false` leaves that space to the first run.
    """

    unsettled: frozenset[int] = frozenset()

    def __init__(self, content: bytes, beside: _Beside):
        self._model = _open(_read_model, content)
        self._pieces = [self._model.IdToPiece(i) for i in range(self._model.GetPieceSize())]
        bare = _read_model(content + NO_DUMMY_PREFIX)
        self._first = self._model if beside.legacy or beside.add_prefix_space else bare
        self._later = self._model if beside.legacy else bare

        added = dict(beside.older) | dict(beside.added)
        self._check_ids(added)
        self._named = self._specials(beside.special) | added
        self._ids = {token.content: i for i, token in self._named.items()}
        markup = _markup(self._named, beside.special)
        self._splitter = _Splitter(self._named)
        self._plain_splitter = _Splitter({i: self._named[i] for i in self._named.keys() - markup})
        self._forbidden = (markup | self._symbols()) - {self._model.unk_id()}
        self._before = self._end(beside.bos, self._model.bos_id()) if beside.add_bos else []
        self._after = self._end(beside.eos, self._model.eos_id()) if beside.add_eos else []
        self.size = max([len(self._pieces), *(i + 1 for i in self._named)])

    def encode(self, text: str, add_special: bool) -> list[int]:
        ids = self._encode(text, self._splitter)
        return [*self._before, *ids, *self._after] if add_special else ids

    def encode_plain(self, text: str) -> list[int]:
        return _respell(self._encode(text, self._plain_splitter), self._forbidden, self._spell)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        texts, run = [], []
        for i in ids:
            token = self._named.get(i)
            if token is None or (skip_special and self._is_control(i)):
                run.append(i)  # the library is silent on control ids too, yet parts bytes there
            elif not (skip_special and token.special):
                texts += [self._decode_run(run, bool(texts)), token.content]
                run = []
        return "".join([*texts, self._decode_run(run, bool(texts))])

    def find(self, token: str) -> int | None:
        if token in self._ids:
            return self._ids[token]
        found = self._model.PieceToId(token)
        return found if self._pieces[found] == token else None

    def _encode(self, text: str, splitter: "_Splitter") -> list[int]:
        ids, at = [], 0
        for begin, end, token in splitter.find(text):
            ids += [*self._encode_run(text[at:begin], at > 0), token]
            at = end
        return ids + self._encode_run(text[at:], at > 0)

    def _encode_run(self, run: str, is_later: bool) -> list[int]:
        return (self._later if is_later else self._first).EncodeAsIds(run)

    def _decode_run(self, run: list[int], is_later: bool) -> str:
        model = self._later if is_later else self._first
        return model.DecodeIds([i for i in run if i < len(self._pieces)])

    def _check_ids(self, added: Mapping[int, AddedToken]) -> None:
        """An added token may take the place of a control or a user-defined piece, of no other."""
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
        tests = (model.IsControl, model.IsUnknown, model.IsUnused, self._is_symbol)
        return any(test(i) for test in tests)

    def _is_symbol(self, i: int) -> bool:
        """Whether a piece was put in by hand, and so has no score: learned ones are below 0."""
        model = self._model
        learned = model.GetScore(i) != 0
        return not (learned or model.IsControl(i) or model.IsUnknown(i) or model.IsByte(i))

    def _symbols(self) -> set[int]:
        """Pieces that look like markup, and that sentencepiece finds in any text."""
        found = (i for i, piece in enumerate(self._pieces) if MARKUP.fullmatch(piece))
        return {i for i in found if self._is_symbol(i)}

    def _specials(self, names: frozenset[str]) -> dict[int, AddedToken]:
        """Control pieces, and those that a file beside the model names special."""
        ids = {i for i in range(len(self._pieces)) if self._model.IsControl(i)}
        ids |= {i for i in map(self._model.PieceToId, names) if self._pieces[i] in names}
        return {i: AddedToken(self._pieces[i], special=True) for i in sorted(ids)}

    def _end(self, name: str, default: int) -> list[int]:
        if name:
            return [_known(self, name)]
        return [default] if default >= 0 else []

    def _spell(self, i: int) -> list[int]:
        """Ids of the characters of a piece: by themselves, else by their bytes, else unknown."""
        return [part for char in self._pieces[i] for part in self._spell_character(char)]

    def _spell_character(self, char: str) -> list[int]:
        unknown = self._model.unk_id()
        whole = self._model.PieceToId(char)
        if whole != unknown:
            return [whole]
        parts = [self._model.PieceToId(BYTE_PIECES[byte]) for byte in char.encode()]
        return [unknown] if unknown in parts else parts


class _Splitter:
    """Finds tokens in a text: the leftmost, and the longest of those that begin there."""

    def __init__(self, tokens: Mapping[int, AddedToken]):
        self._ids = sorted(tokens, key=lambda i: -len(tokens[i].content))
        groups = (f"({_pattern(tokens[i])})" for i in self._ids)
        self._pattern = re.compile("|".join(groups) or "(?!)")  # (?!) is nowhere

    def find(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Begin, end and id of each token."""
        for match in self._pattern.finditer(text):
            yield match.start(), match.end(), self._ids[(match.lastindex or 0) - 1]


def _pattern(token: AddedToken) -> str:
    """A regular expression of what the token takes out of a text."""
    body = re.escape(token.content)
    if token.single_word:
        body = rf"(?<!\w){body}(?!\w)"
    before, after = (SPACES if strips else "" for strips in (token.lstrip, token.rstrip))
    return f"{before}{body}{after}"


def _markup(tokens: Mapping[int, AddedToken], special: frozenset[str]) -> set[int]:
    """Ids of the tokens that a user's text must not make."""
    return {
        i
        for i, token in tokens.items()
        if token.special or token.content in special or MARKUP.fullmatch(token.content)
    }


def _respell(ids: list[int], forbidden: set[int], spell: Callable[[int], list[int]]) -> list[int]:
    """Ids with the forbidden ones spelt out: some models find special strings by themselves."""
    if forbidden.isdisjoint(ids):
        return ids
    return [part for i in ids for part in (spell(i) if i in forbidden else [i])]


def _known(backend: _Backend, token: str) -> int:
    found = backend.find(token)
    if found is None:
        raise ValueError(f"has no {token!r}, which tokenizer_config.json puts around each text")
    return found


def _takes_bytes_back(document: Mapping[str, Any]) -> bool:
    """Whether the decoder, for one broken byte, breaks the whole run of bytes around it."""
    decoder = document.get("decoder") or {}
    return any(d["type"] == "ByteFallback" for d in decoder.get("decoders", [decoder]) if d)


def _open(library: Callable[[bytes], Opened], content: bytes) -> Opened:
    try:
        return library(content)
    except Exception as error:  # both libraries raise bare Exceptions for a broken file
        raise ValueError(f"is not a readable tokenizer: {error}") from error


def _read_model(content: bytes) -> SentencePieceProcessor:
    model = SentencePieceProcessor()
    model.LoadFromSerializedProto(content)
    return model


def _read_beside(folder: Path) -> _Beside:
    """Raises ValueError if a file is broken or they disagree on ids."""
    config = _read_object(folder / "tokenizer_config.json")
    named = _names(_read_object(folder / "special_tokens_map.json")) | _names(config)
    special = frozenset(named.values())
    listed = _read_object(folder / "added_tokens.json")
    flags = config.get("added_tokens_decoder") or {}
    try:
        added = {int(i): _added_token(flags[i], special) for i in flags}
        pairs = [(int(i), token) for token, i in listed.items()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} has a badly written added token: {error!r}") from error
    _check_agreement(folder, {*pairs, *((i, token.content) for i, token in added.items())})
    return _Beside(
        added=added,
        older={i: AddedToken(token, special=token in special) for i, token in pairs},
        special=special,
        bos=named.get("bos_token", ""),
        eos=named.get("eos_token", ""),
        add_bos=config.get("add_bos_token") is not False,
        add_eos=config.get("add_eos_token") is True,
        is_llama=str(config.get("tokenizer_class")).startswith("LlamaTokenizer"),
        legacy=config.get("legacy") is not False,
        add_prefix_space=config.get("add_prefix_space") is not False,
    )


def _read_object(file: Path) -> dict[str, Any]:
    """A JSON object from a file, or an empty one if there is no such file."""
    if not file.is_file():
        return {}
    try:
        document = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not readable JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file} holds no JSON object")
    return document


def _names(document: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by what they are for, from tokenizer_config.json and its older kin."""
    tokens = {key: token for key, token in document.items() if key.endswith("_token")}
    for key in SPECIAL_LISTS:
        several = document.get(key) or []
        pairs = several.items() if isinstance(several, dict) else enumerate(several)
        tokens |= {f"{key} {place}": token for place, token in pairs}
    contents = {key: _content(token) for key, token in tokens.items()}
    return {key: content for key, content in contents.items() if content}


def _content(token: Any) -> str:
    """The string of a token, which may be written with its flags; "" if it is no token."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _added_token(flags: Mapping[str, Any], special: frozenset[str]) -> AddedToken:
    kept = {key: flag for key, flag in flags.items() if key not in ("__type", "content")}
    token = AddedToken(flags["content"], **kept)
    token.special = token.special or token.content in special
    return token


def _check_agreement(folder: Path, pairs: set[tuple[int, str]]) -> None:
    """That no id has two tokens, and no token two ids."""
    ids, tokens = {i for i, _ in pairs}, {token for _, token in pairs}
    if len(ids) < len(pairs) or len(tokens) < len(pairs):
        raise ValueError(f"the files of {folder} disagree on the ids of added tokens")


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
