"""Finds what is computed already: the longest beginning of a prompt whose K/V lies in blocks.

Full blocks are found by a hash of everything their K/V depends on, as in vLLM's automatic prefix
caching (https://docs.vllm.ai/en/latest/design/prefix_caching.html).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from unitok_engine.block_pool import BlockPool
from unitok_engine.sequence import BranchState, Sequence


@dataclass(frozen=True)
class Prefix:
    """What a branch finds computed.

    Attributes:
        blocks: Full blocks, to be shared.
        source: A block to be copied, if `cached` ends inside it; else None.
        cached: How many tokens have their K/V there.
    """

    blocks: tuple[int, ...] = ()
    source: int | None = None
    cached: int = 0


class PrefixCache:
    """Full blocks by their content, and who is just computing which.

    Args:
        pool: Knows the blocks by their keys.
        block_size: Tokens in a block.
        enabled: Whether blocks are found at all; samples of one request share their prompt anyway.
    """

    def __init__(self, pool: BlockPool, block_size: int, enabled: bool) -> None:
        self._pool = pool
        self._size = block_size
        self._enabled = enabled
        self.reset()

    def reset(self) -> None:
        """Forget who computes what."""
        self._computing: dict[bytes, Sequence] = {}  # key -> the running one that will compute it

    @property
    def computing(self) -> int:
        """How many blocks running sequences are about to compute."""
        return len(self._computing)

    def find(
        self, sequence: Sequence, index: int, sibling: Sequence | None
    ) -> tuple[list[int], int]:
        """The longest computed beginning of a branch, before at least one token to compute.

        Args:
            sequence: Whose branch it is.
            index: Which of its branches.
            sibling: A running sample of the same request whose prompt is computed, if there is one.

        Returns:
            The blocks, and how many tokens of them are of use.
        """
        branch = sequence.branches[index]
        most = sequence.length(branch) - 1
        blocks = self.found_blocks(sequence, branch)
        cached = min(len(blocks) * self._size, most)
        if sibling is not None:
            shared = min(branch.prompt_length, most)
            if shared > cached:
                blocks, cached = sibling.branches[index].blocks, shared
        return blocks, cached

    def found_blocks(self, sequence: Sequence, branch: BranchState) -> list[int]:
        """The computed full blocks with which a branch begins."""
        blocks: list[int] = []
        if self._enabled:
            for index in range(sequence.length(branch) // self._size):
                block = self._pool.find(sequence.key(branch, index, self._size))
                if block is None:
                    break
                blocks.append(block)
        return blocks

    def awaits(self, sequence: Sequence) -> bool:
        """Whether an older sequence is just computing what comes next in one of the branches."""
        if not self._computing:
            return False
        for branch in sequence.branches:
            index = len(self.found_blocks(sequence, branch))
            if index < sequence.length(branch) // self._size:
                other = self._computing.get(sequence.key(branch, index, self._size))
                if other is not None and sequence.follows(other):
                    return True
        return False

    def claim(self, sequence: Sequence) -> None:
        """Note which blocks a sequence's prefill will compute."""
        if self._enabled:
            for branch in sequence.branches:
                full = range(branch.cached // self._size, sequence.length(branch) // self._size)
                for index in full:
                    self._computing.setdefault(sequence.key(branch, index, self._size), sequence)

    def release(self, sequence: Sequence) -> None:
        """Note that a sequence will compute no more."""
        for branch in sequence.branches:
            self._unclaim(sequence, branch.keys[branch.cached // self._size :])

    def register(self, sequence: Sequence, branch: BranchState, start: int, stop: int) -> None:
        """Let the blocks be found that became full as tokens [start, stop) were computed."""
        if not self._enabled:
            return
        for index in range(start // self._size, stop // self._size):
            key = sequence.key(branch, index, self._size)
            self._pool.register(branch.blocks[index], key)
            self._unclaim(sequence, (key,))

    def _unclaim(self, sequence: Sequence, keys: Iterable[bytes]) -> None:
        for key in keys:
            if self._computing.get(key) is sequence:
                del self._computing[key]
