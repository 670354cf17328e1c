"""Which combinations training never shows: one tenth of them, by a fixed hash.

Combinations are object x colour, unordered pairs of objects, object x count, and relations of two
objects ("B right of A" is the same as "A left of B"). White is the absence of a colour and never
held out.
"""

import hashlib
from functools import cache

from unitok.emoji.scenes import Scene

ONE_IN = 10


@cache
def heldout(combination: str) -> bool:
    """Whether a combination, written by one of the functions below, is kept from training."""
    digest = hashlib.sha256(combination.encode()).digest()
    return int.from_bytes(digest, "big") % ONE_IN == 0


def on_colour(name: str, colour: str) -> str:
    """The combination of an object and a background colour."""
    return f"{name} on {colour}"


def pair(first: str, second: str) -> str:
    """The combination of two objects, in either order."""
    return " and ".join(sorted((first, second)))


def counted(name: str, count: int) -> str:
    """The combination of an object and how often it occurs."""
    return f"{count} {name}"


def related(first: str, word: str, second: str) -> str:
    """The combination of two objects and their relation; `word` is "left of" or "above"."""
    return f"{first} {word} {second}"


def combinations(scene: Scene) -> tuple[str, ...]:
    """All combinations a scene contains, whatever its caption says."""
    counts = scene.counts
    found = [on_colour(n, scene.background) for n in counts if scene.background != "white"]
    found += [counted(name, count) for name, count in counts.items() if count > 1]
    names = sorted(counts)
    found += [pair(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    relation = scene.relation()
    if relation is not None:
        found.append(related(*relation))
    return tuple(found)


def is_heldout(scene: Scene) -> bool:
    """Whether a scene contains any held-out combination."""
    return any(map(heldout, combinations(scene)))
