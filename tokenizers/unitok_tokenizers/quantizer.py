"""The codebook between encoder and decoder: nearest by cosine, or by Euclidean distance.

Both kinds keep the codebook raw, as a checkpoint stores it, in the buffer `codebook`, and compare
in fp32 whatever the type of the weights.
"""

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
        # No checkpoint fills the library's buffers, so they are real under the meta device too.
        with torch.device("cpu"):
            rows = F.normalize(torch.randn(codebook_size, code_dim), dim=-1)
            # Its state is a function of the codebook, except while training.
            self.vq = VectorQuantize(
                dim=code_dim,
                codebook_size=codebook_size,
                use_cosine_sim=True,
                accept_image_fmap=True,
                decay=0.95,
                rotation_trick=False,
            )
        self.register_buffer("codebook", rows)
        self.refresh()

    def refresh(self) -> None:
        """Hand the raw codebook to the library, which wants unit rows. Call after loading.

        Its running averages start there too, or the first training step would undo it.
        """
        self.vq.to(self.codebook.device)
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


class EuclideanQuantizer(nn.Module):
    """Nearest code by Euclidean distance, as taming-transformers and Chameleon have it.

    vector-quantize-pytorch compares the roots of the distances, which makes equals of near ties:
    with a codebook as these tokenizers draw it at first (8192 x 256 within 1/8192 of 0), 1 code of
    100 was another than the reference's. So the formula is the reference's own:
    |z|^2 + |e|^2 - 2 z.e, in this order (https://arxiv.org/abs/2012.09841).
    """

    codebook: Tensor

    def __init__(self, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        rows = torch.empty(codebook_size, code_dim).uniform_(-1 / codebook_size, 1 / codebook_size)
        self.register_buffer("codebook", rows)

    def refresh(self) -> None:
        """Nothing is derived from the codebook."""

    def fit(self, latents: Tensor, rounds: int = 20, fresh: bool = True) -> None:
        """Such codebooks are loaded, not trained.

        Raises:
            ValueError: always.
        """
        raise ValueError("a Euclidean codebook cannot be fitted here; train with quantizer=cosine")

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, d, h, w] -> quantized [B, d, h, w], codes [B, h, w], commitment loss (scalar).

        Gradients pass straight through; the codebook itself stays as it was loaded.
        """
        latents = latents.float()
        codes = self.encode(latents)
        nearest = self.lookup(codes).movedim(-1, 1).float()
        return latents + (nearest - latents).detach(), codes, F.mse_loss(latents, nearest)

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        """[B, d, h, w] -> codes [B, h, w] int64."""
        points = latents.float().movedim(1, -1)
        codes = torch.empty(points.shape[:-1], dtype=torch.int64, device=points.device)
        # One picture at a time bounds the table of distances: 1024 x 8192 takes 34 MB.
        for i, picture in enumerate(points):
            codes[i] = self.nearest(picture.flatten(0, 1)).view_as(codes[i])
        return codes

    def nearest(self, points: Tensor) -> Tensor:
        """[n, d] -> [n]: the index of the closest row, the first of equals."""
        book = self.codebook.float()
        squares = points.square().sum(1, keepdim=True) + book.square().sum(1)  # [n, codebook]
        return (squares - 2 * (points @ book.T)).argmin(1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes [...] -> vectors [..., d], as they are stored."""
        return self.codebook[codes]
