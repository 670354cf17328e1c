import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from unitok_engine.block_pool import ROOT, BlockPool, block_key

SIZE = 6
BLOCKS = st.integers(-1, SIZE)


class BlockPoolMachine(RuleBasedStateMachine):
    """The pool against plain lists: references, keys, and free blocks by their last use."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(SIZE)
        self.references = [0] * SIZE
        self.keys: dict[int, bytes] = {}
        self.idle: list[int] = []  # free, with a key; oldest first

    @rule(count=st.integers(0, SIZE))
    def allocate(self, count: int) -> None:
        if count > self.references.count(0):
            with pytest.raises(RuntimeError, match="free"):
                self.pool.allocate(count)
            return
        blank = self.references.count(0) - len(self.idle)
        evicted, self.idle = self.idle[: max(count - blank, 0)], self.idle[max(count - blank, 0) :]
        blocks = self.pool.allocate(count)
        assert len(set(blocks)) == count
        assert [block for block in blocks if block in self.keys] == evicted
        for block in blocks:
            assert self.references[block] == 0
            self.references[block] = 1
            self.keys.pop(block, None)

    @rule(block=BLOCKS)
    def share(self, block: int) -> None:
        if not 0 <= block < SIZE or (self.references[block] == 0 and block not in self.idle):
            with pytest.raises(ValueError, match="not in use"):
                self.pool.share([block])
            return
        self.pool.share([block])
        self.references[block] += 1
        if block in self.idle:
            self.idle.remove(block)

    @rule(block=BLOCKS)
    def deallocate(self, block: int) -> None:
        if not 0 <= block < SIZE or self.references[block] == 0:
            with pytest.raises(ValueError, match="not in use"):
                self.pool.deallocate([block])
            return
        self.pool.deallocate([block])
        self.references[block] -= 1
        if self.references[block] == 0 and block in self.keys:
            self.idle.append(block)

    @precondition(lambda self: any(self.references))
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        held = [block for block, count in enumerate(self.references) if count]
        blocks = data.draw(st.lists(st.sampled_from(held), unique=True))
        count = data.draw(st.integers(0, len(blocks) + 1))
        kept, dropped = blocks[:count], blocks[count:]
        self.pool.truncate(blocks, count)
        assert blocks == kept
        for block in reversed(dropped):
            self.references[block] -= 1
            if self.references[block] == 0 and block in self.keys:
                self.idle.append(block)

    @precondition(lambda self: any(self.references))
    @rule(data=st.data(), key=st.sampled_from([b"a", b"b", b"c", b"d"]))
    def register(self, data: st.DataObject, key: bytes) -> None:
        block = data.draw(st.sampled_from([i for i, n in enumerate(self.references) if n]))
        self.pool.register(block, key)
        if key not in self.keys.values() and block not in self.keys:
            self.keys[block] = key

    @rule(block=st.integers(0, SIZE - 1))
    def forget(self, block: int) -> None:
        self.pool.forget([block])
        self.keys.pop(block, None)
        if block in self.idle:
            self.idle.remove(block)

    @invariant()
    def references_are_exact(self) -> None:
        assert [self.pool.references(block) for block in range(SIZE)] == self.references
        assert self.pool.free_count == self.references.count(0)

    @invariant()
    def a_key_finds_its_block(self) -> None:
        found = {self.pool.find(key): key for key in (b"a", b"b", b"c", b"d")}
        found.pop(None, None)
        assert found == self.keys
        assert self.pool.cached_count == len(self.keys)
        assert [block for block in range(SIZE) if self.pool.is_evictable(block)] == sorted(
            self.idle
        )


TestBlockPool = BlockPoolMachine.TestCase
TestBlockPool.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)


def test_the_least_recently_used_block_is_evicted_first():
    pool = BlockPool(3)
    blocks = pool.allocate(3)
    for block, key in zip(blocks, (b"a", b"b", b"c"), strict=True):
        pool.register(block, key)
    pool.deallocate(blocks)
    pool.share([blocks[0]])
    pool.deallocate([blocks[0]])
    assert pool.allocate(2) == blocks[1:]
    assert (pool.find(b"a"), pool.find(b"b"), pool.find(b"c")) == (blocks[0], None, None)


def test_a_key_depends_on_parent_ids_and_marks_and_on_nothing_else():
    keys = [
        block_key(ROOT, [1, 2], ["x"]),
        block_key(b"p", [1, 2], ["x"]),
        block_key(ROOT, [2, 1], ["x"]),
        block_key(ROOT, [1, 2], []),
        block_key(ROOT, [1, 2], ["x", ""]),
        block_key(ROOT, [1, 2], ["xy"]),
        block_key(ROOT, [1, 2], ["x", "y"]),
    ]
    assert len(set(keys)) == len(keys)
    assert block_key(ROOT, (1, 2), ("x",)) == keys[0]
