"""The parts of the decoder: RMSNorm, rotary positions, attention, SwiGLU.

Llama, https://arxiv.org/abs/2302.13971; rotary embedding, https://arxiv.org/abs/2104.09864.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.nn.config import Activation, DecoderConfig

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


class Cache(Protocol):
    """Paged keys and values, handed in by the engine."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [n, heads, hd], k and v [n, kv_heads, hd], rotated -> [n, heads, hd]."""
        ...


class RMSNorm(nn.Module):
    """x / rms(x) * weight, https://arxiv.org/abs/1910.07467."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self._eps = torch.tensor(eps, device="cpu")
        self._in_few = False

    def prepare(self) -> None:
        """On a CPU, torch's own is a dozen operators: run in half as many, rounded otherwise.

        These take the norm in float32, which torch refuses to do of float64.
        """
        self._in_few = self.weight.is_cpu and self.weight.dtype is not torch.float64

    def forward(self, x: Tensor) -> Tensor:
        if self._in_few:
            norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
            scale = torch.addcmul(self._eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()
            return (x * scale).to(x.dtype) * self.weight
        weight = self.weight
        if weight.dtype is not x.dtype:  # under autocast, where the fused kernel would be missed
            weight = weight.to(x.dtype)
        return F.rms_norm(x, weight.shape, weight, self.eps)

    # Straight there: the way through hooks costs microseconds, twice in each layer.
    __call__ = forward


class RotaryTable(nn.Module):
    """Position -> rotation, by a table of cosines and sines [max_positions, head_dim], fp32.

    The sines of the first half are negative, as `rotate` wants them.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, max_positions: int, theta: float) -> None:
        super().__init__()
        # On the CPU even when the model is built without storage: no checkpoint holds the table.
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim
        position = torch.arange(max_positions, dtype=torch.float64, device="cpu")
        angle = position[:, None] * theta**-exponent
        cos, sin = angle.cos().float(), angle.sin().float()
        self.register_buffer("cos", torch.cat([cos, cos], dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat([-sin, sin], dim=-1), persistent=False)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """positions [...] -> cos and sin [..., 1, head_dim], ready to broadcast over heads."""
        return (
            self.cos[positions].to(dtype).unsqueeze(-2),
            self.sin[positions].to(dtype).unsqueeze(-2),
        )


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (i, i + head_dim / 2) of x [..., heads, head_dim]."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), sin)


class HeadNorm(nn.Module):
    """LayerNorm over head_dim with weights of each head's own: Chameleon's norm of queries and
    keys (https://arxiv.org/abs/2405.09818)."""

    def __init__(self, heads: int, head_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, head_dim))
        self.bias = nn.Parameter(torch.zeros(heads, head_dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x [..., heads, head_dim]."""
        normed = F.layer_norm(x, (x.shape[-1],), eps=self.eps)
        return normed * self.weight + self.bias


class Attention(nn.Module):
    """Causal self-attention: over x itself when there is no cache, else over the cached lines."""

    together: ClassVar = {"qkv": ("q", "k", "v")}

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.q = nn.Linear(config.hidden_size, config.heads * config.head_dim, bias=False)
        self.k = nn.Linear(config.hidden_size, config.kv_heads * config.head_dim, bias=False)
        self.v = nn.Linear(config.hidden_size, config.kv_heads * config.head_dim, bias=False)
        self.qkv: Any = None  # all three, packed
        self.o = nn.Linear(config.heads * config.head_dim, config.hidden_size, bias=False)
        normed = config.qk_norm
        self.q_norm: Any = HeadNorm(config.heads, config.head_dim) if normed else None
        self.k_norm: Any = HeadNorm(config.kv_heads, config.head_dim) if normed else None

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], cache: Cache | None) -> Tensor:
        if self.qkv is None:
            heads = torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)
        else:
            heads = self.qkv(x)
        heads = heads.view(*x.shape[:-1], -1, self.head_dim)
        qk, v = heads.split_with_sizes((self.heads + self.kv_heads, self.kv_heads), dim=-2)
        if self.q_norm is not None:
            q, k = qk.split_with_sizes((self.heads, self.kv_heads), dim=-2)
            qk = torch.cat([self.q_norm(q), self.k_norm(k)], dim=-2)
        q, k = rotate(qk, rotation).split_with_sizes((self.heads, self.kv_heads), dim=-2)
        out = causal_attention(q, k, v) if cache is None else cache.attend(self.layer, q, k, v)
        return self.o(out.flatten(-2))


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[..., n, heads, hd] over itself: the training path; grouped heads share keys."""
    q, k, v = (t.transpose(-2, -3) for t in (q, k, v))
    group = q.shape[-3] // k.shape[-3]
    k, v = (t.repeat_interleave(group, dim=-3) if group > 1 else t for t in (k, v))
    return full_attention(q, k, v, causal=True).transpose(-2, -3)


def full_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(hd)) v over [..., heads, n, hd]."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        # The CPU's fused kernel takes four times as long to train with in bf16 (torch 2.13).
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if causal:
            scores = scores + scores.new_full(scores.shape[-2:], -torch.inf).triu(1)
        return scores.softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), https://arxiv.org/abs/2002.05202."""

    together: ClassVar = {"gate_up": ("gate", "up")}

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.gate_up: Any = None  # both, packed
        self.down = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate_up is None:
            gate, up = self.gate(x), self.up(x)
        else:
            gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """Attention and SwiGLU beside a residual, each behind a norm or, with post_norm, before one."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.post_norm = config.post_norm
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config, layer)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], cache: Cache | None) -> Tensor:
        if self.post_norm:
            x = x + self.attention_norm(self.attention(x, rotation, cache))
            return x + self.mlp_norm(self.mlp(x))
        x = x + self.attention(self.attention_norm(x), rotation, cache)
        return x + self.mlp(self.mlp_norm(x))


class Projector(nn.Module):
    """Linear, GELU, Linear: Janus's aligners and its image head."""

    def __init__(
        self, size_in: int, size_hidden: int, size_out: int, activation: Activation = "gelu"
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = nn.Linear(size_in, size_hidden)
        self.fc2 = nn.Linear(size_hidden, size_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))
