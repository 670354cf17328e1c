"""The engine's options, resolved once against a model."""

from dataclasses import dataclass
from pathlib import Path

import torch

from unitok_engine.attention.backends import BACKENDS, BackendName, pick_backend
from unitok_engine.attention.kv_layout import KVShape

_CPU_MEMORY = 512 * 2**20  # bytes; pages are committed only when written


@dataclass(frozen=True)
class EngineConfig:
    """Sizes of the K/V pool and of a step.

    Attributes:
        memory: Of the K/V pool: bytes, or a float up to 1.0 as a share of what is free on the
            device. Without it and without `num_blocks`, it is 512 MiB on a CPU and half of what is
            free on CUDA. Never more is taken than `max_running` branches of `max_context` tokens
            need.
        num_blocks: Blocks of the pool, instead of `memory`.
        block_size: Tokens in a block; None is 64 on CUDA, elsewhere 64 in two bytes and 32 in four.
        max_batch_tokens: Prefill tokens in a step, beside the decode rows. Long runs of tokens that
            a plan forces or gives count as prefill. As many tokens again may lie in decode rows
            behind the first of each.
        max_running: Branches that run at once.
        max_context: Tokens of a branch, counted from position 0, prompt and emitted ones together.
        prefix_caching: Whether the K/V of full blocks is kept when their requests end, until room
            is needed, and shared with branches that begin alike.
        attention: The attention backend; None picks what fits best and works.
        cuda_graphs: Whether decode steps on CUDA are recorded and replayed, where xformers attends.
        preempt_every_step: Whether all that may be preempted is, before each step, to test
            recompute.
    """

    memory: int | float | None = None
    num_blocks: int | None = None
    block_size: int | None = None
    max_batch_tokens: int = 2048
    max_running: int = 256
    max_context: int = 2048
    prefix_caching: bool = True
    attention: BackendName | None = None
    cuda_graphs: bool = True
    preempt_every_step: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.memory, float) and not 0 < self.memory <= 1:
            raise ValueError(f"memory as a share must be above 0 and at most 1, not {self.memory}")
        if isinstance(self.memory, int) and self.memory < 1:
            raise ValueError(f"memory must be at least 1, not {self.memory}")
        for name in ("num_blocks", "block_size"):
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

        Args:
            shape: Of the model's keys and values.
            dtype: Of their numbers.
            device: Where they lie.

        Raises:
            ValueError: The memory does not hold a single block, or xformers is asked for and does
                not work on the device.
        """
        attention = pick_backend(shape, self.block_size, dtype, device, self.attention)
        block_size = self.block_size or BACKENDS[attention].preferred_block_size(dtype, device)
        block_bytes = shape.bytes_per_token(dtype) * block_size
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
            prefix_caching=self.prefix_caching,
            attention=attention,
            cuda_graphs=self.cuda_graphs,
            preempt_every_step=self.preempt_every_step,
        )

    def _blocks_in_memory(self, block_bytes: int, block_size: int, device: torch.device) -> int:
        useful = self.max_running * -(-self.max_context // block_size)
        return min(self._pool_bytes(device) // block_bytes, useful)

    def _pool_bytes(self, device: torch.device) -> int:
        if isinstance(self.memory, float):
            return int(self.memory * free_memory(device))
        if self.memory is not None:
            return self.memory
        return free_memory(device) // 2 if device.type == "cuda" else _CPU_MEMORY


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device.

    Raises:
        ValueError: That is not known here.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:  # Linux; it counts what the page cache would give back
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        raise ValueError("free memory is not known here: give memory in bytes") from None


@dataclass(frozen=True)
class ResolvedConfig:
    """An `EngineConfig` with nothing left open.

    Attributes:
        block_bytes: Bytes of one block's K/V in all layers; the others are those of `EngineConfig`.
    """

    num_blocks: int
    block_size: int
    block_bytes: int
    max_batch_tokens: int
    max_running: int
    max_context: int
    prefix_caching: bool
    attention: BackendName
    cuda_graphs: bool
    preempt_every_step: bool

    @property
    def memory(self) -> int:
        """Bytes of the K/V pool."""
        return self.num_blocks * self.block_bytes

    def blocks_for(self, length: int) -> int:
        """How many blocks hold so many tokens."""
        return -(-length // self.block_size)
