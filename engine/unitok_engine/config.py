"""The engine's options, resolved once against a model."""

from dataclasses import dataclass

import torch

_CPU_MEMORY = 512 * 2**20  # bytes; pages are committed only when written
_CUDA_BLOCK_SIZE = 64  # the paged kernel reads pages of 64
_CPU_BLOCK_SIZE = 32


@dataclass(frozen=True)
class KVShape:
    """The shape of a model's keys and values."""

    layers: int
    kv_heads: int
    head_dim: int

    def bytes_per_id(self, dtype: torch.dtype) -> int:
        """Bytes of the keys and values of one id, all layers together."""
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype.itemsize


@dataclass(frozen=True)
class EngineConfig:
    """Sizes of the K/V pool and of a step.

    memory: bytes for the K/V pool; or give num_blocks. With neither: 512 MiB on a CPU, half of
    what is free on CUDA, and never more than max_running lines of max_context ids need.
    block_size: ids per block; None means 64 on CUDA and 32 elsewhere.
    max_batch_tokens: prefill ids per step, beside the decode rows.
    max_running: lines (branches) that run at once.
    max_context: ids in a line, counted from position 0, prompt and emitted ones together.
    preempt_every_step: preempt whatever may be preempted before each step, to test recompute.
    """

    memory: int | None = None
    num_blocks: int | None = None
    block_size: int | None = None
    max_batch_tokens: int = 2048
    max_running: int = 256
    max_context: int = 2048
    preempt_every_step: bool = False

    def __post_init__(self) -> None:
        for name in ("memory", "num_blocks", "block_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        for name in ("max_batch_tokens", "max_running", "max_context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.memory is not None and self.num_blocks is not None:
            raise ValueError("give memory or num_blocks, not both")

    def resolve(self, shape: KVShape, dtype: torch.dtype, device: torch.device) -> "ResolvedConfig":
        """Fill in the block size and the number of blocks for a model's K/V.

        Raises ValueError if the memory does not hold a single block.
        """
        on_cuda = device.type == "cuda"
        block_size = self.block_size or (_CUDA_BLOCK_SIZE if on_cuda else _CPU_BLOCK_SIZE)
        block_bytes = shape.bytes_per_id(dtype) * block_size
        blocks = self.num_blocks or self._blocks_in_memory(block_bytes, block_size, device)
        if blocks < 1:
            raise ValueError(f"memory must hold at least one block of {block_bytes} bytes")
        return ResolvedConfig(
            num_blocks=blocks,
            block_size=block_size,
            block_bytes=block_bytes,
            max_batch_tokens=self.max_batch_tokens,
            max_running=self.max_running,
            max_context=self.max_context,
            preempt_every_step=self.preempt_every_step,
        )

    def _blocks_in_memory(self, block_bytes: int, block_size: int, device: torch.device) -> int:
        useful = self.max_running * -(-self.max_context // block_size)
        if self.memory is not None:
            return min(self.memory // block_bytes, useful)
        free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _CPU_MEMORY
        return min(free // block_bytes, useful)


@dataclass(frozen=True)
class ResolvedConfig:
    """An EngineConfig with nothing left open; `block_bytes` is one block's K/V in all layers."""

    num_blocks: int
    block_size: int
    block_bytes: int
    max_batch_tokens: int
    max_running: int
    max_context: int
    preempt_every_step: bool

    @property
    def memory(self) -> int:
        """Bytes of the K/V pool."""
        return self.num_blocks * self.block_bytes

    def blocks_for(self, length: int) -> int:
        """Blocks that hold `length` ids."""
        return -(-length // self.block_size)
