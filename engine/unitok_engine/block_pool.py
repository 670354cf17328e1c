"""A fixed number of K/V blocks, handed out by number, and found again by what they hold."""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

ROOT = b""  # the parent of a branch's first block


def block_key(parent: bytes, ids: Sequence[int], marks: Sequence[str]) -> bytes:
    """The key of a full block: a hash of everything its K/V depends on.

    Args:
        parent: The key of the block before it, or ROOT.
        ids: As many token ids as a block holds.
        marks: Whatever else shapes K/V here, such as the digests of embeddings.
    """
    digest = blake2b(parent, digest_size=16)
    digest.update(array("q", ids).tobytes())
    for mark in marks:
        text = mark.encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.digest()


class BlockPool:
    """Blocks 0 to num_blocks - 1 with reference counts; it never touches K/V itself.

    A block without references is free. A free block that was registered keeps its content and is
    evictable: it may be found by its key and shared again, until blocks without a key have run out
    and it is the least recently used one.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.reset()

    def reset(self) -> None:
        """All blocks are free, and none is found by what it holds."""
        num_blocks = self.num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))  # the last one goes first, still warm
        self._evictable: OrderedDict[int, None] = OrderedDict()  # free, with a key; oldest first
        self._references = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._found: dict[bytes, int] = {}

    @property
    def free_count(self) -> int:
        """Blocks without references, evictable ones included."""
        return len(self._free) + len(self._evictable)

    @property
    def cached_count(self) -> int:
        """Blocks that can be found by their key, in use or not."""
        return len(self._found)

    def allocate(self, count: int) -> list[int]:
        """Take `count` free blocks, each with one reference.

        Raises:
            RuntimeError: There are too few.
        """
        if count > self.free_count:
            raise RuntimeError(f"{count} blocks wanted, {self.free_count} free")
        blocks = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """Add a reference to blocks in use or found by key.

        Raises:
            ValueError: A block is neither.
        """
        for block in blocks:
            if not self.is_evictable(block):
                self._check_in_use(block)
            self._evictable.pop(block, None)
            self._references[block] += 1

    def deallocate(self, blocks: Iterable[int]) -> None:
        """Drop a reference; a block without any is free.

        Of blocks with a key, those given first are the first to go when room is needed.

        Raises:
            ValueError: A block is free already.
        """
        for block in blocks:
            self._check_in_use(block)
            self._references[block] -= 1
            if self._references[block]:
                continue
            if self._keys[block] is None:
                self._free.append(block)
            else:
                self._evictable[block] = None

    def truncate(self, blocks: list[int], count: int) -> None:
        """Keep the first `count` of a branch's blocks, and drop a reference to the others."""
        self.deallocate(reversed(blocks[count:]))
        del blocks[count:]

    def is_evictable(self, block: int) -> bool:
        """Whether the block is free and its content can still be found."""
        return block in self._evictable

    def references(self, block: int) -> int:
        """How many references a block has."""
        return self._references[block]

    def register(self, block: int, key: bytes) -> None:
        """Let a block in use be found by its key; a key that is known keeps its first block."""
        self._check_in_use(block)
        if key not in self._found and self._keys[block] is None:
            self._found[key] = block
            self._keys[block] = key

    def find(self, key: bytes) -> int | None:
        """The block registered under the key, to be shared."""
        return self._found.get(key)

    def forget(self, blocks: Iterable[int]) -> None:
        """Let blocks be found no more."""
        for block in blocks:
            key = self._keys[block]
            if key is None:
                continue
            del self._found[key]
            self._keys[block] = None
            if block in self._evictable:
                del self._evictable[block]
                self._free.append(block)

    def _evict(self) -> int:
        """The free block whose content was used least recently, forgotten."""
        block, _ = self._evictable.popitem(last=False)
        key = self._keys[block]
        assert key is not None
        del self._found[key]
        self._keys[block] = None
        return block

    def _check_in_use(self, block: int) -> None:
        if not 0 <= block < self.num_blocks or self._references[block] == 0:
            raise ValueError(f"block {block} is not in use")
