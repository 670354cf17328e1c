"""The loss of each token, without ever holding the logits of all of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 2**25
"""Logits that are held at a time: 128 MB in fp32."""

MakeLogits = Callable[[Tensor], Tensor]
"""Hidden states [m, ...] -> logits [m, size]."""

Shape = Callable[[Tensor, Tensor], Tensor]
"""Logits [m, size] in fp32 and the columns of the right tokens [m] -> the logits that count."""


def cross_entropy(
    make_logits: MakeLogits,
    hidden: Tensor,
    wanted: Tensor,
    size: int,
    is_frozen: bool = False,
    shape: Shape | None = None,
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each token in fp32, and the logarithm of its softmax's denominator.

    If the logits are many they are computed by chunks of rows, so that only those of one chunk are
    in memory. They are computed again for the gradients; of a frozen head the gradients are taken
    at once instead, as Liger Kernel does (https://arxiv.org/abs/2410.10989).

    Args:
        make_logits: Gives the logits of hidden states.
        hidden: Hidden states [m, ...].
        wanted: The column of the right token in each row of logits [m].
        size: How many logits a row has.
        is_frozen: Whether only the hidden states need gradients, and those of the losses alone: the
            logarithms have none then.
        shape: Changes the logits before, such as by a temperature; only without `is_frozen`.

    Returns:
        Two tensors [m], in nats.
    """
    rows = max(1, CHUNK // size)
    if len(hidden) <= rows:
        return _of_chunk(make_logits, hidden, wanted, shape)
    chunks = list(zip(hidden.split(rows), wanted.split(rows), strict=True))
    if is_frozen and torch.is_grad_enabled() and hidden.requires_grad:
        parts = [_WithGradients.apply(make_logits, *chunk) for chunk in chunks]
    else:
        parts = [
            checkpoint(_of_chunk, make_logits, *chunk, shape, use_reentrant=False)
            for chunk in chunks
        ]
    losses, normalisers = zip(*parts, strict=True)
    return torch.cat(losses), torch.cat(normalisers)


def _of_chunk(
    make_logits: MakeLogits, hidden: Tensor, wanted: Tensor, shape: Shape | None = None
) -> tuple[Tensor, Tensor]:
    logits = make_logits(hidden).float()
    logits = logits if shape is None else shape(logits, wanted)
    losses = F.cross_entropy(logits, wanted, reduction="none")
    return losses, losses + logits.gather(1, wanted[:, None])[:, 0]


class _WithGradients(torch.autograd.Function):
    """Losses of a chunk whose gradients are known before they are asked for.

    A loss depends on its own row of hidden states alone, so what comes back for the loss scales
    that row's gradient.
    """

    @staticmethod
    def forward(ctx: Any, make_logits: MakeLogits, hidden: Tensor, wanted: Tensor) -> Any:
        with torch.enable_grad():
            leaf = hidden.detach().requires_grad_()
            losses, normalisers = _of_chunk(make_logits, leaf, wanted)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(normalisers)
        return losses.detach(), normalisers.detach()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        scale = outputs[0].view(-1, *[1] * (gradient.dim() - 1))
        return None, (gradient * scale).to(gradient.dtype), None
