"""A plan of text that follows a grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unitok.terminal import one_line
from unitok_engine import Allow, Force, FreePlan, Stop

if TYPE_CHECKING:
    from llguidance import LLMatcher

LONGEST_REASON = 300  # characters of the library's own message


class GrammarPlan:
    """Text that follows a grammar, until it is complete. It is a `unitok_engine.Plan`.

    The matcher stands behind the tokens of the last call. It goes back when other tokens are asked
    about, so that the plan depends on the emitted tokens alone. One thread may use it at a time.
    """

    def __init__(self, text: FreePlan, matcher: LLMatcher, known: Tensor) -> None:
        """Begin before the first token.

        Args:
            text: What any answer may be.
            matcher: Of the grammar, at its start.
            known: Which ids of the text's range the matcher may allow, bool [size].
        """
        self._text, self._matcher = text, matcher
        self._known = known if text.mask is None else known & text.mask
        self._end = min(text.stop_ids)
        self._followed: list[int] = []  # the tokens that the matcher stands behind
        self._run: list[int] = []  # tokens that must follow on the first `_run_start` of these
        self._run_start = 0

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
            return Stop("stop", drop=1)
        self._follow(emitted)
        if len(emitted) >= self._text.max_tokens:
            return self._cut()
        if self._matcher.is_stopped():
            self._check()
            return Force(self._end)
        forced = self._next_forced()
        return self._allowed() if forced is None else Force(forced)

    def _cut(self) -> Stop:
        """The end at the most tokens."""
        if self._matcher.is_accepting():
            return Stop("stop")
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

    def _follow(self, emitted: Sequence[int]) -> None:
        """Bring the matcher behind these tokens."""
        same = len(self._followed)
        if self._followed != emitted[:same]:
            pairs = zip(self._followed, emitted, strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(same, len(emitted)))
            self._matcher.rollback(len(self._followed) - same)
            del self._followed[same:]
            if same < self._run_start:
                self._run = []
        new = list(emitted[same:])
        if new and self._matcher.try_consume_tokens(new) < len(new):
            self._check()
            raise ValueError("the tokens do not follow the grammar")
        self._followed += new

    def _allowed(self) -> Allow:
        """The tokens that the grammar allows next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        size = self._text.id_range.size
        mask = torch.from_numpy(np.unpackbits(bits, count=size, bitorder="little")).bool()
        mask &= self._known
        if not mask.any():
            raise ValueError("the model's tokenizer has no token with which the answer could go on")
        return Allow(self._text.id_range, mask)

    def _check(self) -> None:
        """Raise ValueError if the matcher has failed."""
        if self._matcher.is_error():
            raise ValueError(f"no answer can be found: {reason(self._matcher.get_error())}")


def reason(problem: str) -> str:
    """What is wrong, in a line, of a message of llguidance, which quotes the grammar at length."""
    said = re.split(r"\n\s*1 \| |\n<", problem, maxsplit=1)[0]
    line = one_line(said.rpartition("error: ")[2] or said)
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]} ..."
