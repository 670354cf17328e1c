"""Grammars of answers: a JSON schema, a regular expression or a choice becomes a plan.

The library llguidance (https://github.com/guidance-ai/llguidance) tells which tokens a grammar
allows next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from unitok.grammar_ends import Limits, Tokens, Vocabulary, find_end
from unitok.grammar_errors import reason
from unitok.grammar_plan import GrammarPlan
from unitok.grammar_sizes import regex_size, schema_literals, schema_size
from unitok.requests import TextOptions
from unitok_engine import FreePlan
from unitok_tokenizers.text import TextTokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# As `json.dumps` writes it, which is what models have read most. Blanks without end are none.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
LITERAL = re.compile(r"(?:^|(?<=[(|]))[\w ,.:;-]+(?=[|)]|$)")  # one of the choices of a group
MAX_REGEX = 2**16  # characters
MAX_STATES = 50_000  # of the automaton of a grammar, of 1 to 2 kB each
TRIES = 1000  # places of an answer that a search for a short one goes on from
NEAR = 200  # of these, in small steps alone
PHRASES = 32  # constants of a form that are tried where a text begins


@dataclass(frozen=True, eq=False)
class Grammars:
    """Makes the plans of one model's answers that follow grammars.

    Attributes:
        tokenizer: Of text.
        example: The ids of an answer, which shows whether answers begin with a blank.
    """

    tokenizer: TextTokenizer
    example: Sequence[int]

    def plan(self, asked: TextOptions, text: FreePlan) -> GrammarPlan:
        """What an answer may be.

        Args:
            asked: The schema, regular expression or choice.
            text: What any answer may be.

        Raises:
            ValueError: The grammar is none, or has no answer of at most so many tokens.
        """
        form, matcher, words = self.start(asked, text)
        phrases, limits = self._phrases(form, text), Limits(text.max_tokens, TRIES, NEAR)
        try:
            shortest = find_end(matcher, words, limits, phrases)
        except ValueError as error:
            raise ValueError(f"{form.name}: {error}") from None
        if shortest.tokens is None and shortest.settled:
            raise ValueError(
                f"{form.name}: no answer of at most {text.max_tokens} tokens was found: raise "
                "max_tokens, or ask for less"
            )
        return GrammarPlan(text, matcher, words, shortest.tokens, phrases, form.size)

    def start(self, asked: TextOptions, text: FreePlan) -> tuple[Form, LLMatcher, Vocabulary]:
        """The form that is asked for, its matcher, and the tokens of answers.

        Args:
            asked: The schema, regular expression or choice.
            text: What any answer may be.

        Raises:
            ValueError: The grammar is none.
        """
        from llguidance import LLMatcher, LLParserLimits

        form = form_of(asked, self._blank)
        tokenizer, words = self._of(text)
        limits = LLParserLimits(verbose_errors=False, max_lexer_states=MAX_STATES)
        matcher = LLMatcher(tokenizer, form.grammar, log_level=0, limits=limits)
        if matcher.is_error():
            problem = LLMatcher.validate_grammar(form.bare, limits=limits) or matcher.get_error()
            raise ValueError(f"{form.name} cannot be used: {reason(problem)}")
        return form, matcher, words

    def _phrases(self, form: Form, text: FreePlan) -> list[Tokens]:
        tokenizer, _ = self._of(text)
        return [tuple(tokenizer.tokenize_str(phrase)) for phrase in form.phrases]

    @cached_property
    def lead(self) -> str:
        """What the text of an answer has before what the grammar describes."""
        return " " if self._blank and self.tokenizer.decode(self.example)[:1] == " " else ""

    @cached_property
    def _blank(self) -> bool:
        """Whether the first token of an answer begins with a blank."""
        return bool(self.example) and self._bytes[self.example[0]][:1] == b" "

    @cached_property
    def _bytes(self) -> list[bytes]:
        return self.tokenizer.token_bytes()

    def _words(self, text: FreePlan) -> Vocabulary:
        """The ids of the text's range that have bytes, or end an answer."""
        start, size = text.id_range.start, text.id_range.stop
        spelt = [self._bytes_of(id) for id in range(size)]
        known = np.array([bool(b) or id in text.stop_ids for id, b in enumerate(spelt)])
        known[:start] = False
        if text.mask is not None:
            known[start:] &= text.mask.cpu().numpy()
        return Vocabulary(spelt, known, text.id_range, min(text.stop_ids))

    def _bytes_of(self, id: int) -> bytes:
        return self._bytes[id] if id < len(self._bytes) else b""

    @cached_property
    def _made(self) -> dict[tuple[Any, ...], tuple[LLTokenizer, Vocabulary]]:
        return {}

    def _of(self, text: FreePlan) -> tuple[LLTokenizer, Vocabulary]:
        """The library's tokenizer of a range of ids and its stop ids, and the tokens in it."""
        key = (text.id_range, text.stop_ids)
        if key not in self._made:
            self._made[key] = self._make(text), self._words(text)
        return self._made[key]

    def _make(self, text: FreePlan) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        stops, size = sorted(text.stop_ids), text.id_range.stop
        # The byte 255 is in no text, and marks tokens that are none.
        tokens = [self._bytes_of(id) or b"\xff<%d>" % id for id in range(size)]
        special = [id for id in range(size) if not self._bytes_of(id)]
        spelt = Spelt(tokens, special, stops[0], self.tokenizer)
        return LLTokenizer(TokenizerWrapper(spelt), n_vocab=size, eos_token=stops)


