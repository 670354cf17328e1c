"""Which ids run in the next step: decode rows first, then prefill, under a token budget."""

from bisect import insort
from dataclasses import dataclass

from unitok_engine.block_pool import BlockPool
from unitok_engine.config import ResolvedConfig
from unitok_engine.sequence import Line, Sequence


@dataclass(frozen=True, eq=False)
class Chunk:
    """The ids of one line at [start, stop) run in this step; those before are cached."""

    sequence: Sequence
    line: Line
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Scheduler:
    """First come, first served; a sequence's lines are admitted, preempted and freed together.

    Every sequence added must fit the pool alone (the engine checks), so the oldest always ends.
    """

    def __init__(self, config: ResolvedConfig, pool: BlockPool) -> None:
        self.config = config
        self.pool = pool
        self.waiting: list[Sequence] = []  # by arrival
        self.running: list[Sequence] = []  # by arrival
        self._fresh_blocks: list[int] = []

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=_arrival)

    def remove(self, sequence: Sequence) -> None:
        """Take a finished or failed sequence out and free its blocks."""
        queue = self.running if sequence in self.running else self.waiting
        queue.remove(sequence)
        self._free(sequence)

    def schedule(self) -> list[Chunk]:
        """The chunks of the next step: a run of every decoding line, then prefill."""
        if self.config.preempt_every_step:
            for sequence in [s for s in self.running if s.decoding]:
                self._preempt(sequence)
        return self._decode() + self._prefill()

    def take_fresh_blocks(self) -> list[int]:
        """The blocks allocated since the last call; they may hold what another line left."""
        blocks, self._fresh_blocks = self._fresh_blocks, []
        return blocks

    def _decode(self) -> list[Chunk]:
        chunks = []
        for sequence in list(self.running):
            # An older sequence's growth may have preempted it: then it no longer decodes.
            if sequence.decoding and self._grow(sequence):
                chunks += _all_pending(sequence)
        return chunks

    def _prefill(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        budget = self.config.max_batch_tokens
        for sequence in [s for s in self.running if not s.decoding]:
            chunks += self._prefill_chunks(sequence, budget, first=not chunks)
            budget = self.config.max_batch_tokens - sum(chunk.length for chunk in chunks)
        while budget > 0 and (sequence := self._admit()):
            chunks += self._prefill_chunks(sequence, budget, first=not chunks)
            budget = self.config.max_batch_tokens - sum(chunk.length for chunk in chunks)
        return chunks

    def _prefill_chunks(self, sequence: Sequence, budget: int, first: bool) -> list[Chunk]:
        """Chunks within the budget, such that the last ones of all lines land in one step.

        The first sequence in a step may always take one id per line, whatever the budget.
        """
        if first:
            budget = max(budget, len(sequence.lines))
        if sum(map(sequence.pending, sequence.lines)) <= budget:
            return _all_pending(sequence)
        chunks = []
        for line in sequence.lines:
            length = min(sequence.pending(line) - 1, budget)
            if length > 0:
                chunks.append(Chunk(sequence, line, line.cached, line.cached + length))
                budget -= length
        return chunks

    def _admit(self) -> Sequence | None:
        """Move the oldest waiting sequence to the running ones, if there is room for it."""
        if not self.waiting:
            return None
        sequence = self.waiting[0]
        exact = sequence.request.plan.exact
        lines = len(sequence.lines) + sum(len(other.lines) for other in self.running)
        lengths = [sequence.max_cached(x) if exact else sequence.length(x) for x in sequence.lines]
        needed = sum(map(self.config.blocks_for, lengths))
        headroom = 0 if exact or not self.running else 1
        if lines > self.config.max_running or needed + headroom > self.pool.free_count:
            return None
        for line, length in zip(sequence.lines, lengths, strict=True):
            self._extend(line, length)
        self.waiting.pop(0)
        insort(self.running, sequence, key=_arrival)
        sequence.begin()
        return sequence

    def _grow(self, sequence: Sequence) -> bool:
        """Give every line room for its pending ids; False if that preempted the sequence itself."""
        while self._missing_blocks(sequence) > self.pool.free_count:
            victim = next(s for s in reversed(self.running) if s.preemptible)
            self._preempt(victim)
            if victim is sequence:
                return False
        for line in sequence.lines:
            self._extend(line, sequence.length(line))
        return True

    def _missing_blocks(self, sequence: Sequence) -> int:
        blocks_for = self.config.blocks_for
        wanted = [blocks_for(sequence.length(line)) - len(line.blocks) for line in sequence.lines]
        return sum(max(count, 0) for count in wanted)

    def _extend(self, line: Line, length: int) -> None:
        missing = self.config.blocks_for(length) - len(line.blocks)
        if missing > 0:
            blocks = self.pool.allocate(missing)
            line.blocks += blocks
            self._fresh_blocks += blocks

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._free(sequence)
        sequence.forget()
        self.add(sequence)

    def _free(self, sequence: Sequence) -> None:
        for line in sequence.lines:
            self.pool.deallocate(line.blocks)
            line.blocks = []


def _all_pending(sequence: Sequence) -> list[Chunk]:
    return [Chunk(sequence, line, line.cached, sequence.length(line)) for line in sequence.lines]


def _arrival(sequence: Sequence) -> int:
    return sequence.arrival
