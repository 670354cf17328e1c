"""Which tokens run in the next step: decode rows first, then prefill, under token budgets."""

from bisect import insort
from collections import Counter
from collections.abc import Hashable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from unitok_engine.block_pool import BlockPool
from unitok_engine.config import ResolvedConfig
from unitok_engine.prefix_cache import Prefix, PrefixCache
from unitok_engine.sequence import BranchState, Sequence
from unitok_engine.waiting import Waiting

# Of given tokens in a step's decode rows, and as many of those in its other rows: their fp32 takes
# 128 MiB each at most.
_GIVEN_LOGITS = 2**25
LONGEST_ROW = 16  # tokens of a decode row; what is longer is attended to as prefill
_LOOK_AHEAD = 64  # sequences that wait for a prefix: an admission looks past no more of them


class Chunk(NamedTuple):
    """Tokens of one branch that run in this step; those before are cached.

    Attributes:
        sequence: Whose branch it is.
        branch: The branch.
        start: The index of the first token.
        stop: The index behind the last one.
    """

    sequence: Sequence
    branch: BranchState
    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many tokens run."""
        return self.stop - self.start


def rows_of(chunks: Iterable[Chunk]) -> int:
    """How many tokens run in the chunks."""
    return sum(chunk.length for chunk in chunks)


@dataclass(frozen=True, eq=False)
class Schedule:
    """What to do in one step, in this order.

    Attributes:
        copy_on_write: Blocks to copy, from source to target; all are read before any is written.
        new_blocks: Blocks to clear, as they may hold what another branch left.
        chunks: What to run.
    """

    copy_on_write: tuple[tuple[int, int], ...]
    new_blocks: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class Scheduler:
    """Decides which tokens run in the next step.

    Shares get equally many running branches, each share's sequences in the order of their arrival.
    Next to be admitted, among those of the lowest priority number, is the oldest of the share that
    runs the fewest branches (see `Waiting`). If it does not fit, sequences make room for it whose
    shares run so many more that this evens them out, and whose number is no lower. Else no other is
    admitted before it, so that of one number nobody starves.

    A sequence's branches are admitted, preempted and freed together. Every sequence that is added
    must fit the pool alone (the engine checks), and a preempted one emits a token before its next
    preemption, so all end.

    A step takes the next token of each branch that decodes and, beside them, twice as many tokens
    as the budget of prefill at most. The one half is for what lies behind the next token in rows
    that are still short: guesses, and what a plan forces or gives. The other is for prefill and for
    long runs of what it forces or gives, which leave a quarter of it to prefill. Runs of the lowest
    priority number come first, then the oldest. A long run takes part as a whole or waits, so that
    it is computed in the same rows alone and beside others. Only the first one is cut, if it is
    longer than all that runs may have.

    A sequence that would begin as an older running one does, and finds that prefix still being
    computed, waits for it; others may go ahead. It waits for no younger one, as the younger ones
    may never end.
    """

    def __init__(self, config: ResolvedConfig, pool: BlockPool) -> None:
        self.config = config
        self.pool = pool
        self.preemptions = 0
        self.prompt_tokens = 0  # of all admissions; recomputed ones count again
        self.cached_tokens = 0  # those among them that were found computed
        self._prefixes = PrefixCache(pool, config.block_size, config.prefix_caching)
        self.reset()

    def reset(self) -> None:
        """Know no sequence and no computed block: a step that broke off may have left anything."""
        self.waiting = Waiting()
        self.running: list[Sequence] = []  # by arrival
        self._decoding: list[Sequence] = []  # while a step is scheduled; they may make room
        self._branches = 0  # running ones
        self._samples: dict[int, list[Sequence]] = {}  # request id -> its running sequences
        self._copy_on_write: dict[int, int] = {}  # target block -> source block
        self._new_blocks: list[int] = []
        self._given_logits = 0  # that this step may still make
        self._given_taken: dict[Sequence, int] = {}  # by what it will make
        self._prefixes.reset()
        self.pool.reset()

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        self.waiting.add(sequence)

    @property
    def running_requests(self) -> int:
        """How many requests have a sequence that runs."""
        return len(self._samples)

    def remove(self, sequence: Sequence) -> None:
        """Take a finished or failed sequence out, if it was added, and free its blocks."""
        if sequence.running:
            self._forget_useless(sequence)
            self._retire(sequence)
        else:
            self.waiting.discard(sequence)

    def schedule(self, limit: int | None = None, suspects: Seq[Sequence] = ()) -> Schedule:
        """The next step: a run of every decoding branch, then prefill.

        Args:
            limit: The most tokens in all, after steps that raised; None is no limit.
            suspects: The sequences to try first if there is a limit.
        """
        if self.config.preempt_every_step:
            for sequence in [s for s in self.running if s.decoding]:
                self._preempt(sequence)
        self._grow_all()
        prefilling: list[Sequence] = []
        if len(self._decoding) < len(self.running):
            prefilling = [s for s in self.running if s.request.given or not s.decoding]
        self._allow_given_logits()
        if limit is None:
            aside = self._set_runs_aside(self.config.max_batch_tokens)
            self._allow_given_logits()  # what decodes takes none of what the others may have
            long = self._runs_and_prefill(aside, prefilling, self.config.max_batch_tokens)
            chunks = [chunk for sequence in self._decoding for chunk in _all_pending(sequence)]
            chunks += long
            self._decoding = []
        else:
            decoding, self._decoding = self._decoding, []  # none of them makes room now
            chunks = self._fill(dict.fromkeys([*suspects, *decoding, *prefilling]), limit, [])
        copy_on_write = tuple((source, target) for target, source in self._copy_on_write.items())
        new_blocks = tuple(self._new_blocks)
        self._copy_on_write, self._new_blocks = {}, []
        return Schedule(copy_on_write, new_blocks, tuple(chunks))

    def commit(self, chunks: Seq[Chunk]) -> None:
        """Note that chunks have run: their tokens are cached, and blocks now full can be found.

        What ran as a draft counts once it has turned out right: see `commit_drafts`.
        """
        for sequence, branch, start, stop in chunks:
            self._cache_up_to(sequence, branch, start, min(stop, sequence.length(branch)))

    def commit_drafts(self, sequence: Sequence, accepted: int) -> None:
        """Note how many drafts of the last step were right, and give back the room of the others.

        They must be among what the sequence emitted.
        """
        for branch in sequence.branches:
            cached = branch.cached
            self._cache_up_to(sequence, branch, cached, cached + accepted)
            if not sequence.exact:
                self.pool.truncate(branch.blocks, self.config.blocks_for(sequence.length(branch)))
        sequence.drop_drafts()

    def _cache_up_to(self, sequence: Sequence, branch: BranchState, start: int, stop: int) -> None:
        branch.cached = stop
        size = self.config.block_size
        if start // size != stop // size:
            self._prefixes.register(sequence, branch, start, stop)

    def _grow_all(self) -> None:
        """Note the sequences that decode, once each has room for its pending ids."""
        self._decoding = []
        for sequence in list(self.running):
            # The growth of another may have preempted it: then it no longer decodes.
            # Given tokens are prefilled from the first to the last.
            if sequence.decoding and not sequence.request.given and self._grow(sequence):
                self._decoding.append(sequence)

    def _set_runs_aside(self, budget: int) -> list[Sequence]:
        """Let those decode no longer whose rows are too long, or too long for what is left.

        Args:
            budget: The most tokens of all rows, the next one of each branch apart.

        Returns:
            The sequences that were set aside, those of the lowest priority number first.
        """
        rows, runs = [], []
        for sequence in sorted(self._decoding, key=_priority):
            if sequence.drafts and not self._fits(sequence, budget):
                sequence.drop_drafts()  # guesses must not make it wait
            if self._fits(sequence, budget):
                budget -= _behind_the_next(sequence)
                rows.append(sequence)
            else:
                self._drop_given(sequence)
                runs.append(sequence)
        self._decoding = rows
        for sequence in rows:
            if sequence.drafts:
                self._grow_for_drafts(sequence)
        return runs

    def _fits(self, sequence: Sequence, budget: int) -> bool:
        """Whether its rows are short, and no longer than what is left."""
        return self._is_short(sequence) and _behind_the_next(sequence) <= budget

    def _is_short(self, sequence: Sequence) -> bool:
        """Whether a row has room for all that is pending and, with it, all that is given next."""
        longest = max(map(sequence.pending, sequence.branches))
        room = LONGEST_ROW - longest - len(sequence.drafts)
        if room < 0 or sequence.drafts or not sequence.next_is_given:
            return room >= 0
        return self._draft_given(sequence, room, all_or_none=True)

    def _runs_and_prefill(
        self, runs: Seq[Sequence], prefilling: Iterable[Sequence], budget: int
    ) -> list[Chunk]:
        """Chunks of long runs and of prefill, as many as the budget allows.

        Prefill has a quarter of it, so that it goes on beside any number of runs. What it leaves is
        for further runs.
        """
        most = budget - budget // 4
        chunks = self._run(runs, most, most)
        if runs and not chunks:
            chunks = self._chunks(runs[0], most, first=True)
        later = runs[len({chunk.sequence for chunk in chunks}) :]
        chunks = self._fill(prefilling, budget, chunks)
        return chunks + self._run(later, most, budget - rows_of(chunks))

    def _run(self, runs: Iterable[Sequence], most: int, budget: int) -> list[Chunk]:
        """Chunks of long runs, as far as the budget goes. None is cut.

        Args:
            runs: Whose they are, in their order.
            most: The most tokens of one of them; what is longer is cut when it comes first.
            budget: The most tokens of all.
        """
        chunks: list[Chunk] = []
        for sequence in runs:
            part = self._whole(sequence, min(budget - rows_of(chunks), most))
            if not part:
                break
            chunks += part
        return chunks

    def _whole(self, sequence: Sequence, budget: int) -> list[Chunk]:
        """All that is pending and, with it, all that is given next; [] if that is too much."""
        budget -= sum(map(sequence.pending, sequence.branches))
        if budget < 0:
            return []
        if sequence.next_is_given:
            most = budget // len(sequence.branches)
            if not self._draft_given(sequence, most, all_or_none=True):
                return []
            self._grow_for_drafts(sequence)
        return _all_pending(sequence)

    def _fill(self, sequences: Iterable[Sequence], budget: int, chunks: list[Chunk]) -> list[Chunk]:
        """Chunks, and behind them those of these sequences and of others that are admitted.

        All of them are as many as the budget allows.
        """
        budget -= rows_of(chunks)
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
        if (pending := sum(map(sequence.pending, sequence.branches))) <= budget:
            if sequence.next_is_given:
                self._draft_given(sequence, (budget - pending) // len(sequence.branches))
                self._grow_for_drafts(sequence)
            return _all_pending(sequence)
        chunks = []
        for branch in sequence.branches:
            length = min(sequence.pending(branch) - 1, budget)
            if length > 0:
                chunks.append(Chunk(sequence, branch, branch.cached, branch.cached + length))
                budget -= length
        return chunks

    def _draft_given(self, sequence: Sequence, most: int, all_or_none: bool = False) -> bool:
        """Let given tokens run with what is pending, within the budget of logits.

        Args:
            sequence: Whose next token is given.
            most: How many tokens may run behind what is pending.
            all_or_none: Whether none of them run if these are not all.

        Returns:
            Whether these are all of them, up to the next token that is sampled.
        """
        size = len(sequence.branches) * sequence.targets[0].allow.id_range.size
        whole = sequence.draft_given(min(most, self._given_logits // size))
        if all_or_none and not whole:
            sequence.drop_drafts()
        else:
            self._given_taken[sequence] = size * len(sequence.targets)
            self._given_logits -= self._given_taken[sequence]
        return whole

    def _drop_given(self, sequence: Sequence) -> None:
        """Let go of drafts. What given ones took of the logits is there for others again."""
        sequence.drop_drafts()
        self._given_logits += self._given_taken.pop(sequence, 0)

    def _allow_given_logits(self) -> None:
        """Let the next rows have as many logits of given tokens as there may be."""
        self._given_logits, self._given_taken = _GIVEN_LOGITS, {}

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
            self.waiting.set_aside(queue[0])
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
        self, sequence: Sequence, prefixes: Seq[Prefix], branches: int, blocks: int
    ) -> bool:
        """Preempt what frees so many branches and blocks; if that cannot be fair, do nothing.

        A share that makes room runs no fewer branches afterwards than that of the sequence. The
        highest priority number goes first, and never a lower one than the sequence's. Of the share
        that then runs most, the sequence that loses least goes first.
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
            (s.priority, branches(s.share) - gone[s.share], -len(s.emitted), s.arrival, s)
            for s in self._decoding
            if s.priority >= sequence.priority
            and s not in victims
            and branches(s.share) - gone[s.share] - len(s.branches) >= fair
        ]
        return max(left)[-1] if left else None

    def _begin(self, sequence: Sequence, prefixes: Seq[Prefix]) -> None:
        # All that is found is taken before anything is allocated, which could evict it.
        for branch, prefix in zip(sequence.branches, prefixes, strict=True):
            self.pool.share(prefix.blocks)
            branch.blocks = list(prefix.blocks)
            branch.cached = prefix.cached
        for branch, prefix in zip(sequence.branches, prefixes, strict=True):
            length = self._reserved(sequence, branch)
            if prefix.source is not None:
                branch.blocks += (target := self.pool.allocate(1))
                self._copy_on_write[target[0]] = prefix.source
            self._extend(branch, length)
            self.prompt_tokens += sequence.length(branch)
            self.cached_tokens += branch.cached
        insort(self.running, sequence, key=_arrival)
        self._branches += len(sequence.branches)
        self.waiting.count(sequence.share, len(sequence.branches))
        self._samples.setdefault(sequence.request_id, []).append(sequence)
        sequence.begin()
        self._prefixes.claim(sequence)

    def _missing_blocks_of(self, sequence: Sequence, prefixes: Seq[Prefix]) -> int:
        """How many free blocks are too few, those that would be found in use again included."""
        needed = 0
        found: set[int] = set()
        for branch, prefix in zip(sequence.branches, prefixes, strict=True):
            blocks = self.config.blocks_for(self._reserved(sequence, branch))
            needed += blocks - len(prefix.blocks)
            found.update(filter(self.pool.is_evictable, prefix.blocks))
        headroom = 0 if sequence.exact or not self.running else 1
        return needed + len(found) + headroom - self.pool.free_count

    def _reserved(self, sequence: Sequence, branch: BranchState) -> int:
        """Ids to have room for from the start: all there will be, if the plan knows."""
        exact = sequence.exact
        return sequence.max_cached(branch) if exact else sequence.length(branch)

    def _prefix(self, sequence: Sequence, index: int) -> Prefix:
        """The longest computed beginning of a branch, of another sample or of any other branch."""
        blocks, cached = self._prefixes.find(sequence, index, self._prefilled_sample(sequence))
        full, rest = divmod(cached, self.config.block_size)
        if not rest:
            return Prefix(tuple(blocks[:full]), None, cached)
        # What another sample holds may be about to be copied there.
        source = self._copy_on_write.get(blocks[full], blocks[full])
        return Prefix(tuple(blocks[:full]), source, cached)

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
        return self._prefixes.awaits(sequence)

    def _grow(self, sequence: Sequence) -> bool:
        """Give every branch room for its pending tokens.

        It is False if the sequence itself had to be preempted.
        """
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

    def _grow_for_drafts(self, sequence: Sequence) -> None:
        """Give every branch room for drafts, if there is any: nobody is preempted for guesses."""
        drafts = len(sequence.drafts)
        if sequence.exact:  # it has all it will ever need
            return
        if self._missing_blocks(sequence, drafts) > self.pool.free_count:
            self._drop_given(sequence)
            return
        for branch in sequence.branches:
            self._extend(branch, sequence.length(branch) + drafts)

    def _victim_of_growth(self) -> Sequence:
        """The newest of the share that still runs the most branches without it.

        Those of the highest priority number go first. The oldest one of the lowest number goes
        last of all.
        """
        last = min(self.running, key=lambda s: (s.priority, s.arrival))
        free = [s for s in self.running if s.preemptible and s is not last] or [last]
        branches = self.waiting.branches
        return max(free, key=lambda s: (s.priority, branches(s.share) - len(s.branches), s.arrival))

    def _missing_blocks(self, sequence: Sequence, drafts: int = 0) -> int:
        size, missing = self.config.block_size, 0
        for branch in sequence.branches:
            length = sequence.length(branch) + drafts
            if length > len(branch.blocks) * size:
                missing += self.config.blocks_for(length) - len(branch.blocks)
        return missing

    def _extend(self, branch: BranchState, length: int) -> None:
        missing = self.config.blocks_for(length) - len(branch.blocks)
        if missing > 0:
            blocks = self.pool.allocate(missing)
            branch.blocks += blocks
            self._new_blocks += blocks

    def _displace(self, sequence: Sequence) -> None:
        """Preempt a sequence, and take back what this step gave it."""
        held = set(chain.from_iterable(branch.blocks for branch in sequence.branches))
        self._new_blocks = [block for block in self._new_blocks if block not in held]
        if sequence in self._decoding:
            self._decoding.remove(sequence)
        self._preempt(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        self._retire(sequence)
        sequence.forget()
        self.preemptions += 1
        self.add(sequence)

    def _forget_useless(self, sequence: Sequence) -> None:
        """Let blocks of a sequence that ends be found no more, if they would help nobody."""
        failed = sequence.finish_reason == "error"  # its K/V might make others fail
        if sequence.request.continued and not failed:
            return
        for branch in sequence.branches:
            start = 0 if failed else branch.prompt_length // self.config.block_size
            self.pool.forget(branch.blocks[start:])

    def _retire(self, sequence: Sequence) -> None:
        """Take a sequence out of the running ones and free its blocks, the branch's end first."""
        self.running.remove(sequence)
        self._branches -= len(sequence.branches)
        self.waiting.count(sequence.share, -len(sequence.branches))
        samples = self._samples[sequence.request_id]
        samples.remove(sequence)
        if not samples:
            del self._samples[sequence.request_id]
        self._prefixes.release(sequence)
        for branch in sequence.branches:
            self.pool.deallocate(reversed(branch.blocks))
            branch.blocks = []
        sequence.running = False


def _all_pending(sequence: Sequence) -> list[Chunk]:
    drafts = len(sequence.drafts)
    return [
        Chunk(sequence, branch, branch.cached, sequence.length(branch) + drafts)
        for branch in sequence.branches
    ]


def _behind_the_next(sequence: Sequence) -> int:
    """How many tokens the rows of a sequence have behind the first of each."""
    behind = len(sequence.drafts) - 1
    return sum(sequence.pending(branch) + behind for branch in sequence.branches)


def _arrival(sequence: Sequence) -> int:
    return sequence.arrival


def _priority(sequence: Sequence) -> int:
    return sequence.priority
