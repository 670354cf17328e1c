import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from unitok_engine.block_pool import BlockPool

SIZE = 6


class BlockPoolMachine(RuleBasedStateMachine):
    """The pool against a plain count of references."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(SIZE)
        self.references = [0] * SIZE

    @rule(count=st.integers(0, SIZE))
    def allocate(self, count: int) -> None:
        if count > self.references.count(0):
            with pytest.raises(RuntimeError, match="free"):
                self.pool.allocate(count)
            return
        blocks = self.pool.allocate(count)
        assert len(set(blocks)) == count
        for block in blocks:
            assert self.references[block] == 0
            self.references[block] = 1

    @precondition(lambda self: any(self.references))
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from([i for i, n in enumerate(self.references) if n]))
        self.pool.share([block])
        self.references[block] += 1

    @rule(block=st.integers(-1, SIZE))
    def deallocate(self, block: int) -> None:
        if not 0 <= block < SIZE or self.references[block] == 0:
            with pytest.raises(ValueError, match="not in use"):
                self.pool.deallocate([block])
            return
        self.pool.deallocate([block])
        self.references[block] -= 1

    @invariant()
    def free_blocks_are_those_without_reference(self) -> None:
        assert self.pool.free_count == self.references.count(0)


TestBlockPool = BlockPoolMachine.TestCase
TestBlockPool.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_a_free_block_cannot_be_shared():
    with pytest.raises(ValueError, match="not in use"):
        BlockPool(2).share([0])
