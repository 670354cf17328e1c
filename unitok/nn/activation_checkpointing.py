"""What training keeps of a layer's activations, and what it computes again for the gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

Mode = Literal["none", "selective", "full"]
"""How much is computed again: nothing; all but matrix products and attention, so that little time
and some memory is spent; or everything but what goes into a block, for the least memory
(https://arxiv.org/abs/1604.06174)."""

_NARROW = 256  # products of fewer columns than this, such as LoRA's, are computed quickly


def run_block(mode: Mode, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Run a block so that its gradients can be had in less memory."""
    if mode == "none" or not torch.is_grad_enabled():
        return block(*inputs)
    keep_products = partial(create_selective_checkpoint_contexts, _policy)
    context = keep_products if mode == "selective" else noop_context_fn
    out: Tensor = checkpoint(block, *inputs, use_reentrant=False, context_fn=context)
    return out


def _policy(_: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if operator is torch.ops.aten.mm.default:
        is_slow = min(args[0].shape[1], args[1].shape[1]) >= _NARROW
    else:
        name = operator.name()
        is_slow = "attention" in name or "flash_fwd" in name  # torch's and xformers' kernels
    return CheckpointPolicy.MUST_SAVE if is_slow else CheckpointPolicy.PREFER_RECOMPUTE
