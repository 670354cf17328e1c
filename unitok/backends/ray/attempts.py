"""Counts attempts, outside the replicas that may die in them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from unitok.extras import need

STARTS = 3  # deaths of a replica while it loads its model, until it is given up
TOGETHER = 2  # attempts of a shard until its lines run one at a time
ALONE = 2  # deaths with a line that runs alone, until it counts as failed


class Attempts:
    """What was begun, and may not have ended. An actor holds it, so calls come one at a time."""

    def __init__(self) -> None:
        """Nothing was begun yet."""
        self._lives: Counter[str] = Counter()
        self._starts: Counter[str] = Counter()
        self._begun: Counter[int] = Counter()

    def start(self, replica: str) -> tuple[int, int]:
        """A replica begins to load its model.

        Args:
            replica: The id of its actor, which it keeps when it is started again.

        Returns:
            How often it began ever, and how often since it was last ready.
        """
        self._lives[replica] += 1
        self._starts[replica] += 1
        return self._lives[replica], self._starts[replica]

    def ready(self, replica: str) -> None:
        """A replica has loaded its model."""
        self._starts[replica] = 0

    def begin(self, line: int) -> int:
        """A shard, or a line alone, is begun.

        Args:
            line: The line; the negative number of its first one for a shard.

        Returns:
            How often it was begun ever.
        """
        self._begun[line] += 1
        return self._begun[line]

    def end(self, line: int) -> None:
        """What was begun has ended, well or not, and the replica lives."""
        self._begun[line] = 0


def start_attempts() -> Any:
    """Start the actor. It needs no processor of its own.

    If its process is killed, it is started again and counts anew, so that a replica may die a few
    times more.
    """
    ray = need("ray", "ray")
    kind = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts)
    return kind.remote()
