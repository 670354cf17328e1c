"""Which codes are used, and what becomes of those that are not."""

import torch
from torch import Tensor, nn

from unitok.extras import need
from unitok_tokenizers.quantizer import CosineQuantizer, EuclideanQuantizer


class CodeUse(nn.Module):
    """Remembers when each code was used last, and moves those that are dead.

    A code that no latent is near gets no gradient and never comes back by itself. It moves to a
    latent of the batch (https://arxiv.org/abs/2005.00341, section 3). The batch is that of all
    ranks, and use on any of them counts.

    Args:
        codebook_size: The number of codes.
    """

    last_used: Tensor

    def __init__(self, codebook_size: int) -> None:
        super().__init__()
        self.register_buffer("last_used", torch.zeros(codebook_size, dtype=torch.int64))

    @torch.no_grad()
    def note(self, codes: Tensor, step: int) -> None:
        """Note which codes an update uses.

        Args:
            codes: [B, h, w].
            step: The number of the update.
        """
        used = count_codes(codes, len(self.last_used)) > 0
        self.last_used[sum_over_ranks(used.int()) > 0] = step

    @torch.no_grad()
    def revive(
        self,
        quantizer: CosineQuantizer | EuclideanQuantizer,
        latents: Tensor,
        step: int,
        after: int,
    ) -> int:
        """Move dead codes to different latents of a batch, as many as it has.

        Args:
            quantizer: Its codes are moved.
            latents: [B, d, h, w].
            step: The number of the update.
            after: A code that was not used in so many updates is dead.

        Returns:
            How many codes were moved.
        """
        dead = (step - self.last_used >= after).nonzero().flatten()
        if not len(dead):
            return 0
        points = from_all_ranks(latents.float().movedim(1, -1).flatten(0, -2))  # [n, d]
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(step))
        dead = dead[: len(points)]
        quantizer.move(dead, points[order[: len(dead)].to(points.device)])
        self.last_used[dead] = step
        return len(dead)


def count_codes(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs, [codebook_size].

    Args:
        codes: An integer tensor of any shape.
        codebook_size: The number of codes.
    """
    return torch.bincount(codes.flatten(), minlength=codebook_size)


def perplexity(counts: Tensor) -> Tensor:
    """How many codes would occur if all that do were used evenly.

    Args:
        counts: How often each code occurs.

    Returns:
        The exponential of the entropy in nats, a scalar.
    """
    share = counts.float() / counts.sum()
    return torch.exp(-torch.xlogy(share, share).sum())


def several_ranks() -> bool:
    """Whether other processes train the same model."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor over all ranks."""
    return need("accelerate.utils", "train").reduce(values, "sum") if several_ranks() else values


def from_all_ranks(values: Tensor) -> Tensor:
    """The tensors of all ranks, which are of one shape, one behind the other."""
    return (
        need("accelerate.utils", "train").gather(values.contiguous()) if several_ranks() else values
    )
