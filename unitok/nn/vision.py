"""The vision encoder that pictures go through to be understood.

It is SigLIP's, https://arxiv.org/abs/2303.15343, without its pooling head, as Janus uses it.
"""

from torch import Tensor, nn

from unitok.nn.config import VisionConfig
from unitok.nn.layers import Projector, full_attention


class VisionAttention(nn.Module):
    """Self-attention of every patch to all patches."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(size, size)
        self.k = nn.Linear(size, size)
        self.v = nn.Linear(size, size)
        self.o = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, patches, size] to the same shape."""
        q, k, v = (
            m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.q, self.k, self.v)
        )
        return self.o(full_attention(q, k, v).transpose(1, 2).flatten(2))


class VisionBlock(nn.Module):
    """A layer: attention and MLP, each with a LayerNorm before and a residual connection."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.attention = VisionAttention(config.hidden_size, config.heads)
        self.norm2 = nn.LayerNorm(config.hidden_size, config.norm_eps)
        size = config.hidden_size
        self.mlp = Projector(size, config.intermediate_size, size, config.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, patches, hidden_size] to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionEncoder(nn.Module):
    """A vision transformer, https://arxiv.org/abs/2010.11929, that keeps an embedding per patch."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        size = config.patch_size
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, size, stride=size)
        self.position_embedding = nn.Embedding(config.patches, config.hidden_size)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden_size, config.norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pixels [B, 3, S, S], normalised to [-1, 1], as [B, patches, hidden_size]."""
        x = self.patch_embedding(pixels).flatten(2).transpose(1, 2)  # [B, patches, C]
        x = x + self.position_embedding.weight
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
