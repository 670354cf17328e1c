"""What a model mostly paints between two neighbours: learned from its own pictures, bounded."""

from collections.abc import Iterable

CAPACITY = 100_000
MOST_VOTES = 15  # so few that a habit which has changed is soon learned anew


class DraftTable:
    """From the tokens to the left of a cell and above it to the token that mostly stands there.

    Each pair of neighbours has one token and its votes (https://doi.org/10.1007/978-94-011-3488-0_5):
    the same token again is a vote for it, another one takes a vote away, and takes its place when
    none is left. If there are too many pairs, all lose half of their votes, and those without any
    are forgotten.

    Args:
        capacity: The most pairs that are kept.

    Attributes:
        learned: How many tokens it was told, beside what it was restored from.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.capacity = capacity
        self.learned = 0
        self._ids: dict[int, int] = {}
        self._votes: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def get(self, left: int | None, above: int | None) -> int | None:
        """The token that mostly stands between two; None if that is not known.

        Args:
            left: The token to the left; None at the picture's edge.
            above: The token above; None at the picture's edge.
        """
        return self._ids.get(_key(left, above))

    def learn(self, left: int | None, above: int | None, id: int) -> None:
        """Note a token that a picture has between two others."""
        key = _key(left, above)
        self.learned += 1
        votes = self._votes.get(key, 0)
        if votes == 0:
            self._make_room()
            self._ids[key], self._votes[key] = id, 1
        elif self._ids[key] == id:
            self._votes[key] = min(votes + 1, MOST_VOTES)
        else:
            self._votes[key] = votes - 1

    def entries(self) -> list[tuple[int, int, int]]:
        """All that it knows, as `restore` takes it: numbers of pairs, tokens and votes."""
        ids, votes = dict(self._ids), dict(self._votes)  # another thread may be learning
        return [(key, id, votes[key]) for key, id in ids.items() if key in votes]

    def restore(self, entries: Iterable[tuple[int, int, int]]) -> None:
        """Know what another table knew, as far as there is room."""
        for key, id, votes in entries:
            if key not in self._ids:
                self._make_room()
            self._ids[key], self._votes[key] = id, min(votes, MOST_VOTES)

    def _make_room(self) -> None:
        while len(self._ids) >= self.capacity:
            left = {key: votes // 2 for key, votes in self._votes.items() if votes > 1}
            self._ids = {key: self._ids[key] for key in left}
            self._votes = left


def _key(left: int | None, above: int | None) -> int:
    """One number for a pair of neighbours; an edge counts as 0."""
    return (0 if left is None else left + 1) << 32 | (0 if above is None else above + 1)
