"""Which of the tokens that a grammar allows leave an answer an end in time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unitok.grammar_ends import End, Limits, Tokens, Vocabulary, find_end, joined

if TYPE_CHECKING:
    from llguidance import LLMatcher

FEW = 64  # tokens of which each is tried, whether the answer could still end as it would now
PROBES = 4  # of the tokens of plain text, which are taken to be alike
TRIES = 24  # places that the searches for other ends of one fork go on from
FEWER_TRIES = 8  # the same, where few tokens are left

Kind = tuple[bytes, Tokens]


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
        ample: Whether many more are left than the end takes.
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
        fit. Where many tokens are left, so are the others, and parts of characters are as plain.
        """
        alike = self.words.text if self.ample else self.words.plain
        text = mask & alike if mask.sum() > FEW else np.zeros_like(mask)
        others, plain = mask & ~text, text & self.words.plain
        texts = [id for id in np.flatnonzero(plain).tolist() if (id,) != self.end[:1]]
        probes, few = texts[:: max(len(texts) // PROBES, 1)], np.flatnonzero(others)[:FEW].tolist()
        fit = self._fitting([*probes, *few])
        kept = np.zeros_like(mask)
        kept[[self.end[0] if self.end else self.words.stop, *fit]] = True
        if fit.issuperset(probes) and probes:
            kept |= text
        if fit.issuperset(few) and self.ample:
            kept |= others
        return kept

    def _fitting(self, ids: Iterable[int]) -> set[int]:
        """The tokens behind which the answer can end as here, or as behind another, or anew."""
        fit = {id for id in ids if self._ends_alike(id)}
        ends, far, tries = [self.end], set[Kind](), TRIES if self.ample else FEWER_TRIES
        for id in ids:
            if id in fit:
                continue
            matcher = self.matcher.deep_copy()
            matcher.consume_token(id)
            if any(self._goes_on(matcher, id, end) for end in ends):
                fit.add(id)
            elif (kind := self._kind(matcher)) not in far:
                end = self._new_end(matcher, tries)
                tries -= end.tries
                if end.tokens is None:
                    far.add(kind)
                else:
                    fit.add(id)
                    ends.append(end.tokens)
        return fit

    def _ends_alike(self, id: int) -> bool:
        """Whether the answer can end behind a token as it can end here, or ends with it."""
        if id in self.stop_ids or self.end[:1] == (id,):
            return True
        whole = [id, *self.end, self.words.stop]
        return len(self.end) <= self.left and self.matcher.validate_tokens(whole) == len(whole)

    def _goes_on(self, matcher: LLMatcher, id: int, end: Tokens) -> bool:
        """Whether the answer can go on behind a token with the last part of an end."""
        return joined(matcher, self.words, end, self.left, (id,)) is not None

    def _kind(self, matcher: LLMatcher) -> Kind:
        """What may and what must come: places that have this in common are mostly alike."""
        return self.words.packed(matcher), tuple(matcher.compute_ff_tokens())

    def _new_end(self, matcher: LLMatcher, tries: int) -> End:
        try:
            return find_end(matcher, self.words, Limits(self.left, tries), self.phrases, self.end)
        except ValueError:  # the search is a try, and this token is left out
            return End(None, tries, settled=False)
