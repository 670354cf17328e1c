"""Attention of sequences that lie one behind the other in a row, with gradients, as in training."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor

from unitok.nn.layers import causal_attention
from unitok_engine.user_warnings import warn

_TOLERANCE = 0.03  # of numbers near 1: two bytes round by up to 0.008, and gradients add some up

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries [n, heads, head_dim], keys and values [n, kv_heads, head_dim] -> as queries."""


class PackedAttention:
    """A `Cache` that keeps nothing: each token attends within its own sequence.

    On CUDA one kernel of xformers serves all sequences. Elsewhere torch computes one after the
    other, which on a CPU takes less time than padding them to equal lengths.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        """Lengths are the rows of each sequence, in the order in which they lie."""
        self.lengths = tuple(lengths)
        self._attend: Attend | None = None  # chosen by the first layer

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend causally within each sequence; see `Cache.attend`."""
        q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast the rotation may have widened them
        if self._attend is None:
            self._attend = self._choose(q)
        return self._attend(q, k, v)

    def _choose(self, q: Tensor) -> Attend:
        if q.is_cuda and has_kernel(q.shape[-1], q.dtype, q.device):
            return xformers_attention(self.lengths, q.device)
        return partial(attend_one_by_one, self.lengths)


def attend_one_by_one(lengths: Sequence[int], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend causally within sequences of these lengths, by torch."""
    sequences = zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    return torch.cat([causal_attention(*sequence) for sequence in sequences])


def xformers_attention(lengths: Sequence[int], device: torch.device) -> Attend:
    """What attends causally within sequences of these lengths, by one kernel of xformers."""
    from xformers.ops import fmha  # pyright: ignore[reportMissingTypeStubs]

    bias = fmha.attn_bias.BlockDiagonalCausalMask.from_seqlens(list(lengths), device=device)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        group = q.shape[1] // k.shape[1]
        if group > 1:  # the kernels know grouped heads, but not their gradients
            k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        return fmha.memory_efficient_attention(q[None], k[None], v[None], attn_bias=bias)[0]

    return attend


@lru_cache(maxsize=32)
def has_kernel(head_dim: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether xformers can train on this device. A process tries its kernel once, beside torch's.

    If xformers is installed and its kernel fails, a warning says why.
    """
    if find_spec("xformers") is None:
        return False
    fault = kernel_fault(head_dim, dtype, device)
    if fault is not None:
        warn(f"torch attends in training instead of xformers, more slowly: {fault}")
    return fault is None


@torch.inference_mode(False)  # whose tensors have no gradients: the first call may be in it
def kernel_fault(head_dim: int, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why xformers' training kernel is of no use here, or None if it works."""
    lengths = (5, 3)
    sizes = (3, sum(lengths), 2, head_dim)
    qkv = torch.randn(sizes, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    try:
        seen = _values_and_gradients(xformers_attention(lengths, device), qkv)
    except (MemoryError, torch.OutOfMemoryError):  # says nothing of the kernel
        raise
    except Exception as error:  # whatever a library that does not fit raises
        return f"its kernel raised {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    expected = _values_and_gradients(partial(attend_one_by_one, lengths), qkv)
    is_right = torch.allclose(seen, expected, atol=_TOLERANCE, rtol=_TOLERANCE)
    return None if is_right else "its kernel gives wrong numbers"


def _values_and_gradients(attend: Attend, qkv: Tensor) -> Tensor:
    """What is attended and the gradients of queries, keys and values, [4, n, heads, head_dim]."""
    with torch.enable_grad(), torch.autocast(qkv.device.type, enabled=False):
        leaf = qkv.detach().requires_grad_()
        out = attend(*leaf)
        (gradients,) = torch.autograd.grad(out.square().sum(), leaf)
    return torch.cat([out.detach()[None], gradients]).float()
