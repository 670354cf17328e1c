"""The sequences that wait, in the order in which they are to be admitted."""

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain

from unitok_engine.sequence import Sequence

Queue = tuple[Hashable, int]  # a share, and a priority of its sequences


class Waiting:
    """The sequences that wait, those of the lowest priority number first.

    Of one number, those of the share with the fewest running branches come first. Within a share
    the oldest comes first. Of shares that run equally many branches, the one whose oldest waiting
    sequence came first is first. The order costs a logarithm of the shares that wait, and only
    while they wait.
    """

    def __init__(self) -> None:
        # Of each share and priority, by arrival.
        self._queues: dict[Hashable, dict[int, list[Sequence]]] = {}
        self._branches: dict[Hashable, int] = {}  # running ones of each share
        # A heap of (priority, branches, oldest arrival, share). Entries go out of date; each queue
        # that was not set aside has one that is not.
        self._order: list[tuple[int, int, int, Hashable]] = []
        self._aside: set[Queue] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence]:
        queues = chain.from_iterable(queues.values() for queues in self._queues.values())
        return chain.from_iterable(queues)

    def __contains__(self, sequence: Sequence) -> bool:
        return self._place(sequence) is not None

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait."""
        queues = self._queues.setdefault(sequence.share, {})
        queue = queues.setdefault(sequence.priority, [])
        insort(queue, sequence, key=_arrival)
        self._count += 1
        if queue[0] is sequence:
            self._enter(_queue_of(sequence))

    def discard(self, sequence: Sequence) -> None:
        """Take a sequence out, if it waits."""
        place = self._place(sequence)
        if place is None:
            return
        queues = self._queues[sequence.share]
        queue = queues[sequence.priority]
        del queue[place]
        self._count -= 1
        if queue:
            if place == 0:
                self._enter(_queue_of(sequence))
            return
        del queues[sequence.priority]
        if not queues:
            del self._queues[sequence.share]
        if not self._queues:
            self._order.clear()

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
        for priority in self._queues.get(share, ()):
            self._enter((share, priority))

    def first(self) -> list[Sequence] | None:
        """The waiting sequences of the first queue, by arrival; they are not to be changed."""
        while self._order:
            entry = self._order[0]
            queue = entry[3], entry[0]
            waiting = self._waiting(queue)
            if waiting and entry == self._entry(queue) and queue not in self._aside:
                return waiting
            heappop(self._order)
        return None

    def set_aside(self, sequence: Sequence) -> None:
        """Pass over the queue of a sequence until `restore`."""
        self._aside.add(_queue_of(sequence))

    def restore(self) -> None:
        """Pass over no queue any more."""
        aside, self._aside = self._aside, set()
        for queue in aside:
            if self._waiting(queue):
                self._enter(queue)

    def _waiting(self, queue: Queue) -> list[Sequence] | None:
        share, priority = queue
        return self._queues.get(share, {}).get(priority)

    def _enter(self, queue: Queue) -> None:
        heappush(self._order, self._entry(queue))
        if len(self._order) > 4 * self._count + 64:  # mostly out of date
            shares = self._queues.items()
            self._order = [self._entry((share, p)) for share, queues in shares for p in queues]
            heapify(self._order)

    def _entry(self, queue: Queue) -> tuple[int, int, int, Hashable]:
        share, priority = queue
        return priority, self.branches(share), self._queues[share][priority][0].arrival, share

    def _place(self, sequence: Sequence) -> int | None:
        queue = self._waiting(_queue_of(sequence)) or ()
        place = bisect_left(queue, sequence.arrival, key=_arrival)
        return place if place < len(queue) and queue[place] is sequence else None


def _queue_of(sequence: Sequence) -> Queue:
    return sequence.share, sequence.priority


def _arrival(sequence: Sequence) -> int:
    return sequence.arrival
