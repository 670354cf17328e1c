"""How an answer that follows a grammar can end: a short search for tokens that complete it."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from unitok.grammar_errors import check_matcher
from unitok_engine import Allow, IdRange

if TYPE_CHECKING:
    from llguidance import LLMatcher

CLOSING = b'"]}'  # what texts, lists and objects of JSON end with
SIGNS = frozenset(string.punctuation.encode())
STRUCTURE = b'"\\[]{},:'  # what may begin or end something in JSON
MASKS = 2**24  # bytes of masks that are kept, as most come again and again
MOST_TRIED = 24  # tokens that are tried at one place
JOINS = 12  # places of an end at which an answer nearby may go on with it, beside the first two
MISSES = 4  # places at the limit after which a search takes it that the others end no earlier

Tokens = tuple[int, ...]


class Vocabulary:
    """The tokens that answers may have, in the order in which a search tries them.

    Attributes:
        bits: The tokens as a mask of bits, eight in a byte, the lowest first.
        stop: A token that ends an answer.
        text: Which tokens begin and end nothing in JSON, bool [size].
        plain: Which of these are whole characters, bool [size].
    """

    def __init__(
        self, spelt: Sequence[bytes], known: NDArray[np.bool_], id_range: IdRange, stop: int
    ) -> None:
        """Sort the tokens.

        Args:
            spelt: The bytes of each token.
            known: Which tokens may be in an answer, bool [size].
            id_range: The last of these ids: those that are sampled from.
            stop: A token that ends an answer.
        """
        self.size, self.stop, self._range = len(known), stop, id_range
        self._allowed: dict[bytes, Allow | None] = {}
        self._most = max(MASKS // self.size, 1)
        self.bits = np.packbits(known, bitorder="little")
        ids = [id for id in np.flatnonzero(known).tolist() if spelt[id]]
        ids.sort(key=lambda id: (spelt[id][0], -len(spelt[id]), id))
        self._ids = np.array(ids, np.int64)
        self._closers = np.array([id for id in ids if not spelt[id].strip(CLOSING)], np.int64)
        self._spelt, self._named = spelt, {spelt[id]: id for id in ids}
        self._first = np.array([(bytes(token) or b"\0")[0] for token in spelt], np.int64)
        self.text, self.plain = np.zeros((2, self.size), np.bool_)
        self.text[[id for id in ids if _is_text(spelt[id])]] = True
        self.plain[[id for id in ids if self.text[id] and _is_whole(spelt[id])]] = True

    def mask(self, matcher: LLMatcher) -> NDArray[np.bool_]:
        """Which tokens a matcher allows next, bool [size]; none if it has failed."""
        return self._unpacked(matcher.compute_bitmask())

    def packed(self, matcher: LLMatcher) -> bytes:
        """The tokens that a matcher allows next, eight in a byte."""
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)[: len(self.bits)]
        return (bits & self.bits).tobytes()

    def length(self, tokens: Tokens) -> int:
        """How many bytes tokens have."""
        return sum(len(self._spelt[id]) for id in tokens)

    def cut(self, tokens: Tokens, size: int) -> Tokens:
        """Tokens without so many of their first bytes."""
        at = 0
        while size > 0 and at < len(tokens):
            size, at = size - len(self._spelt[tokens[at]]), at + 1
        left = self._spelt[tokens[at - 1]][size:] if size < 0 else b""
        return (*self._spell(left), *tokens[at:])

    def _spell(self, text: bytes) -> Iterator[int]:
        """The longest tokens of a text, as far as there are any."""
        while text:
            size = next((n for n in range(len(text), 0, -1) if text[:n] in self._named), len(text))
            if text[:size] in self._named:
                yield self._named[text[:size]]
            text = text[size:]

    def _unpacked(self, bits: bytes) -> NDArray[np.bool_]:
        packed = np.frombuffer(bits, np.uint8)[: len(self.bits)] & self.bits
        return np.unpackbits(packed, count=self.size, bitorder="little").view(np.bool_)

    def allowed(self, matcher: LLMatcher) -> Allow | None:
        """What a matcher allows next; None if that is nothing. Of equal masks there is one."""
        bits, known = matcher.compute_bitmask(), self._allowed
        if bits in known:
            return known[bits]
        mask = torch.from_numpy(self._unpacked(bits)[self._range.start :])
        allow = Allow(self._range, mask) if mask.any() else None
        if len(known) >= self._most:
            self._allowed = known = {}  # a new one: another thread may look into the old one
        known[bits] = allow
        return allow

    def closers(self, mask: NDArray[np.bool_]) -> list[int]:
        """Of the tokens of a mask that only close something, the longest ones."""
        return self._longest(self._closers, mask)[::-1]

    def others(self, mask: NDArray[np.bool_], turn: int) -> list[int]:
        """Of the tokens of a mask that begin with one byte, the longest; for some bytes a turn.

        Signs come first, at each turn, since they are what mostly ends a text of letters.
        """
        found = self._longest(self._ids, mask)
        signs = [id for id in found if int(self._first[id]) in SIGNS]
        rest = [id for id in found if int(self._first[id]) not in SIGNS]
        step = -(-len(rest) // MOST_TRIED) or 1
        return signs + rest[turn % step :: step]

    def _longest(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> list[int]:
        """Of those that are in a mask, the longest one for each first byte."""
        found = ids[mask[ids]]
        first = self._first[found]
        return found[np.flatnonzero(np.diff(first, prepend=-1))].tolist()


def _is_text(token: bytes) -> bool:
    return set(token).isdisjoint(STRUCTURE)


def _is_whole(token: bytes) -> bool:
    try:
        return bool(token.decode())
    except UnicodeDecodeError:  # a part of a character
        return False


@dataclass(frozen=True)
class End:
    """What a search for an end came to.

    Attributes:
        tokens: The tokens that complete the answer; None if none were found.
        tries: How many places were gone on from.
        settled: Whether no other search would find more: there is an end, or each kind of place was
            gone on from and none leads to an end in time. Otherwise the search gave up.
    """

    tokens: Tokens | None
    tries: int
    settled: bool = True


@dataclass(frozen=True)
class Limits:
    """How far a search goes.

    Attributes:
        most: How many tokens there may be.
        tries: How many places are gone on from.
        near: How many of these in a search of small steps alone, which finds shorter ends. The
            others are of a search that tries constants and leaps as well.
    """

    most: int
    tries: int
    near: int = 0


def find_end(
    matcher: LLMatcher,
    words: Vocabulary,
    limits: Limits,
    phrases: Sequence[Tokens] = (),
    hint: Tokens = (),
) -> End:
    """Look for tokens that complete an answer: the fewest that a short search finds, or nearly so.

    Places of an answer that allow the same tokens, and force the same, are mostly alike. So those
    that allow something new are gone on from first, the nearest first. After them come the others,
    the furthest first: a text that must have a hundred letters is alike at each of them. When these
    lie beyond the limit, there is nothing new to find.

    Args:
        matcher: Stands where the search begins, and stays there.
        words: The tokens.
        limits: How far it goes.
        phrases: Tokens that are tried one behind the other where a text begins.
        hint: An end of a place before, with which this one may go on as well.

    Raises:
        ValueError: The grammar is too complex.
    """
    tries = min(limits.near, limits.tries)
    near = _searched(_Search(matcher.deep_copy(), words, limits.most, hint), tries)
    if near.tokens is not None or tries == limits.tries:
        return near
    far = _Search(matcher.deep_copy(), words, limits.most, hint, phrases, leaps=True)
    found = _searched(far, limits.tries - near.tries)
    return End(found.tokens, near.tries + found.tries, found.settled)


def _searched(search: _Search, tries: int) -> End:
    for tried in range(tries):
        if search.joined is not None:
            return End(search.joined, tried)
        place = search.next() if search.misses < MISSES else None
        check_matcher(search.matcher)
        if place is None:
            return End(None, tried)
        if search.matcher.is_accepting():
            return End(place.path, tried)
        search.branch(place)
    return End(search.joined, tries, settled=search.joined is not None)


def joined(
    matcher: LLMatcher, words: Vocabulary, end: Tokens, most: int, behind: Tokens
) -> Tokens | None:
    """Complete an answer as one before it: with what must follow, and the last part of that end.

    Of some ways to do so, the shortest is taken. One leaves out as many bytes as came since.

    Args:
        matcher: Stands where the answer is, and stays there.
        words: The tokens.
        end: The tokens that complete the other one.
        most: How many tokens there may be.
        behind: The tokens between the two places.
    """
    rests = [*(end[start:] for start in _starts(end)), words.cut(end, words.length(behind))]
    rests.sort(key=len)
    forced = tuple(matcher.compute_ff_tokens())
    for before in ((), forced)[: 1 + bool(forced)]:
        for rest in rests:
            tokens = (*before, *rest)
            whole = [*tokens, words.stop]
            if len(tokens) <= most and matcher.validate_tokens(whole) == len(whole):
                return tokens
    return None


def _starts(end: Tokens) -> Iterator[int]:
    """Where a part of an end begins: its first two tokens, and the first ones of other tokens."""
    changes = (at for at in range(2, len(end) + 1) if end[at - 1 : at] != end[at : at + 1])
    return chain(range(min(len(end), 1) + 1), islice(changes, JOINS))


@dataclass(frozen=True, order=True)
class _Place:
    """A place of an answer. The least one is gone on from first.

    Attributes:
        alike: Whether it is like one that was found before.
        far: How far it is from the start, so that the best comes first.
        same: Whether it is like the place before it, so that nothing seems to be gained.
        left: Minus the bytes of its text, if that must be long.
        number: How many were found before.
        steps: How many choices lead there.
        path: The tokens that lead there.
    """

    alike: bool
    far: int
    same: bool
    left: int
    number: int
    steps: int
    path: Tokens


class _Search:
    """Places of an answer that were found and not gone on from, and a matcher that goes to them.

    Attributes:
        matcher: Stands at the place that `next` gave.
        misses: How many places were gone on from, behind which all was alike, and beyond the limit.
        joined: Tokens that complete the answer, if a place was noted that goes on with the hint.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        words: Vocabulary,
        most: int,
        hint: Tokens,
        phrases: Sequence[Tokens] = (),
        leaps: bool = False,
    ) -> None:
        self.matcher, self.misses = matcher, 0
        self.joined: Tokens | None = None
        self._words, self._most, self._hint = words, most, hint
        self._phrases, self._leaps = phrases, leaps
        self._at: Tokens = ()
        self._masks: dict[bytes, bytes] = {}  # each mask that was seen, once
        self._seen: set[tuple[bytes, Tokens]] = set()
        self._found: list[_Place] = []
        self._turns: Counter[bytes] = Counter()  # places gone on from, by what they allow
        self._count = 0
        self._note((), 0, b"")

    def next(self) -> _Place | None:
        """Go to the place that is next."""
        while self._found:
            place = heappop(self._found)
            if self._go(place.path):
                return place
        return None

    def branch(self, place: _Place) -> None:
        """Note the places behind this one. Where something closes, the rest is for later."""
        key, mask = self._packed(), self._words.mask(self.matcher)
        turn, self._turns[key] = self._turns[key], self._turns[key] + 1
        others = [(id,) for id in self._words.others(mask, turn)]
        phrases = () if place.same else self._phrases
        closers = [(id,) for id in self._words.closers(mask)]
        count = len(self._found)
        self._note_each(place, phrases, key)
        for ways in (closers, others):
            if self._note_each(place, ways, key):
                return
        if others and self._leaps:
            self._leap(place, max(others, key=self._words.length), key)
        self.misses += self._leaps and len(self._found) == count

    def _note_each(self, place: _Place, ways: Sequence[Tokens], before: bytes) -> bool:
        """Note the places behind one; whether any is new, or completes the answer."""
        new = False
        for way in ways:
            new |= self._note((*place.path, *way), place.steps + 1, before)
            if self.joined is not None:
                return True
        return new

    def _leap(self, place: _Place, one: Tokens, before: bytes) -> None:
        """Note places behind one token 2, 4, 8 and more times, as often as it may come."""
        for times in _doubled(self._most - len(place.path)):
            whole = self._go((*place.path, *one * times))
            self._note(self._at, place.steps + 1, before)
            if not whole:
                return

    def _note(self, path: Tokens, steps: int, before: bytes) -> bool:
        """Note a place, behind what must follow; whether it is like none that was noted before."""
        if not self._go(path):
            return False
        forced = tuple(self.matcher.compute_ff_tokens())
        path = (*path, *forced)
        if len(path) > self._most:
            if len(forced) > self._most:
                self._go(path)  # the matcher fails if this has no end
            return False
        allowed = self._packed()
        new = (allowed, forced) not in self._seen
        self._seen.add((allowed, forced))
        self._count += 1
        far, left = len(path) if new else -steps, 0
        if self._leaps and not new:
            left = -self._words.length(path)
        same = allowed == before
        heappush(self._found, _Place(not new, far, same, left, self._count, steps, path))
        if self._hint:
            self._join(path)
        return new

    def _join(self, path: Tokens) -> None:
        if self._go(path):
            rest = joined(self.matcher, self._words, self._hint, self._most - len(path), path)
            self.joined = None if rest is None else (*path, *rest)

    def _packed(self) -> bytes:
        bits = self._words.packed(self.matcher)
        return self._masks.setdefault(bits, bits)

    def _go(self, path: Tokens) -> bool:
        """Whether the matcher could go to a place; otherwise it stands as near as it could."""
        pairs = enumerate(zip(self._at, path, strict=False))
        least = min(len(self._at), len(path))
        same = next((i for i, (a, b) in pairs if a != b), least)
        if len(self._at) > same:
            self.matcher.rollback(len(self._at) - same)
        done = self.matcher.try_consume_tokens(list(path[same:])) if len(path) > same else 0
        self._at = path[: same + done]
        return self._at == path


def _doubled(most: int) -> Iterator[int]:
    """2, 4, 8 and so on, and the most."""
    times = 2
    while times < most:
        yield times
        times *= 2
    if most > 1:
        yield most
