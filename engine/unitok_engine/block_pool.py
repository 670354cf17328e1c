"""A fixed number of K/V blocks, handed out and taken back by number."""

from collections import deque
from collections.abc import Iterable


class BlockPool:
    """Blocks 0..num_blocks-1 with reference counts; it never touches K/V itself."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = deque(range(num_blocks))
        self._references = [0] * num_blocks

    @property
    def free_count(self) -> int:
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Take `count` free blocks, each with one reference; RuntimeError if there are too few."""
        if count > len(self._free):
            raise RuntimeError(f"{count} blocks wanted, {len(self._free)} free")
        blocks = [self._free.popleft() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """Add a reference to blocks in use; ValueError for a free one."""
        for block in blocks:
            self._check_in_use(block)
            self._references[block] += 1

    def deallocate(self, blocks: Iterable[int]) -> None:
        """Drop a reference; a block without any is free. ValueError for a free one."""
        for block in blocks:
            self._check_in_use(block)
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)

    def _check_in_use(self, block: int) -> None:
        if not 0 <= block < self.num_blocks or self._references[block] == 0:
            raise ValueError(f"block {block} is not in use")
