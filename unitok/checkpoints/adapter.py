"""Names of parameters: a family says by a `StateDictAdapter` where each of ours is stored."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor


def same(tensor: Tensor) -> Tensor:
    """The tensor as it is."""
    return tensor


@dataclass(frozen=True)
class Stored:
    """Where a parameter of ours is stored in a checkpoint.

    Attributes:
        name: The name of the stored tensor.
        part: Which of the equal parts along its first dimension the parameter is.
        parts: How many such parts the tensor has, as fused queries, keys and values have three.
        load: Turns that part into our parameter.
        store: Turns our parameter into that part.
    """

    name: str
    part: int = 0
    parts: int = 1
    load: Callable[[Tensor], Tensor] = same
    store: Callable[[Tensor], Tensor] = same

    def take(self, stored: Tensor) -> Tensor:
        """Our parameter, out of the tensor that the name holds."""
        return self.load(stored.tensor_split(self.parts)[self.part] if self.parts > 1 else stored)


StateDictAdapter = Callable[[str], Stored]  # from the name of our parameter


def renaming(renames: Iterable[tuple[str, str]]) -> StateDictAdapter:
    """An adapter that changes names alone.

    Args:
        renames: Regular expressions and their replacements, which are all applied, in order.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in renames]

    def stored(key: str) -> Stored:
        for pattern, replacement in compiled:
            key = pattern.sub(replacement, key)
        return Stored(key)

    return stored
