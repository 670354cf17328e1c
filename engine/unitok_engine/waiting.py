"""The sequences that wait, in the order in which they are to be admitted."""

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain

from unitok_engine.sequence import Sequence


class Waiting:
    """The sequences that wait, those of the share with the fewest running branches first.

    Within a share the oldest comes first. Of shares that run equally many branches, the one whose
    oldest waiting sequence came first is first. The order costs a logarithm of the shares that
    wait, and only while they wait.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, list[Sequence]] = {}  # of each share, by arrival
        self._branches: dict[Hashable, int] = {}  # running ones of each share
        # A heap of (branches, oldest arrival, share). Entries go out of date; each share that waits
        # and was not set aside has one that is not.
        self._order: list[tuple[int, int, Hashable]] = []
        self._aside: set[Hashable] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence]:
        return chain.from_iterable(self._queues.values())

    def __contains__(self, sequence: Sequence) -> bool:
        return self._place(sequence) is not None

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait."""
        queue = self._queues.setdefault(sequence.share, [])
        insort(queue, sequence, key=_arrival)
        self._count += 1
        if queue[0] is sequence:
            self._enter(sequence.share)

    def discard(self, sequence: Sequence) -> None:
        """Take a sequence out, if it waits."""
        place = self._place(sequence)
        if place is None:
            return
        queue = self._queues[sequence.share]
        del queue[place]
        self._count -= 1
        if not queue:
            del self._queues[sequence.share]
            if not self._queues:
                self._order.clear()
        elif place == 0:
            self._enter(sequence.share)

    def branches(self, share: Hashable) -> int:
        """How many branches of the share run."""
        return self._branches.get(share, 0)

    def most_branches(self) -> int:
        """How many branches run of the share that runs most."""
        return max(self._branches.values(), default=0)

    def count(self, share: Hashable, branches: int) -> None:
        """Note that so many more branches of the share run, or fewer."""
        total = self._branches.pop(share, 0) + branches
        if total:
            self._branches[share] = total
        if share in self._queues:
            self._enter(share)

    def first(self) -> list[Sequence] | None:
        """The waiting sequences of the first share, by arrival; they are not to be changed."""
        while self._order:
            branches, arrival, share = self._order[0]
            queue = self._queues.get(share)
            if queue and (branches, arrival) == self._key(share) and share not in self._aside:
                return queue
            heappop(self._order)
        return None

    def set_aside(self, share: Hashable) -> None:
        """Pass over a share until `restore`."""
        self._aside.add(share)

    def restore(self) -> None:
        """Pass over no share any more."""
        aside, self._aside = self._aside, set()
        for share in aside:
            if share in self._queues:
                self._enter(share)

    def _enter(self, share: Hashable) -> None:
        heappush(self._order, (*self._key(share), share))
        if len(self._order) > 4 * len(self._queues) + 64:  # mostly out of date
            self._order = [(*self._key(share), share) for share in self._queues]
            heapify(self._order)

    def _key(self, share: Hashable) -> tuple[int, int]:
        return self.branches(share), self._queues[share][0].arrival

    def _place(self, sequence: Sequence) -> int | None:
        queue = self._queues.get(sequence.share, ())
        place = bisect_left(queue, sequence.arrival, key=_arrival)
        return place if place < len(queue) and queue[place] is sequence else None


def _arrival(sequence: Sequence) -> int:
    return sequence.arrival
