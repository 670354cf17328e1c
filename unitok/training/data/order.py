"""Shuffled orders and chances that depend on their seeds alone, whatever was asked before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from random import Random
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def hashed(*keys: object) -> int:
    """A whole number of 64 bits that depends on numbers and texts alone."""
    return int.from_bytes(hashlib.blake2b(repr(keys).encode(), digest_size=8).digest(), "big")


def chance(*keys: object) -> float:
    """A number in [0, 1) that depends on numbers and texts alone."""
    return hashed(*keys) / 2**64


def permutation(count: int, seed: int | None) -> Iterator[int]:
    """The numbers below a count: shuffled by a seed, or in their order if that is None."""
    if seed is None:
        yield from range(count)
        return
    # numpy promises that this generator gives the same numbers in all its versions.
    generator = np.random.RandomState(seed % 2**32)
    yield from map(int, generator.permutation(count))


def shuffled_in_buffer(items: Iterable[T], size: int, seed: int) -> Iterator[T]:
    """Items in a shuffled order, of which only a buffer is kept.

    Args:
        items: The items.
        size: How many are kept. The next item is one of them.
        seed: Decides the order.
    """
    random, buffer = Random(seed).random, list[T]()
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        at = int(random() * size)
        yield buffer[at]
        buffer[at] = item
    while buffer:
        at = int(random() * len(buffer))
        buffer[at], buffer[-1] = buffer[-1], buffer[at]
        yield buffer.pop()
