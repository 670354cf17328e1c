"""The suites by name. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unitok.evaluation.suite import Suite, SuiteOptions


@dataclass(frozen=True)
class SuiteEntry:
    """How a suite is made.

    Attributes:
        help: What it asks, and what its data are, in a sentence.
        make: Makes it of options; ValueError or OSError if the data are wrong.
        needs_data: Whether the user has to name a file or a folder.
    """

    help: str
    make: Callable[[SuiteOptions], Suite]
    needs_data: bool = True


def _emoji(options: SuiteOptions) -> Suite:
    from unitok.emoji.evaluation import EmojiSuite

    return EmojiSuite(options)


SUITES: dict[str, SuiteEntry] = {
    "emoji": SuiteEntry(
        "Drawings, captions and answers of held-out scenes of the emoji world.", _emoji, False
    ),
}
