"""Limits of what a text tokenizer's file may ask for, so that a short text stays short."""

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

MAX_GROWTH = 16
"""The most characters that the rewriting steps of a normalizer or decoder may make of one.

Those of published models make two at most. A text of 100,000 characters then takes about 250 MB.
"""

MAX_ADDED_CHARACTERS = 2**21
"""The most characters of all added tokens together; Emu3's have 0.8 million."""


def check_growth(document: Mapping[str, Any]) -> None:
    """Check that a tokenizer.json does not make a long text of a short one.

    The library keeps a place in the original for each byte of a rewritten text, so a replacement of
    100 MB took 14.5 GB.

    Raises:
        ValueError: The normalizer or the decoder may make more than `MAX_GROWTH` characters of one.
    """
    for part in ("normalizer", "decoder"):
        growth = prod(map(_growth, _steps(document.get(part))))
        if growth > MAX_GROWTH:
            raise ValueError(
                f"has a {part} whose replacements make more than {MAX_GROWTH} characters of one"
            )


def check_added(tokens: Iterable[str]) -> None:
    """Check the length of added tokens, of which the libraries make one automaton.

    Args:
        tokens: The tokens. One that several files of a folder list counts once.

    Raises:
        ValueError: They have more than `MAX_ADDED_CHARACTERS` characters in all.
    """
    if sum(map(len, set(tokens))) > MAX_ADDED_CHARACTERS:
        raise ValueError(f"adds tokens of more than {MAX_ADDED_CHARACTERS:,} characters in all")


def _steps(part: Any) -> Iterator[Mapping[str, Any]]:
    """All steps of a normalizer or decoder, which may lie in one another."""
    if isinstance(part, dict):
        yield part
    if isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _steps(inner)


def _growth(step: Mapping[str, Any]) -> int:
    """The most characters that a step makes of one."""
    added = step.get({"Replace": "content", "Prepend": "prepend"}.get(str(step.get("type")), ""))
    if not isinstance(added, str) or not added:
        return 1
    # A step that finds a text which is not empty replaces at least one character by the new ones.
    # A regular expression may match between any two characters.
    found = step.get("pattern")
    replaced = len(found.get("String") or "") if isinstance(found, dict) else 0
    return max(1, len(added) if replaced else 1 + len(added))
