"""A plan of text that follows a grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from unitok.grammar_ends import End, Limits, Tokens, Vocabulary, find_end, joined
from unitok.grammar_errors import check_matcher
from unitok.grammar_forks import Fork
from unitok_engine import Allow, Force, FreePlan, Stop

if TYPE_CHECKING:
    from llguidance import LLMatcher

# Tokens that are left when an answer is ended, beside those that end it: as many as a short answer
# has, since one token may open what takes as many, but within these bounds.
RESERVE = 16
MOST_RESERVE = 64
WATCHED = 40  # tokens that are left when an answer is watched, beside twice that
SPARE = 8  # tokens that stay over, as text that must come may be spelt in more of them than here
TRIES = 300  # places of an answer that a search for its end goes on from
FIRST = 24  # of these, that try an end of the place before, or a short answer
NEAR = 60  # of the others, in small steps alone
ALL_TRIES = 1200  # the same, of all such searches of a plan
AGAIN = 16  # where no end was found, one is looked for again behind so many tokens
# When no more tokens are left, one is looked for behind each token, and in small steps alone: the
# fewer are left, the fewer ways a search has to try.
CLOSE = 64


class GrammarPlan:
    """Text that follows a grammar, until it is complete. It is a `unitok_engine.Plan`.

    When few tokens are left, only those are allowed behind which the answer can still end in time.

    The matcher stands behind the tokens of the last call. It goes back when other tokens are asked
    about, so that the plan depends on the emitted tokens alone. One thread may use it at a time.
    """

    def __init__(
        self,
        text: FreePlan,
        matcher: LLMatcher,
        words: Vocabulary,
        shortest: Tokens | None,
        phrases: Sequence[Tokens] = (),
        size: int = 0,
    ) -> None:
        """Begin before the first token.

        Args:
            text: What any answer may be.
            matcher: Of the grammar, at its start.
            words: The tokens that the matcher may allow.
            shortest: A short answer, if one is known.
            phrases: See `find_end`.
            size: How many tokens the largest part of an answer may take, or about so many. When
                fewer are left, each choice is checked for whether it can end in time.
        """
        self._text, self._matcher, self._words = text, matcher, words
        self._phrases = phrases
        self._followed: list[int] = []  # the tokens that the matcher stands behind
        self._run: list[int] = []  # tokens that must follow on the first `_run_start` of these
        self._run_start = 0
        self._shortest = shortest or ()
        least = len(self._shortest)
        self._reserve = min(max(least, RESERVE), MOST_RESERVE)
        self._size = max(self._reserve, size)
        self._spare = min(SPARE, text.max_tokens - least)
        self._watched = max(text.max_tokens - WATCHED - 2 * self._size, 0)
        # A way to end the answer behind the first `_watched` tokens, behind one more, and so on.
        self._ends: list[_Known] = [] if self._watched else [_Known(shortest, 0)]
        self._narrowed: int | None = None  # behind so many tokens, for the first time

    @property
    def max_length(self) -> int:
        """See `Plan.max_length`."""
        return self._text.max_tokens

    @property
    def exact(self) -> bool:
        """See `Plan.exact`."""
        return False

    def next(self, emitted: Sequence[int]) -> Allow | Force | Stop:
        """See `Plan.next`.

        Raises:
            ValueError: The answer is not complete after `max_tokens`, the grammar is too complex,
                or the tokenizer has no token to go on with.
        """
        if emitted and emitted[-1] in self._text.stop_ids:
            self._follow(emitted[:-1])
            return self._stop(drop=1)
        self._follow(emitted)
        if len(emitted) >= self._text.max_tokens:
            return self._cut()
        if self._matcher.is_stopped():
            check_matcher(self._matcher)
            return Force(self._words.stop)
        forced = self._next_forced()
        return self._allowed() if forced is None else Force(forced)

    def _stop(self, drop: int = 0) -> Stop:
        """The end of an answer, which says whether too few tokens were left for any other."""
        return Stop("stop" if self._narrowed is None else "length", drop)

    def _cut(self) -> Stop:
        """The end at the most tokens."""
        if self._matcher.is_accepting():
            return self._stop()
        most = self._text.max_tokens
        raise ValueError(
            f"the answer was not complete after {most} tokens: raise max_tokens, or ask for less"
        )

    def _next_forced(self) -> int | None:
        """The only token with which the text that must come next is spelt as usual, if any must.

        A whole run of them is found at once, because that takes long for a long one.
        """
        here = len(self._followed)
        if not self._run_start <= here < self._run_start + len(self._run):
            self._run_start, self._run = here, self._matcher.compute_ff_tokens()
        return self._run[here - self._run_start] if self._run else None

    # -- where the matcher stands

    def _follow(self, emitted: Sequence[int]) -> None:
        """Bring the matcher behind these tokens."""
        same = len(self._followed)
        if self._followed != emitted[:same]:
            pairs = zip(self._followed, emitted, strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(same, len(emitted)))
            self._go_back(same)
        early = max(self._watched - same, 0)
        self._consume(emitted[same : same + early])
        for id in emitted[same + early :]:
            self._watch()
            self._consume([id])
        if len(emitted) >= self._watched:
            self._watch()

    def _go_back(self, length: int) -> None:
        """Stand behind the first of the tokens only."""
        self._matcher.rollback(len(self._followed) - length)
        del self._followed[length:]
        del self._ends[max(length + 1 - self._watched, 0) :]
        if length < self._run_start:
            self._run = []
        if self._narrowed is not None and self._narrowed >= length:
            self._narrowed = None

    def _consume(self, new: Sequence[int]) -> None:
        if new and self._matcher.try_consume_tokens(list(new)) < len(new):
            check_matcher(self._matcher)
            raise ValueError("the tokens do not follow the grammar")
        self._followed += new

    # -- what may come next

    def _allowed(self) -> Allow:
        """The tokens that the grammar allows next, as far as the answer can end in time."""
        allow = self._words.allowed(self._matcher)
        if allow is None:
            check_matcher(self._matcher)
            raise ValueError("the model's tokenizer has no token with which the answer could go on")
        end = self._ends[-1].end if self._ends else None
        if end is None or not 0 <= self._left - len(end) <= self._size:
            return allow
        mask, kept = self._words.mask(self._matcher), self._in_time(end)
        if self._narrowed is None and not np.array_equal(kept, mask):
            self._narrowed = len(self._followed)
        return Allow(allow.id_range, torch.from_numpy(kept[allow.id_range.start :]))

    @property
    def _left(self) -> int:
        """How many tokens may still come."""
        return self._text.max_tokens - len(self._followed)

    def _watch(self) -> None:
        """See how the answer could end from here, if that is not known."""
        if len(self._ends) > len(self._followed) - self._watched:
            return
        last = self._ends[-1] if self._ends else _Known(None, 0)
        if last.end and last.end[0] == self._followed[-1]:
            self._ends.append(_Known(last.end[1:], last.tries))
        else:
            self._ends.append(self._end_here(last))

    def _end_here(self, last: _Known) -> _Known:
        """How the answer could end from here: as it was known for the place before, or anew."""
        close = self._left <= CLOSE
        if last.end is None and not close and len(self._ends) % AGAIN:
            return last
        if last.end is not None:
            end = joined(self._matcher, self._words, last.end, self._left, (self._followed[-1],))
            if end is not None:
                return _Known(end, last.tries)
        tries = TRIES if close else min(TRIES, ALL_TRIES - last.tries)
        found = End(None, 0)
        hint = last.end or self._shortest
        if hint:
            found = self._new_end(Limits(self._left, min(FIRST, tries)), hint)
        if found.tokens is None:
            last, tries = _Known(None, last.tries + found.tries), tries - found.tries
            near = tries if close else NEAR
            found = self._new_end(Limits(self._left, tries, near), ())
        return _Known(found.tokens, last.tries + found.tries)

    def _new_end(self, limits: Limits, hint: Tokens) -> End:
        try:
            return find_end(self._matcher, self._words, limits, self._phrases, hint)
        except ValueError:  # the search is a try: the answer may still end by itself
            return End(None, limits.tries, settled=False)

    def _in_time(self, end: Tokens) -> NDArray[np.bool_]:
        """The tokens that may come next, and behind which the answer can still end in time."""
        left, ample = self._left - self._spare - 1, self._left - len(end) > self._reserve
        stops = self._text.stop_ids
        fork = Fork(self._matcher, self._words, self._phrases, end, stops, left, ample)
        return fork.kept(self._words.mask(self._matcher))


@dataclass(frozen=True)
class _Known:
    """What is known at a place of an answer.

    Attributes:
        end: The tokens that complete the answer; None if none were found.
        tries: How many places were gone on from to find the ends of all places up to here.
    """

    end: Tokens | None
    tries: int
