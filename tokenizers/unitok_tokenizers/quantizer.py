"""Quantizers: the codebook between encoder and decoder.

The nearest code is found by cosine or by Euclidean distance. Both quantizers keep the codebook as a
checkpoint stores it, in `codebook`, and compare in fp32 whatever the type of the weights. In
training, a cosine codebook moves by running averages and a Euclidean one by gradients. In shapes, d
is the width of a codebook row.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RunningAverages(nn.Module):
    """What the library's codebook keeps, by its names, without importing the library.

    The import takes longer than opening a small model, and only a training step needs it.

    Args:
        codebook_size: The number of codes.
        code_dim: The width d of a codebook row.
    """

    initted: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    embed: Tensor

    def __init__(self, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        # `refresh` overwrites it. The library drew it, and seeded runs go on from behind that.
        drawn = torch.rand(1, codebook_size, code_dim)
        self.register_buffer("initted", torch.tensor(True))
        self.register_buffer("cluster_size", torch.ones(1, codebook_size))
        self.register_buffer("embed_avg", drawn.clone())
        self.register_buffer("embed", drawn)


class CodebookState(nn.Module):
    """Stands where `VectorQuantize` of vector-quantize-pytorch will, with the same state dict.

    Args:
        codebook_size: The number of codes.
        code_dim: The width d of a codebook row.
    """

    def __init__(self, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        self._codebook = RunningAverages(codebook_size, code_dim)


def library_quantizer(averages: RunningAverages) -> nn.Module:
    """Make the library's quantizer, which trains on these very tensors.

    Args:
        averages: Their shapes tell the size. Later changes in place are seen from both sides, as
            DistributedDataParallel needs, which noted the tensors before.

    Raises:
        ImportError: vector-quantize-pytorch is not installed.
    """
    from vector_quantize_pytorch import VectorQuantize  # pyright: ignore[reportMissingTypeStubs]

    _, codebook_size, code_dim = averages.embed.shape
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        made = VectorQuantize(
            dim=code_dim,
            codebook_size=codebook_size,
            use_cosine_sim=True,
            accept_image_fmap=True,
            decay=0.95,
            rotation_trick=False,
        )
    made.to(averages.embed.device)
    for name, tensor in averages.named_buffers():
        setattr(made._codebook, name, tensor)  # pyright: ignore[reportPrivateUsage]
    return made


class CosineQuantizer(nn.Module):
    """Finds the nearest code by cosine, as VQ-16 of LlamaGen and Janus does.

    The rows of the codebook are normalised when they are used (https://arxiv.org/abs/2110.04627).
    Training moves the codes by exponential averages inside `VectorQuantize` of
    vector-quantize-pytorch.

    Args:
        codebook_size: The number of codes.
        code_dim: The width d of a codebook row.
    """

    codebook: Tensor

    def __init__(self, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        # No checkpoint fills the library's buffers, so they are real under the meta device too.
        with torch.device("cpu"):
            rows = F.normalize(torch.randn(codebook_size, code_dim), dim=-1)
            # Its state is a function of the codebook, except while training. The first training
            # step puts the library's module in its place.
            self.vq: nn.Module = CodebookState(codebook_size, code_dim)
        self.register_buffer("codebook", rows)
        self.refresh()

    def refresh(self) -> None:
        """Derive what the search compares with, the rows at unit length.

        Call it after loading. The running averages start at the codebook too, or the first training
        step would undo the loading.
        """
        self.vq.to(self.codebook.device)
        averages = self._averages
        averages.embed.copy_(F.normalize(self.codebook.float(), dim=-1)[None])
        averages.embed_avg.copy_(averages.embed)
        averages.cluster_size.fill_(1.0)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize latents; in training mode, move the codebook towards them too.

        Args:
            latents: [B, d, h, w].

        Returns:
            Quantized latents [B, d, h, w] through which gradients pass straight, codes [B, h, w],
            and the commitment loss, a scalar.
        """
        if not self.training:
            return self._quantize_only(latents)
        if isinstance(self.vq, CodebookState):
            self.vq = library_quantizer(self._averages).train()
        quantized, codes, loss = self.vq(latents.float())
        self.codebook.copy_(self._averages.embed[0])
        return quantized, codes, loss.sum()

    @property
    def _averages(self) -> RunningAverages:
        """The library has no public name for them."""
        averages: Any = self.vq._codebook  # pyright: ignore[reportPrivateUsage]
        return averages

    def _quantize_only(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, but the codebook stays; the library passes no gradients then."""
        codes = self.encode(latents)
        points = F.normalize(latents.float(), dim=1)
        nearest = self.lookup(codes).movedim(-1, 1).float()
        return points + (nearest - points).detach(), codes, F.mse_loss(points, nearest)

    @torch.no_grad()
    def move(self, codes: Tensor, latents: Tensor) -> None:
        """Move codes to latents; the running averages of these codes start anew there.

        Args:
            codes: [n], each at most once.
            latents: [n, d].
        """
        rows = F.normalize(latents.float(), dim=-1)
        self.codebook[codes] = rows.to(self.codebook)
        averages = self._averages
        averages.embed[0, codes] = rows
        averages.embed_avg[0, codes] = rows
        averages.cluster_size[0, codes] = 1.0

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        """Find the nearest code of each latent; the codebook stays as it is in any mode.

        Args:
            latents: [B, d, h, w].

        Returns:
            Codes [B, h, w] int64.
        """
        batch, _, height, width = latents.shape
        # The library's own formula, to the bit: a sum in another order moves near ties.
        points = F.normalize(latents.float().flatten(2).mT, dim=-1, eps=1e-6).flatten(0, 1)
        with torch.autocast("cuda", enabled=False):
            similarity = torch.einsum("hnd,hcd->hnc", points[None], self._averages.embed.float())
        return similarity.argmax(-1).view(batch, height, width)

    @torch.no_grad()
    def fit(self, latents: Tensor, rounds: int = 20, fresh: bool = True) -> None:
        """Fit the codebook to latents by spherical k-means.

        Equal latents count once, so that the commonest patch gets one code, not a hundred. Codes
        without members move to the latents that fit worst.

        Args:
            latents: [B, d, h, w].
            rounds: The number of iterations of k-means.
            fresh: Whether to start from random latents, instead of from the codebook.
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
        """Look up the vectors of codes.

        Args:
            codes: An integer tensor [...].

        Returns:
            Vectors [..., d] of unit length.
        """
        return F.normalize(self.codebook[codes], dim=-1)


class EuclideanQuantizer(nn.Module):
    """Finds the nearest code by Euclidean distance, as taming-transformers and Chameleon do.

    vector-quantize-pytorch compares the roots of the distances, which turns near ties into ties:
    with a codebook as these tokenizers initialise it (8192 x 256 within 1/8192 of 0), 1 code in 100
    differed from the reference's. So the formula is the reference's own: |z|^2 + |e|^2 - 2 z.e, in
    this order (https://arxiv.org/abs/2012.09841).

    Args:
        codebook_size: The number of codes.
        code_dim: The width d of a codebook row.
    """

    codebook: Tensor

    def __init__(self, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        rows = torch.empty(codebook_size, code_dim).uniform_(-1 / codebook_size, 1 / codebook_size)
        self.register_buffer("codebook", rows)

    def refresh(self) -> None:
        """Do nothing, as nothing is derived from the codebook."""

    def make_trainable(self) -> None:
        """Turn the codebook into a parameter, which the gradients of `lookup` reach.

        Its name in the state dict stays. Until then it is a buffer.
        """
        rows = self.codebook.detach()
        del self.codebook
        self.codebook = nn.Parameter(rows)

    def fit(self, latents: Tensor, rounds: int = 20, fresh: bool = True) -> None:
        """Refuse to fit the codebook: k-means here is spherical.

        Raises:
            ValueError: It is always raised.
        """
        raise ValueError("a Euclidean codebook cannot be fitted here; train with quantizer=cosine")

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize latents; the codebook stays as it is, and gets no gradient.

        Args:
            latents: [B, d, h, w].

        Returns:
            Quantized latents [B, d, h, w] through which gradients pass straight, codes [B, h, w],
            and the commitment loss, a scalar.
        """
        latents = latents.float()
        codes = self.encode(latents)
        nearest = self.lookup(codes).detach().movedim(-1, 1).float()
        return latents + (nearest - latents).detach(), codes, F.mse_loss(latents, nearest)

    @torch.no_grad()
    def move(self, codes: Tensor, latents: Tensor) -> None:
        """Move codes to latents.

        Args:
            codes: [n], each at most once.
            latents: [n, d].
        """
        self.codebook[codes] = latents.to(self.codebook)

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        """Find the nearest code of each latent.

        Args:
            latents: [B, d, h, w].

        Returns:
            Codes [B, h, w] int64.
        """
        points = latents.float().movedim(1, -1)
        codes = torch.empty(points.shape[:-1], dtype=torch.int64, device=points.device)
        # One picture at a time bounds the table of distances: 1024 x 8192 takes 34 MB.
        for i, picture in enumerate(points):
            codes[i] = self.nearest(picture.flatten(0, 1)).view_as(codes[i])
        return codes

    def nearest(self, points: Tensor) -> Tensor:
        """Find the nearest code of each point; of equally near ones, the first.

        Args:
            points: [n, d] in fp32.

        Returns:
            Codes [n] int64.
        """
        book = self.codebook.float()
        squares = points.square().sum(1, keepdim=True) + book.square().sum(1)  # [n, codebook]
        return (squares - 2 * (points @ book.T)).argmin(1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up the vectors of codes.

        Args:
            codes: An integer tensor [...].

        Returns:
            Vectors [..., d], as they are stored, with gradients if the codebook is trainable.
        """
        return self.codebook[codes]
