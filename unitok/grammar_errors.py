"""What is wrong with a grammar, in a line of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from unitok.terminal import one_line

if TYPE_CHECKING:
    from llguidance import LLMatcher

LONGEST_REASON = 300  # characters of the library's own message


def reason(problem: str) -> str:
    """What is wrong, in a line, of a message of llguidance, which quotes the grammar at length."""
    said = re.split(r"\n\s*1 \| |\n<", problem, maxsplit=1)[0]
    line = one_line(said.rpartition("error: ")[2] or said)
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]} ..."


def check_matcher(matcher: LLMatcher) -> None:
    """Raise ValueError if a matcher has failed."""
    if matcher.is_error():
        raise ValueError(f"no answer can be found: {reason(matcher.get_error())}")
