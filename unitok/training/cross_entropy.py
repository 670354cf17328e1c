"""The loss of each token, without ever holding the logits of all of them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 2**25
"""Logits that are held at a time: 128 MB in fp32."""

MakeLogits = Callable[[Tensor], Tensor]
"""Hidden states [m, ...] -> logits [m, size]."""


def cross_entropy(
    make_logits: MakeLogits, hidden: Tensor, wanted: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each token in fp32, and the logarithm of its softmax's denominator.

    If the logits are many they are computed by chunks of rows, and again for the gradients, so that
    only those of one chunk are in memory.

    Args:
        make_logits: Gives the logits of hidden states.
        hidden: Hidden states [m, ...].
        wanted: The column of the right token in each row of logits [m].
        size: How many logits a row has.

    Returns:
        Two tensors [m], in nats.
    """
    rows = max(1, CHUNK // size)
    if len(hidden) <= rows:
        return _of_chunk(make_logits, hidden, wanted)
    chunks = zip(hidden.split(rows), wanted.split(rows), strict=True)
    parts = [checkpoint(_of_chunk, make_logits, *chunk, use_reentrant=False) for chunk in chunks]
    losses, normalisers = zip(*parts, strict=True)
    return torch.cat(losses), torch.cat(normalisers)


def _of_chunk(make_logits: MakeLogits, hidden: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    logits = make_logits(hidden).float()
    losses = F.cross_entropy(logits, wanted, reduction="none")
    return losses, losses + logits.gather(1, wanted[:, None])[:, 0]
