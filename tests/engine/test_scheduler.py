"""The scheduler and the pool under random use, against a memory that remembers every write."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.engine.tiny import IMAGE, TEXT, vectors
from unitok_engine import (
    Branch,
    Embeddings,
    EngineConfig,
    FixedPlan,
    FreePlan,
    KVShape,
    Request,
    Sampling,
)
from unitok_engine.block_pool import BlockPool
from unitok_engine.embedding_store import EmbeddingStore
from unitok_engine.sampler import SampledToken
from unitok_engine.scheduler import Schedule, Scheduler
from unitok_engine.sequence import BranchState, Sequence
from unitok_engine.waiting import Waiting

BLOCK = 4


def picture(name: str) -> Embeddings:
    return Embeddings(1, 6, name, lambda: vectors(0, 6))


PROMPTS = st.builds(
    lambda length, last, name, first: Branch(
        (2,) * (length - 1) + (last,), 1.0, (picture(name),) if name else (), first
    ),
    st.integers(7, 14),
    st.integers(2, 3),
    st.sampled_from(["", "", "cat", "dog"]),
    st.sampled_from([0, 0, 0, 1]),
)
PLANS = st.one_of(
    st.builds(FixedPlan, st.just(IMAGE), st.integers(1, 9)),
    st.builds(FreePlan, st.just(TEXT), st.just(frozenset({1})), st.integers(1, 12)),
)


def guided(prompt: Branch, second: int, plan, n: int, priority: int) -> Request:
    branches = (prompt,)
    if second:
        ids = (0,) * second
        branches = (Branch(prompt.token_ids, 2.0, prompt.embeddings), Branch(ids, -1.0))
    return Request(branches, plan, Sampling(), n, priority=priority)


REQUESTS = st.builds(
    guided,
    PROMPTS,
    st.sampled_from([0, 0, 1, 8, 9]),
    PLANS,
    st.sampled_from([1, 1, 2, 3]),
    st.sampled_from([0, 0, 0, 1, -2]),
)


@dataclass(frozen=True)
class Written:
    """What the K/V of one id depends on."""

    first_position: int
    ids: tuple[int, ...]
    features: tuple[tuple[int, str], ...]


def written(sequence: Sequence, branch: BranchState, index: int) -> Written:
    features = tuple((f.start, f.digest) for f in branch.prompt.embeddings if f.start <= index)
    ids = tuple(sequence.ids(branch, 0, index + 1))
    return Written(branch.prompt.first_position, ids, features)


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, steps, fails and aborts at random; every id a branch builds on must be its own."""

    @initialize(
        num_blocks=st.integers(13, 40),
        budget=st.sampled_from([1, 3, 8, 100]),
        max_running=st.sampled_from([2, 5, 100]),
        caching=st.booleans(),
        preempt=st.booleans(),
    )
    def start(self, num_blocks, budget, max_running, caching, preempt) -> None:
        config = EngineConfig(
            num_blocks=num_blocks,
            block_size=BLOCK,
            max_batch_tokens=budget,
            max_running=max_running,
            prefix_caching=caching,
            preempt_every_step=preempt,
        )
        resolved = config.resolve(KVShape(1, 1, 1), torch.float32, torch.device("cpu"))
        self.pool = BlockPool(num_blocks)
        self.scheduler = Scheduler(resolved, self.pool)
        self.memory: list[list[Written | None]] = [[None] * BLOCK for _ in range(num_blocks)]
        self.alive: list[Sequence] = []
        self.arrivals = self.requests = 0

    @precondition(lambda self: len(self.alive) < 12)
    @rule(request=REQUESTS, share=st.sampled_from([None, None, "a", "b"]))
    def add(self, request: Request, share: str | None) -> None:
        common = (request, EmbeddingStore(), (TEXT, IMAGE), share)
        self.requests += 1
        for sample in range(request.n):
            sequence = Sequence(self.requests, sample, self.arrivals, *common)
            self.arrivals += 1
            self.scheduler.add(sequence)
            sequence.advance()
            self.alive.append(sequence)

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        if self.alive:
            self.end(data.draw(st.sampled_from(self.alive)), "abort")

    @rule(
        ids=st.randoms(use_true_random=False),
        failing=st.sampled_from([0, 0, 1]),
        drafts=st.sampled_from([0, 0, 1, 6]),
    )
    def step(self, ids, failing: int, drafts: int = 0) -> None:
        for sequence in self.scheduler.running:
            if sequence.decoding:
                start = sequence.targets[0].allow.id_range.start
                sequence.draft([ids.randrange(start, start + 4) for _ in range(drafts)], 9)
        schedule = self.scheduler_step()
        failed = {chunk.sequence for chunk in schedule.chunks[:failing]}
        self.move(schedule)
        chunks = [chunk for chunk in schedule.chunks if chunk.sequence not in failed]
        self.run(chunks)
        for sequence in failed:
            self.end(sequence, "error")
        self.scheduler.commit(chunks)
        for sequence in dict.fromkeys(chunk.sequence for chunk in chunks):
            if all(sequence.pending(branch) == 0 for branch in sequence.branches):
                self.emit(sequence, ids)
                if sequence.finished:
                    self.end(sequence, sequence.finish_reason)

    def emit(self, sequence: Sequence, ids: Random) -> None:
        """A token behind each draft that is right, as about half of them are."""
        before, drafts = len(sequence.emitted), sequence.drafts
        for target in sequence.targets:
            if sequence.emitted[before:] != drafts[: target.offset]:
                break
            start = target.allow.id_range.start
            guessed = drafts[target.offset] if target.offset < len(drafts) else start
            id = guessed if ids.random() < 0.5 else ids.randrange(start, start + 4)
            sequence.emit(SampledToken(id))
            sequence.advance()
            if sequence.finished:
                return
        if drafts:
            self.scheduler.commit_drafts(sequence, sequence.right_drafts(before))
        for branch in sequence.branches:
            assert branch.cached == sequence.length(branch) - 1, "the last token is not fed yet"
            if not sequence.exact:
                assert len(branch.blocks) <= -(-sequence.length(branch) // BLOCK), "no room is left"

    def scheduler_step(self) -> Schedule:
        """The next step; the oldest's share takes part, or nothing is admitted before the oldest.

        That is the oldest of the lowest priority number. Once one of its sequences runs, those of
        other shares may be admitted before the next.
        """
        before = list(self.scheduler.running)
        schedule = self.scheduler.schedule()
        oldest = min(self.alive, key=lambda s: (s.priority, s.arrival), default=None)
        if oldest is not None and all(
            chunk.sequence.share != oldest.share for chunk in schedule.chunks
        ):
            if oldest.running and not oldest.decoding:
                return schedule  # it was just admitted, with too little left of the budget
            assert oldest in self.scheduler.waiting
            if self.scheduler._would_repeat(oldest):  # it waits for its prefix
                assert any(oldest.follows(other) for other in self.scheduler.running)
                return schedule
            assert all(sequence in before for sequence in self.scheduler.running)
            assert schedule.chunks
        return schedule

    @rule(moved=st.booleans())
    def break_off(self, moved: bool) -> None:
        """A step fails midway: what its chunks wrote, and often what it copied, is not there."""
        schedule = self.scheduler_step()
        if moved:
            self.move(schedule)
        for chunk in schedule.chunks:
            for index in range(chunk.start, chunk.stop):
                self.memory[chunk.branch.blocks[index // BLOCK]][index % BLOCK] = None
        self.scheduler.reset()
        assert self.pool.free_count == self.pool.num_blocks
        for sequence in self.alive:
            sequence.restart()
            self.scheduler.add(sequence)

    def move(self, schedule: Schedule) -> None:
        """Copies first, all from blocks as the last step left them, then clearing."""
        targets = [target for _, target in schedule.copy_on_write]
        assert len(set(targets)) == len(targets) and not set(targets) & set(schedule.new_blocks)
        contents = [list(self.memory[source]) for source, _ in schedule.copy_on_write]
        for target, content in zip(targets, contents, strict=True):
            self.memory[target] = content
        for block in schedule.new_blocks:
            self.memory[block] = [None] * BLOCK

    def run(self, chunks) -> None:
        """Each id is written to a block of its branch's alone; then each sees all before it."""
        for chunk in chunks:
            for index in range(chunk.start, chunk.stop):
                block = chunk.branch.blocks[index // BLOCK]
                assert self.pool.references(block) == 1
                self.memory[block][index % BLOCK] = written(chunk.sequence, chunk.branch, index)
        for chunk in chunks:
            for index in range(chunk.stop):
                seen = self.memory[chunk.branch.blocks[index // BLOCK]][index % BLOCK]
                assert seen == written(chunk.sequence, chunk.branch, index)

    def end(self, sequence: Sequence, reason) -> None:
        sequence.finish_reason = reason
        self.scheduler.remove(sequence)
        self.alive.remove(sequence)

    @invariant()
    def references_are_those_of_the_lines(self) -> None:
        tables = [branch.blocks for sequence in self.alive for branch in sequence.branches]
        for block in range(self.pool.num_blocks):
            assert self.pool.references(block) == sum(table.count(block) for table in tables)

    @invariant()
    def lines_that_run_are_no_more_than_allowed(self) -> None:
        branches = sum(len(sequence.branches) for sequence in self.scheduler.running)
        assert branches <= self.scheduler.config.max_running

    @invariant()
    def next_is_the_oldest_of_the_lowest_number_and_the_share_that_runs_fewest(self) -> None:
        branches: Counter[Hashable] = Counter()
        for sequence in self.scheduler.running:
            branches[sequence.share] += len(sequence.branches)
        waiting = self.scheduler.waiting
        queue = waiting.first()
        order = lambda s: (s.priority, branches[s.share], s.arrival)  # noqa: E731
        wanted = min(waiting, key=order, default=None)
        assert (queue[0] if queue else None) is wanted
        assert len(waiting) == len(list(waiting)) == len(self.alive) - len(self.scheduler.running)
        assert waiting.most_branches() == max(branches.values(), default=0)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for _ in range(3000):
            if not self.alive:
                break
            self.step(Random(0), 0)
        assert not self.alive
        assert self.pool.free_count == self.pool.num_blocks
        assert not self.scheduler._prefixes._computing and not self.scheduler._samples


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)


def test_a_sample_that_was_preempted_waits_for_no_later_sample_of_its_request():
    config = EngineConfig(num_blocks=40, block_size=BLOCK, max_batch_tokens=3)
    resolved = config.resolve(KVShape(1, 1, 1), torch.float32, torch.device("cpu"))
    scheduler = Scheduler(resolved, BlockPool(40))
    request = Request((Branch((2,) * 5),), FixedPlan(IMAGE, 3), n=2)
    first, second, other = (
        Sequence(i // 2, i % 2, i, request, EmbeddingStore(), (TEXT, IMAGE)) for i in range(3)
    )
    for sequence in (first, second, other):
        sequence.advance()
    scheduler.add(second)
    scheduler.commit(scheduler.schedule().chunks)
    scheduler.add(other)
    scheduler.add(first)  # as when it was preempted: it comes before those that came later
    scheduler.commit(scheduler.schedule().chunks)
    assert scheduler.running == [first, second]


def scheduler_and_sequences(
    requests: list[Request], **options: Any
) -> tuple[Scheduler, list[Sequence]]:
    """A scheduler with room for 40 blocks, and one sequence of each request, not yet added."""
    config = EngineConfig(num_blocks=40, block_size=BLOCK, **options)
    resolved = config.resolve(KVShape(1, 1, 1), torch.float32, torch.device("cpu"))
    sequences = [
        Sequence(i, 0, i, request, EmbeddingStore(), (TEXT, IMAGE))
        for i, request in enumerate(requests)
    ]
    for sequence in sequences:
        sequence.advance()
    return Scheduler(resolved, BlockPool(40)), sequences


def test_nobody_passes_one_whose_branches_do_not_fit_though_it_waits_for_a_prefix_too():
    prompt, plan = Branch((2,) * 17), FixedPlan(IMAGE, 3)
    guided = (Branch(prompt.token_ids, 2.0), Branch((3,), -1.0))
    requests = [Request((prompt,), plan), Request(guided, plan), Request((Branch((4,)),), plan)]
    scheduler, (first, second, third) = scheduler_and_sequences(
        requests, max_batch_tokens=12, max_running=2
    )
    scheduler.add(first)
    scheduler.commit(scheduler.schedule().chunks)
    scheduler.add(second)  # two branches beside one, and the first one's fourth block is awaited
    scheduler.add(third)
    scheduler.schedule()
    assert scheduler.running == [first]


def test_the_order_of_the_shares_that_wait_forgets_what_is_out_of_date():
    _, (sequence,) = scheduler_and_sequences([Request((Branch((2,)),), FixedPlan(IMAGE, 3))])
    waiting, entries = Waiting(), []
    waiting.add(sequence)
    for _ in range(200):
        waiting.count(sequence.share, 1)
        entries.append(len(waiting._order))
    assert max(entries) == 4 + 64 and min(entries) == 1
    assert waiting.first() == [sequence]
