"""The codebook between encoder and decoder, over vector-quantize-pytorch."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize


class CosineQuantizer(nn.Module):
    """Nearest code by cosine, as VQ-16 of LlamaGen and Janus has it.

    The codebook is kept raw, as a checkpoint stores it, and normalised at use; training moves the
    codes by exponential averages inside `VectorQuantize` (https://arxiv.org/abs/2110.04627).
    """

    codebook: Tensor

    def __init__(self, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        self.register_buffer("codebook", F.normalize(torch.randn(codebook_size, code_dim), dim=-1))
        # Its state is a function of the codebook, except while training.
        self.vq = VectorQuantize(
            dim=code_dim,
            codebook_size=codebook_size,
            use_cosine_sim=True,
            accept_image_fmap=True,
            decay=0.95,
            rotation_trick=False,
        )
        self.refresh()

    def refresh(self) -> None:
        """Hand the raw codebook to the library, which wants unit rows. Call after loading.

        Its running averages start there too, or the first training step would undo it.
        """
        self.vq.codebook = F.normalize(self.codebook.float(), dim=-1)
        averages: Any = self.vq._codebook
        averages.embed_avg.copy_(averages.embed)
        averages.cluster_size.fill_(1.0)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, d, h, w] -> quantized [B, d, h, w], codes [B, h, w], commitment loss (scalar)."""
        quantized, codes, loss = self.vq(latents.float())
        if self.training:
            self.codebook.copy_(self.vq.codebook)
        return quantized, codes, loss.sum()

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        """[B, d, h, w] -> codes [B, h, w] int64."""
        frozen = self.vq.training
        self.vq.eval()
        codes = self.vq(latents.float())[1]
        self.vq.train(frozen)
        return codes

    @torch.no_grad()
    def fit(self, latents: Tensor, rounds: int = 20, fresh: bool = True) -> None:
        """Set the codebook by spherical k-means over latents [B, d, h, w], or go on from it.

        Equal latents count once, so that the commonest patch gets one code, not a hundred. Codes
        without members move to the latents that fit worst.
        """
        points = F.normalize(latents.float().movedim(1, -1).flatten(0, -2), dim=-1)
        points = torch.unique((points * 64).round(), dim=0)
        points = F.normalize(points, dim=-1)
        size = len(self.codebook)
        book = F.normalize(self.codebook, dim=-1)
        if fresh:
            book = points[torch.randint(len(points), (size,), device=points.device)].clone()
        for _ in range(rounds):
            similarity, nearest = (points @ book.T).max(-1)
            sums = torch.zeros_like(book).index_add_(0, nearest, points)
            empty = torch.bincount(nearest, minlength=size) == 0
            misfit = (1 - similarity).clamp_min(0) + 1e-9
            book = F.normalize(sums, dim=-1)
            if empty.any():
                moved = torch.multinomial(misfit, int(empty.sum()), replacement=True)
                book[empty] = points[moved]
        self.codebook.copy_(book)
        self.refresh()

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes [...] -> unit vectors [..., d]."""
        return F.normalize(self.codebook[codes], dim=-1)
