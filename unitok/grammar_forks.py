"""Which of the tokens that a grammar allows leave an answer an end in time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unitok.grammar_ends import Limits, Tokens, Vocabulary, find_end

if TYPE_CHECKING:
    from llguidance import LLMatcher

FEW = 64  # tokens of which each is tried, whether the answer could still end as it would now
PROBES = 4  # of the tokens of plain text, which are taken to be alike
TRIES = 30  # places that a search for another end goes on from, behind one token
ALL_TRIES = 100  # and behind all tokens of one fork


@dataclass(frozen=True)
class Fork:
    """A place of an answer, with an end that is known.

    Attributes:
        matcher: Stands at this place.
        words: The tokens.
        phrases: See `find_end`.
        end: The tokens with which the answer ends here.
        stop_ids: The tokens that end an answer.
        left: How many tokens may come behind one that is chosen here.
        ample: Whether so many are left that a token is kept of which nothing is known.
    """

    matcher: LLMatcher
    words: Vocabulary
    phrases: Sequence[Tokens]
    end: Tokens
    stop_ids: frozenset[int]
    left: int
    ample: bool

    def kept(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The tokens of a mask behind which the answer can still end in time.

        Each of a few is tried. Of many, those of plain text are taken to be alike if some of them
        are. Behind most, the answer must be able to end as it would now; behind some, another end
        is looked for.
        """
        plain = mask & self.words.plain if mask.sum() > FEW else np.zeros_like(mask)
        others = mask & ~plain
        texts = [id for id in np.flatnonzero(plain).tolist() if (id,) != self.end[:1]]
        probes = texts[:: max(len(texts) // PROBES, 1)]
        tried = [*probes, *np.flatnonzero(others)[:FEW].tolist()]
        fit = {id for id in tried if self._ends_alike(id)}
        fit |= self._ending_anew(id for id in tried if id not in fit)
        kept = others if self.ample else np.zeros_like(mask)
        kept[tried] = False
        kept[[self.end[0] if self.end else min(self.stop_ids), *fit]] = True
        if probes and fit.issuperset(probes):
            kept |= plain
        return kept

    def _ends_alike(self, id: int) -> bool:
        """Whether the answer can end behind a token as it can end here, or ends with it."""
        if id in self.stop_ids or self.end[:1] == (id,):
            return True
        whole = [id, *self.end, min(self.stop_ids)]
        return len(self.end) <= self.left and self.matcher.validate_tokens(whole) == len(whole)

    def _ending_anew(self, ids: Iterable[int]) -> set[int]:
        """The tokens behind which there is another end, as far as these are tried."""
        far, found, left = set[tuple[bytes, Tokens]](), set[int](), ALL_TRIES
        for id in ids:
            matcher = self.matcher.deep_copy()
            matcher.consume_token(id)
            kind = self.words.packed(matcher), tuple(matcher.compute_ff_tokens())
            if kind in far:  # as another, which was too far from any end
                continue
            fits, tries = self._ends(matcher, min(TRIES, left))
            left -= tries
            if fits:
                found.add(id)
            else:
                far.add(kind)
        return found

    def _ends(self, matcher: LLMatcher, most: int) -> tuple[bool, int]:
        """Whether an answer can end where a matcher stands, and what it took to say so."""
        try:
            end = find_end(matcher, self.words, Limits(self.left, most), self.phrases, self.end)
        except ValueError:  # the search is a try: the answer may still end by itself
            return self.ample, most
        return end.tokens is not None or (self.ample and not end.settled), end.tries
