"""Which ids run in the next step: decode rows first, then prefill, under a token budget."""

from bisect import insort
from collections import Counter
from collections.abc import Hashable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from unitok_engine.block_pool import BlockPool
from unitok_engine.config import ResolvedConfig
from unitok_engine.sequence import BranchState, Sequence
from unitok_engine.waiting import Waiting

_LOOK_AHEAD = 64  # sequences that wait for a prefix: an admission looks past no more of them


class Chunk(NamedTuple):
    """The ids of one branch at [start, stop) run in this step; those before are cached."""

    sequence: Sequence
    branch: BranchState
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Schedule:
    """What to do in one step, in this order.

    copies: pairs of blocks, from source to target; all are read before any is written. fresh:
    blocks to clear, as they may hold what another branch left. chunks: what to run.
    """

    copies: tuple[tuple[int, int], ...]
    fresh: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class _Prefix:
    """What a branch finds computed: full blocks to share, and one to copy if `cached` ends in it."""

    blocks: tuple[int, ...] = ()
    source: int | None = None
    cached: int = 0


class Scheduler:
    """Shares get equally many running branches, each share's sequences in the order of their arrival.

    Next to be admitted is the oldest of the share that runs fewest branches (see `Waiting`). If it
    does not fit, sequences of shares that run so many more that it evens them out make room for it;
    else no other is admitted before it, so that nobody starves. A sequence's branches are admitted,
    preempted and freed together. Every sequence added must fit the pool alone (the engine checks),
    and a preempted one emits an id before its next preemption, so all end.
    One that would begin as an older running one does, and finds that prefix still being computed,
    waits for it; others may go ahead. It waits for no younger one: those never end coming.
    """

    def __init__(self, config: ResolvedConfig, pool: BlockPool) -> None:
        self.config = config
        self.pool = pool
        self.preemptions = 0
        self.prompt_ids = 0  # of all admissions; recomputed ones count again
        self.cached_ids = 0  # those among them that were found computed
        self.reset()

    def reset(self) -> None:
        """Know no sequence and no computed block: a step that broke off may have left anything."""
        self.waiting = Waiting()
        self.running: list[Sequence] = []  # by arrival
        self._decoding: list[Sequence] = []  # while a step is scheduled; they may make room
        self._branches = 0  # running ones
        self._samples: dict[int, list[Sequence]] = {}  # request id -> its running sequences
        self._computing: dict[bytes, Sequence] = {}  # key -> the running one that will compute it
        self._copies: dict[int, int] = {}  # target block -> source block
        self._fresh: list[int] = []
        self.pool.reset()

    def add(self, sequence: Sequence) -> None:
        self.waiting.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a finished or failed sequence out, if it was added, and free its blocks."""
        if sequence.running:
            # What failed may have left K/V that would make others fail.
            self._retire(sequence, forget=sequence.finish_reason == "error")
        else:
            self.waiting.discard(sequence)

    def schedule(self, limit: int | None = None, suspects: Seq[Sequence] = ()) -> Schedule:
        """The next step: a run of every decoding branch, then prefill.

        limit: to so many ids in all, after steps that raised; `suspects`, the sequences to try
        again, come first then.
        """
        if self.config.preempt_every_step:
            for sequence in [s for s in self.running if s.decoding]:
                self._preempt(sequence)
        self._grow_all()
        prefilling: list[Sequence] = []
        if len(self._decoding) < len(self.running):
            prefilling = [sequence for sequence in self.running if not sequence.decoding]
        if limit is None:
            prefill = self._fill(prefilling, self.config.max_batch_tokens)
            chunks = [chunk for sequence in self._decoding for chunk in _all_pending(sequence)]
            chunks += prefill
            self._decoding = []
        else:
            decoding, self._decoding = self._decoding, []  # none of them makes room now
            chunks = self._fill(dict.fromkeys([*suspects, *decoding, *prefilling]), limit)
        copies = tuple((source, target) for target, source in self._copies.items())
        fresh = tuple(self._fresh)
        self._copies, self._fresh = {}, []
        return Schedule(copies, fresh, tuple(chunks))

    def commit(self, chunks: Seq[Chunk]) -> None:
        """Note that chunks have run: their ids are cached, and blocks now full can be found."""
        size, caching = self.config.block_size, self.config.prefix_caching
        for sequence, branch, start, stop in chunks:
            branch.cached = stop
            if caching and start // size != stop // size:
                self._register(sequence, branch, range(start // size, stop // size))

    def _register(self, sequence: Sequence, branch: BranchState, full: range) -> None:
        for index in full:
            key = sequence.key(branch, index, self.config.block_size)
            self.pool.register(branch.blocks[index], key)
            if self._computing.get(key) is sequence:
                del self._computing[key]

    def _grow_all(self) -> None:
        """Note the sequences that decode, once each has room for its pending ids."""
        self._decoding = []
        for sequence in list(self.running):
            # The growth of another may have preempted it: then it no longer decodes.
            if sequence.decoding and self._grow(sequence):
                self._decoding.append(sequence)

    def _fill(self, sequences: Iterable[Sequence], budget: int) -> list[Chunk]:
        """Chunks of these sequences, then of others that are admitted, as the budget allows."""
        chunks: list[Chunk] = []
        for sequence in sequences:
            if budget <= 0:
                return chunks
            if sequence.running or self._begins(sequence):
                part = self._chunks(sequence, budget, first=not chunks)
                budget -= sum(chunk.length for chunk in part)
                chunks += part
        while budget > 0 and (sequence := self._admit()):
            part = self._chunks(sequence, budget, first=not chunks)
            budget -= sum(chunk.length for chunk in part)
            chunks += part
        self.waiting.restore()
        return chunks

    def _chunks(self, sequence: Sequence, budget: int, first: bool) -> list[Chunk]:
        """Chunks within the budget, such that the last ones of all branches land in one step.

        The first sequence in a step may always take one id per branch, whatever the budget.
        """
        if first:
            budget = max(budget, len(sequence.branches))
        if sum(map(sequence.pending, sequence.branches)) <= budget:
            return _all_pending(sequence)
        chunks = []
        for branch in sequence.branches:
            length = min(sequence.pending(branch) - 1, budget)
            if length > 0:
                chunks.append(Chunk(sequence, branch, branch.cached, branch.cached + length))
                budget -= length
        return chunks

    def _admit(self) -> Sequence | None:
        """Let the first waiting sequence that need not wait for a prefix begin, if it can."""
        looked = 0
        while looked < _LOOK_AHEAD and (queue := self.waiting.first()):
            for sequence in queue[: _LOOK_AHEAD - looked]:
                if self._excess_branches(sequence) > 0 and not self._may_displace(sequence):
                    return None
                if not self._would_repeat(sequence):
                    return sequence if self._begins(sequence) else None
                looked += 1
            self.waiting.set_aside(queue[0].share)
        return None

    def _begins(self, sequence: Sequence) -> bool:
        """Move a waiting sequence to the running ones, if it fits or others make room for it."""
        branches = self._excess_branches(sequence)
        if branches > 0 and not self._may_displace(sequence):
            return False
        prefixes = [self._prefix(sequence, i) for i in range(len(sequence.branches))]
        blocks = self._missing_blocks_of(sequence, prefixes)
        if (branches > 0 or blocks > 0) and not self._make_room(
            sequence, prefixes, branches, blocks
        ):
            return False
        self.waiting.discard(sequence)
        self._begin(sequence, prefixes)
        return True

    def _excess_branches(self, sequence: Sequence) -> int:
        """How many branches too many would run with it."""
        return self._branches + len(sequence.branches) - self.config.max_running

    def _may_displace(self, sequence: Sequence) -> bool:
        """Whether any share runs so many branches that it is to make room for the sequence."""
        fair = self.waiting.branches(sequence.share) + len(sequence.branches)
        return bool(self._decoding) and self.waiting.most_branches() > fair

    def _make_room(
        self, sequence: Sequence, prefixes: Seq[_Prefix], branches: int, blocks: int
    ) -> bool:
        """Preempt what frees so many branches and blocks; if that cannot be fair, do nothing.

        A share that makes room runs no fewer branches afterwards than that of the sequence. Of the
        one that runs most, the sequence that loses least goes first.
        """
        kept = {block for prefix in prefixes for block in prefix.blocks}
        freed: Counter[int] = Counter()  # references to blocks
        victims: dict[Sequence, None] = {}
        while branches > 0 or blocks > 0:
            victim = self._victim(sequence, victims)
            if victim is None:
                return False
            victims[victim] = None
            branches -= len(victim.branches)
            for block in chain.from_iterable(branch.blocks for branch in victim.branches):
                freed[block] += 1
                blocks -= block not in kept and freed[block] == self.pool.references(block)
        for victim in victims:
            self._displace(victim)
        return True

    def _victim(self, sequence: Sequence, victims: Iterable[Sequence]) -> Sequence | None:
        """The next one to make room for a sequence, beside others that will."""
        if not self._may_displace(sequence):
            return None
        branches = self.waiting.branches
        fair = branches(sequence.share) + len(sequence.branches)
        gone: Counter[Hashable] = Counter()
        for victim in victims:
            gone[victim.share] += len(victim.branches)
        left = [
            (branches(s.share) - gone[s.share], -len(s.emitted), s.arrival, s)
            for s in self._decoding
            if s not in victims and branches(s.share) - gone[s.share] - len(s.branches) >= fair
        ]
        return max(left)[-1] if left else None

    def _begin(self, sequence: Sequence, prefixes: Seq[_Prefix]) -> None:
        # All that is found is taken before anything is allocated, which could evict it.
        for branch, prefix in zip(sequence.branches, prefixes, strict=True):
            self.pool.share(prefix.blocks)
            branch.blocks = list(prefix.blocks)
            branch.cached = prefix.cached
        for branch, prefix in zip(sequence.branches, prefixes, strict=True):
            length = self._reserved(sequence, branch)
            if prefix.source is not None:
                branch.blocks += (target := self.pool.allocate(1))
                self._copies[target[0]] = prefix.source
            self._extend(branch, length)
            self.prompt_ids += sequence.length(branch)
            self.cached_ids += branch.cached
        insort(self.running, sequence, key=_arrival)
        self._branches += len(sequence.branches)
        self.waiting.count(sequence.share, len(sequence.branches))
        self._samples.setdefault(sequence.request_id, []).append(sequence)
        sequence.begin()
        self._claim(sequence)

    def _missing_blocks_of(self, sequence: Sequence, prefixes: Seq[_Prefix]) -> int:
        """How many free blocks are too few, those that would be found in use again included."""
        needed = 0
        found: set[int] = set()
        for branch, prefix in zip(sequence.branches, prefixes, strict=True):
            blocks = self.config.blocks_for(self._reserved(sequence, branch))
            needed += blocks - len(prefix.blocks)
            found.update(filter(self.pool.is_idle, prefix.blocks))
        headroom = 0 if sequence.exact or not self.running else 1
        return needed + len(found) + headroom - self.pool.free_count

    def _reserved(self, sequence: Sequence, branch: BranchState) -> int:
        """Ids to have room for from the start: all there will be, if the plan knows."""
        exact = sequence.exact
        return sequence.max_cached(branch) if exact else sequence.length(branch)

    def _prefix(self, sequence: Sequence, index: int) -> _Prefix:
        """The longest computed beginning of a branch: of another sample, or of any branch before.

        At least one id is left to compute, as its logits are wanted.
        """
        branch, size = sequence.branches[index], self.config.block_size
        most = sequence.length(branch) - 1
        blocks = self._found_blocks(sequence, branch)
        cached = min(len(blocks) * size, most)
        if (twin := self._prefilled_sample(sequence)) is not None:
            shared = min(len(branch.prompt.token_ids), most)
            if shared > cached:
                blocks, cached = twin.branches[index].blocks, shared
        whole, rest = divmod(cached, size)
        if not rest:
            return _Prefix(tuple(blocks[:whole]), None, cached)
        # What another sample holds may be about to be copied there.
        source = self._copies.get(blocks[whole], blocks[whole])
        return _Prefix(tuple(blocks[:whole]), source, cached)

    def _found_blocks(self, sequence: Sequence, branch: BranchState) -> list[int]:
        blocks = []
        if self.config.prefix_caching:
            size = self.config.block_size
            for index in range(sequence.length(branch) // size):
                block = self.pool.find(sequence.key(branch, index, size))
                if block is None:
                    break
                blocks.append(block)
        return blocks

    def _prefilled_sample(self, sequence: Sequence) -> Sequence | None:
        """Another running sample of the request whose prompt is computed."""
        for other in self._samples.get(sequence.request_id, ()):
            if all(branch.cached >= len(branch.prompt.token_ids) for branch in other.branches):
                return other
        return None

    def _would_repeat(self, sequence: Sequence) -> bool:
        """Whether an older one is just computing what comes next in one of its branches."""
        samples = self._samples.get(sequence.request_id, ())
        if any(map(sequence.follows, samples)) and not self._prefilled_sample(sequence):
            return True
        if not self._computing:
            return False
        size = self.config.block_size
        for branch in sequence.branches:
            index = len(self._found_blocks(sequence, branch))
            if index < sequence.length(branch) // size:
                other = self._computing.get(sequence.key(branch, index, size))
                if other is not None and sequence.follows(other):
                    return True
        return False

    def _claim(self, sequence: Sequence) -> None:
        """Note which blocks the sequence's prefill will compute."""
        if self.config.prefix_caching:
            size = self.config.block_size
            for branch in sequence.branches:
                for index in range(branch.cached // size, sequence.length(branch) // size):
                    self._computing.setdefault(sequence.key(branch, index, size), sequence)

    def _grow(self, sequence: Sequence) -> bool:
        """Give every branch room for its pending ids; False if that preempted the sequence itself."""
        if sequence.exact:  # it has all it will ever need
            return True
        while (missing := self._missing_blocks(sequence)) > self.pool.free_count:
            victim = self._victim_of_growth()
            self._displace(victim)
            if victim is sequence:
                return False
        if missing:
            for branch in sequence.branches:
                self._extend(branch, sequence.length(branch))
        return True

    def _victim_of_growth(self) -> Sequence:
        """The newest of the share that still runs most branches without it; the oldest of all last."""
        free = [s for s in self.running[1:] if s.preemptible] or self.running[:1]
        return max(
            free, key=lambda s: (self.waiting.branches(s.share) - len(s.branches), s.arrival)
        )

    def _missing_blocks(self, sequence: Sequence) -> int:
        size, missing = self.config.block_size, 0
        for branch in sequence.branches:
            length = sequence.length(branch)
            if length > len(branch.blocks) * size:
                missing += self.config.blocks_for(length) - len(branch.blocks)
        return missing

    def _extend(self, branch: BranchState, length: int) -> None:
        missing = self.config.blocks_for(length) - len(branch.blocks)
        if missing > 0:
            blocks = self.pool.allocate(missing)
            branch.blocks += blocks
            self._fresh += blocks

    def _displace(self, sequence: Sequence) -> None:
        """Preempt a sequence, and take back what this step gave it."""
        held = set(chain.from_iterable(branch.blocks for branch in sequence.branches))
        self._fresh = [block for block in self._fresh if block not in held]
        if sequence in self._decoding:
            self._decoding.remove(sequence)
        self._preempt(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        self._retire(sequence)
        sequence.forget()
        self.preemptions += 1
        self.add(sequence)

    def _retire(self, sequence: Sequence, forget: bool = False) -> None:
        """Take a sequence out of the running ones and free its blocks, the branch's end first."""
        self.running.remove(sequence)
        self._branches -= len(sequence.branches)
        self.waiting.count(sequence.share, -len(sequence.branches))
        samples = self._samples[sequence.request_id]
        samples.remove(sequence)
        if not samples:
            del self._samples[sequence.request_id]
        for branch in sequence.branches:
            for key in branch.keys[branch.cached // self.config.block_size :]:
                if self._computing.get(key) is sequence:
                    del self._computing[key]
            if forget:
                self.pool.forget(branch.blocks)
            self.pool.deallocate(reversed(branch.blocks))
            branch.blocks = []
        sequence.running = False


def _all_pending(sequence: Sequence) -> list[Chunk]:
    return [
        Chunk(sequence, branch, branch.cached, sequence.length(branch))
        for branch in sequence.branches
    ]


def _arrival(sequence: Sequence) -> int:
    return sequence.arrival