class Spelt:
    """A text tokenizer as the library wants it.

    Attributes:
        tokens: The bytes of each token.
        special_token_ids: The tokens that are no text.
        eos_token_id: One that ends an answer.
        bos_token_id: None, as an answer has no beginning of its own.
    """

    bos_token_id: int | None = None

    def __init__(
        self,
        tokens: Sequence[bytes],
        special_token_ids: Sequence[int],
        eos_token_id: int,
        tokenizer: TextTokenizer,
    ) -> None:
        """Keep what is known of the tokens."""
        self.tokens, self.special_token_ids = tokens, special_token_ids
        self.eos_token_id = eos_token_id
        special = set(special_token_ids)
        self._ids = {token: id for id, token in enumerate(tokens) if id not in special}
        self._longest = max(map(len, self._ids), default=0)
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        """The ids of a text, as the model's own tokenizer has them if it changes nothing in it."""
        content = text.encode() if isinstance(text, str) else text
        ids = self._tokenizer.encode_plain(content.decode(errors="ignore"))
        same = b"".join(self.tokens[id] for id in ids if id < len(self.tokens)) == content
        return ids if same else self._greedy(content)

    def _greedy(self, content: bytes) -> list[int]:
        """The ids of the longest tokens from left to right; bytes that no token has are skipped."""
        ids: list[int] = []
        at = 0
        while at < len(content):
            ends = range(min(at + self._longest, len(content)), at, -1)
            end = next((end for end in ends if content[at:end] in self._ids), None)
            if end is not None:
                ids.append(self._ids[content[at:end]])
            at = end or at + 1
        return ids


@dataclass(frozen=True)
class Form:
    """What an answer must be.

    Attributes:
        name: The option that says so.
        grammar: The grammar of an answer, as the library takes it.
        bare: That of the form alone, of which the library says more clearly what is wrong.
        size: How many characters its largest part has, or about so many.
        phrases: Texts that it has, the shortest.
    """

    name: str
    grammar: str
    bare: str
    size: int
    phrases: Sequence[str] = ()


def form_of(asked: TextOptions, blank: bool) -> Form:
    """What a schema, a regular expression or a choice says that an answer must be.

    Args:
        asked: The one that is given.
        blank: Whether answers begin with a blank.

    Raises:
        ValueError: It is too long.
    """
    from llguidance import LLMatcher

    if asked.json_schema is not None:
        asked_for = json.loads(str(asked.json_schema))  # it is text since the request is made
        schema = _styled(asked_for)
        bare = LLMatcher.grammar_from_json_schema(schema)
        grammar, size = _lark(f"%json {schema}", blank), schema_size(asked_for)
        return Form("json_schema", grammar, bare, size, _shortest(_constants(asked_for)))
    name = "choice" if asked.regex is None else "regex"
    regex = "|".join(map(_escaped, asked.choices)) if asked.regex is None else asked.regex
    if sum(map(len, asked.choices or regex)) > MAX_REGEX:
        raise ValueError(f"{name} has more than {MAX_REGEX:,} characters")
    try:
        regex.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} cannot be used: it has half a character") from None
    bare = LLMatcher.grammar_from_regex(regex)
    grammar, size = _lark(_quoted(regex), blank), _size(asked, regex)
    literals = LITERAL.findall(asked.regex or "")
    led = [f" {text}" for text in literals] if blank else []
    return Form(name, grammar, bare, size, _shortest([*literals, *led]))


def _size(asked: TextOptions, regex: str) -> int:
    return max(map(len, asked.choices)) if asked.regex is None else regex_size(regex)


def _constants(schema: Mapping[str, Any]) -> list[str]:
    """The constants of a schema as an answer has them behind the quote that they begin with."""
    written = (json.dumps(value, ensure_ascii=False) for value in schema_literals(schema))
    return [text.removeprefix('"') for text in written]


def _shortest(texts: Sequence[str]) -> list[str]:
    return sorted(set(texts), key=lambda text: (len(text), text))[:PHRASES]


def _quoted(regex: str) -> str:
    """A regular expression as a part of a larger grammar."""
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(regex)}/"


def _lark(answer: str, blank: bool) -> str:
    from llguidance import LLMatcher

    start = '" " answer' if blank else "answer"
    return LLMatcher.grammar_from_lark(f"start: {start}\nanswer: {answer}")


def _styled(schema: Mapping[str, Any]) -> str:
    own = schema.get("x-guidance")
    style = JSON_STYLE | (own if isinstance(own, dict) else {})
    return json.dumps({**schema, "x-guidance": style})


def _escaped(text: str) -> str:
    """A text as a regular expression that matches it alone."""
    return re.sub(r"[^A-Za-z0-9]", lambda found: rf"\x{{{ord(found[0]):X}}}", text)
