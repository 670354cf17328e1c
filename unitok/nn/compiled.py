"""The decoder's layers through torch.compile, all but attention over the cache.

A decode step of a small model is hundreds of short kernels. As in gpt-fast
(https://github.com/pytorch-labs/gpt-fast), Inductor (https://pytorch.org/docs/stable/torch.compiler)
joins those of norms, rotation, activations and residuals. Attention reads pages that only the
engine knows, so it stays an ordinary call; what lies between two of them is one compiled function.
Weights are its inputs, so that it is compiled once and serves all layers.
"""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from unitok.nn.layers import Block, Cache, Rotation

logger = logging.getLogger(__name__)

MAX_ROWS = 128
"""Rows of a step up to which it is compiled: with more, multiplying takes nearly all the time."""
VARIANTS = 64
"""Compiled variants of one function (by model, dtype, mode, one row or several) that are kept."""

Projected = tuple[Tensor, Tensor, Tensor]


def enter(block: Block, x: Tensor, rotation: Rotation) -> Projected:
    """Compute queries, keys and values of the first layer from embeddings [n, d]."""
    return block.before_attention(x, rotation)


def between(
    block: Block, following: Block, x: Tensor, attended: Tensor, rotation: Rotation
) -> tuple[Tensor, Projected]:
    """Compute from one layer's attention [n, heads, head_dim] to the next one's inputs.

    Returns:
        The hidden states [n, d] behind `block`, and the queries, keys and values of `following`.
    """
    x = block.after_attention(x, attended)
    return x, following.before_attention(x, rotation)


def leave(block: Block, norm: nn.Module, x: Tensor, attended: Tensor) -> Tensor:
    """Compute normed hidden states [n, d] from the last layer's attention."""
    return norm(block.after_attention(x, attended))


class CompiledBlocks:
    """Runs the blocks and the norm of a decoder that is prepared for inference, compiled.

    It compiles when it first runs with one row, with several, and with another number of them. If
    that fails, it says so once as a warning, and runs the same functions as they are.
    """

    def __init__(self, blocks: Sequence[Block], norm: nn.Module) -> None:
        self._blocks, self._norm = blocks, norm
        # Dynamo checks the sizes of what comes in, so Inductor need not do it again.
        options: dict[str, Any] = {"size_asserts": False}
        parts: tuple[Callable[..., Any], ...] = (enter, between, leave)
        self._compiled = {
            part: torch.compile(part, fullgraph=True, options=options) for part in parts
        }
        dynamo = cast(Any, torch)._dynamo.config
        dynamo.cache_size_limit = max(dynamo.cache_size_limit, VARIANTS)

    def __call__(self, x: Tensor, rotation: Rotation, cache: Cache) -> Tensor:
        """Map embeddings [n, d], n at most MAX_ROWS, to normed hidden states [n, d]."""
        blocks = self._blocks
        q, k, v = self._run(enter, blocks[0], x, rotation)
        for block, following in pairwise(blocks):
            attended = self._attend(block, cache, q, k, v)
            x, (q, k, v) = self._run(between, block, following, x, attended, rotation)
        attended = self._attend(blocks[-1], cache, q, k, v)
        return self._run(leave, blocks[-1], self._norm, x, attended)

    def _attend(self, block: Block, cache: Cache, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Backends lay their output out in several ways, each of which would be compiled for anew.
        return cache.attend(block.attention.layer, q, k, v).contiguous()

    def _run(self, part: Callable[..., Any], *inputs: Any) -> Any:
        if not self._compiled:
            return part(*inputs)
        try:
            return self._compiled[part](*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compilers' errors have no common type
            reason = str(error).strip().partition("\n")[0]
            logger.warning("the model cannot be compiled, and runs uncompiled: %s", reason)
            self._compiled.clear()
            return part(*inputs)


def why_not_compiled(device: torch.device) -> str | None:
    """Return what is missing to compile for a device, as a clause; None if nothing is."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "Triton is not installed"
        compilers = (os.environ.get("CC", ""), "gcc", "clang", "cc")
        found = any(map(is_there, compilers))
        return None if found else "Triton finds no C compiler: install gcc, or name one in CC"
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if not is_there(compiler):
        return f"there is no C++ compiler {compiler!r}: install one, or name one in CXX"
    return None


def is_there(command: str) -> bool:
    """Whether the program of a command is found, such as ccache of "ccache g++"."""
    words = shlex.split(command)
    return bool(words) and shutil.which(words[0]) is not None
