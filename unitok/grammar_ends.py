"""How an answer that follows a grammar can end: a short search for tokens that complete it."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
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
STRUCTURE = '"\\[]{},:'  # what may begin or end something in JSON
MASKS = 2**24  # bytes of masks that are kept, as most come again and again
MOST_TRIED = 24  # tokens that are tried at one place

Tokens = tuple[int, ...]


class Vocabulary:
    """The tokens that answers may have, in the order in which a search tries them.

    Attributes:
        bits: The tokens as a mask of bits, eight in a byte, the lowest first.
        plain: Which tokens are whole characters that begin and end nothing in JSON, bool [size].
    """

    def __init__(self, spelt: Sequence[bytes], known: NDArray[np.bool_], id_range: IdRange) -> None:
        """Sort the tokens.

        Args:
            spelt: The bytes of each token.
            known: Which tokens may be in an answer, bool [size].
            id_range: The last of these ids: those that are sampled from.
        """
        self.size, self._range = len(known), id_range
        self._allowed: dict[bytes, Allow | None] = {}
        self._most = max(MASKS // self.size, 1)
        self.bits = np.packbits(known, bitorder="little")
        ids = [id for id in np.flatnonzero(known).tolist() if spelt[id]]
        ids.sort(key=lambda id: (spelt[id][0], -len(spelt[id]), id))
        self._ids = np.array(ids, np.int64)
        self._closers = np.array([id for id in ids if not spelt[id].strip(CLOSING)], np.int64)
        self._first = np.array([(bytes(token) or b"\0")[0] for token in spelt], np.int64)
        self.plain = np.zeros(self.size, np.bool_)
        self.plain[[id for id in ids if _is_plain(spelt[id])]] = True

    def mask(self, matcher: LLMatcher) -> NDArray[np.bool_]:
        """Which tokens a matcher allows next, bool [size]; none if it has failed."""
        return self._unpacked(matcher.compute_bitmask())

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


def _is_plain(token: bytes) -> bool:
    try:
        return set(token.decode()).isdisjoint(STRUCTURE)
    except UnicodeDecodeError:  # a part of a character
        return False


def find_end(matcher: LLMatcher, words: Vocabulary, most: int, tries: int) -> Tokens | None:
    """Tokens that complete an answer: the fewest that a short search finds, or nearly so.

    Places of an answer that allow the same tokens, and force the same, are mostly alike. So those
    that allow something new are gone on from first, the nearest first. After them come the others,
    the furthest first: a text that must have a hundred letters is alike at each of them.

    Args:
        matcher: Stands where the search begins, and stays there.
        words: The tokens.
        most: How many tokens there may be.
        tries: How many places are gone on from.

    Returns:
        The tokens; None if none were found.

    Raises:
        ValueError: The grammar is too complex.
    """
    search = _Search(matcher.deep_copy(), words)
    for _ in range(tries):
        place = search.next()
        check_matcher(search.matcher)
        if place is None:
            return None
        if len(place.path) > most:
            continue
        if search.matcher.is_accepting():
            return place.path
        search.branch(place)
    return None


@dataclass(frozen=True, order=True)
class _Place:
    """A place of an answer. The least one is gone on from first.

    Attributes:
        alike: Whether it is like one that was found before.
        far: How far it is from the start, so that the best comes first.
        same: Whether it is like the place before it, so that nothing seems to be gained.
        number: How many were found before.
        steps: How many choices lead there.
        path: The tokens that lead there.
    """

    alike: bool
    far: int
    same: bool
    number: int
    steps: int
    path: Tokens


class _Search:
    """Places of an answer that were found and not gone on from, and a matcher that goes to them."""

    def __init__(self, matcher: LLMatcher, words: Vocabulary) -> None:
        self.matcher, self._words = matcher, words
        self._at: Tokens = ()
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
        mask = self._words.mask(self.matcher)
        key = mask.tobytes()
        turn, self._turns[key] = self._turns[key], self._turns[key] + 1
        for tokens in (self._words.closers(mask), self._words.others(mask, turn)):
            paths = [(*place.path, id) for id in tokens]
            alike = [self._note(path, place.steps + 1, key) for path in paths]
            if tokens and not all(alike):
                return

    def _note(self, path: Tokens, steps: int, before: bytes) -> bool:
        """Note a place, behind what must follow; whether it is like one that was noted before."""
        if not self._go(path):
            return True
        forced = tuple(self.matcher.compute_ff_tokens())
        allowed = self._words.mask(self.matcher).tobytes()
        alike = (allowed, forced) in self._seen
        self._seen.add((allowed, forced))
        self._count += 1
        path = (*path, *forced)
        far, same = -steps if alike else len(path), allowed == before
        heappush(self._found, _Place(alike, far, same, self._count, steps, path))
        return alike

    def _go(self, path: Tokens) -> bool:
        """Whether the matcher could go to a place."""
        pairs = enumerate(zip(self._at, path, strict=False))
        least = min(len(self._at), len(path))
        same = next((i for i, (a, b) in pairs if a != b), least)
        if len(self._at) > same:
            self.matcher.rollback(len(self._at) - same)
        done = self.matcher.try_consume_tokens(list(path[same:])) if len(path) > same else 0
        self._at = path[: same + done]
        return self._at == path
