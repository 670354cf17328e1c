"""Contiguous ranges of token ids."""

from dataclasses import dataclass


@dataclass(frozen=True)
class IdRange:
    """The token ids `start <= id < stop`."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"an id range needs 0 <= start < stop, not {self.start}..{self.stop}")

    @property
    def size(self) -> int:
        """How many token ids there are."""
        return self.stop - self.start

    def __contains__(self, id: int) -> bool:
        return self.start <= id < self.stop
