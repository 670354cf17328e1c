"""Where random streams stand, as plain values that JSON holds."""

import random
from typing import Any

import torch


def plain_state(rng: random.Random) -> list[Any]:
    """Where a stream of Python stands."""
    version, words, gauss = rng.getstate()
    return [version, list(words), gauss]


def set_plain_state(rng: random.Random, state: list[Any]) -> None:
    """Go on from where `plain_state` was taken."""
    version, words, gauss = state
    rng.setstate((version, tuple(words), gauss))


def plain_generator(generator: torch.Generator) -> list[int]:
    """Where a stream of torch stands."""
    return generator.get_state().tolist()


def set_plain_generator(generator: torch.Generator, state: list[int]) -> None:
    """Go on from where `plain_generator` was taken."""
    generator.set_state(torch.tensor(state, dtype=torch.uint8))
