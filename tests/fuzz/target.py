"""What is fuzzed: a target makes inputs, and runs them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import unitok

DOCUMENTED = (ValueError, TypeError, OSError)
LONGEST_MESSAGE = 1000
# What Python and its libraries say when they are handed something that nobody has checked. Some of
# it tells enough where the thing is named too.
UNCHECKED = re.compile(
    "has no attribute|positional argument|subscriptable|unhashable|not iterable|"
    "embedded null|'NoneType' |values to unpack|out of range: |index out of|bad operand|"
    "invalid literal for|could not convert|too large to convert|too big to convert|not callable|"
    "not supported between|os.PathLike|surrogates not allowed|maximum recursion|"
    r"unsupported operand|must be real number|truth value|broadcast|expected (str|bytes)\b|"
    "Errno None"
)
UNNAMED = re.compile("codec can't|4300 digits|unexpected keyword")


@dataclass(frozen=True)
class Place:
    """What all targets share.

    Attributes:
        folder: Where files may be written.
        model_folder: The folder of a tiny model.
        model: That model.
    """

    folder: Path
    model_folder: Path
    model: unitok.Model


class Target(Protocol):
    """A part of the program that takes inputs from outside.

    Attributes:
        memory: Bytes that an input may take beside what the program has already.
        permits: What a guard forbids and inputs may ask for in plain words, as a place to write at.
    """

    memory: int
    permits: Collection[str]

    def make(self, random: Random) -> bytes:
        """A random input, often nearly valid."""
        ...

    def run(self, case: bytes) -> None:
        """Give the program an input.

        Raises:
            ValueError, TypeError, OSError: It is refused, as documented.
            AssertionError: It is taken, but what comes out is wrong.
        """
        ...

    def names(self, case: bytes) -> Sequence[str]:
        """Names of which a refusal has at least one; none if any message will do."""
        ...


def check_message(message: str, names: Iterable[str] = ()) -> None:
    """Check that a message is of use for whoever reads it.

    Args:
        message: The message.
        names: Names of things, of which it should have at least one.

    Raises:
        AssertionError: It is empty, long or not ours, or it names nothing.
    """
    names = list(names)
    assert message.strip(), "the message is empty"
    assert len(message) <= LONGEST_MESSAGE, f"the message is long: {message[:300]}..."
    named = any(name in message for name in names)
    foreign = UNCHECKED.search(message) or (None if named else UNNAMED.search(message))
    assert foreign is None, f"the message is Python's own, {foreign and foreign[0]!r}: {message}"
    wanted = ", ".join(names)[:300]
    assert named or not names, f"the message names nothing: {message}\nnor any of {wanted}"
