"""How an answer in words is compared with accepted ones.

In the manner of VQA (https://arxiv.org/abs/1505.00468): case, punctuation and articles do not
matter, and a number may be a word. The score of a longer text is the F1 of its words, as in SQuAD
(https://arxiv.org/abs/1606.05250).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

YES_NO = ("yes", "no")
_ARTICLES = {"a", "an", "the"}
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {name: str(number) for number, name in enumerate(_NAMES)}
_WORD = re.compile(r"\w+(?:[.'’]\w+)*")


def normalised(text: str) -> list[str]:
    """The words that count: in lower case, without articles, numbers as digits.

    Of a text that has nothing else, such as "A" of a choice or a sign, they are what it has.
    """
    words: list[str] = _WORD.findall(text.casefold())
    kept = [_DIGITS.get(word, word) for word in words if word not in _ARTICLES]
    return kept or words or text.casefold().split()


def yes_or_no(text: str) -> str | None:
    """What an answer comes down to: its first word, if that is yes or no."""
    words = normalised(text)
    return words[0] if words and words[0] in YES_NO else None


def is_accepted(text: str, accepted: Sequence[str]) -> bool:
    """Whether an answer is one of those that are accepted.

    Where only yes and no are accepted, the first word decides, as in POPE
    (https://arxiv.org/abs/2305.10355).
    """
    wanted = [normalised(answer) for answer in accepted]
    if all(len(words) == 1 and words[0] in YES_NO for words in wanted):
        return [yes_or_no(text)] in wanted
    return normalised(text) in wanted


def best_f1(text: str, accepted: Sequence[str]) -> float:
    """The F1 of an answer's words with those of the accepted answer that is nearest."""
    return max(_f1(normalised(text), normalised(answer)) for answer in accepted)


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    if not said or not wanted:
        return float(list(said) == list(wanted))
    both = (Counter(said) & Counter(wanted)).total()
    return 2 * both / (len(said) + len(wanted))
