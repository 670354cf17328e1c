"""The parts of the decoder: RMSNorm, rotary positions, attention, SwiGLU.

They follow Llama, https://arxiv.org/abs/2302.13971.
"""

from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.nn.config import Activation, DecoderConfig
from unitok.nn.lora_layers import StepLora, run

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
"""The activations that checkpoints name."""

WIDE_STEPS = 768
"""From this length on the CPU's fused attention takes wide steps. With narrow ones it takes up to
four times as long to train in bf16 as attention spelt out does (torch 2.13)."""

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines [..., 1, head_dim], as `RotaryTable` gives them for positions [...]."""


class Cache(Protocol):
    """Keys and values of earlier tokens, which the engine hands to the decoder."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the rows' keys and values, and attend from their queries to all of a sequence.

        Args:
            layer: The index of the decoder layer.
            q: Rotated queries [n, heads, head_dim].
            k: Rotated keys [n, kv_heads, head_dim].
            v: Values [n, kv_heads, head_dim].

        Returns:
            The attended values [n, heads, head_dim].
        """
        ...


class RMSNorm(nn.Module):
    """x / rms(x) * weight, https://arxiv.org/abs/1910.07467."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., size] over its last dimension."""
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Compute x / rms(x) * weight of [..., size] by torch's own operator."""
    if weight.dtype is not x.dtype:  # under autocast, where the fused kernel would be missed
        weight = weight.to(x.dtype)
    return F.rms_norm(x, weight.shape, weight, eps)


class PreparedRMSNorm(RMSNorm):
    """An RMSNorm of a model that is prepared for inference: it shares the weight, and has no hooks.

    On a CPU torch's own norm is a dozen operators. This one runs half as many and rounds otherwise.
    It takes the norm in float32, which torch refuses to do of float64, so that keeps torch's own.
    """

    def __init__(self, norm: RMSNorm) -> None:
        nn.Module.__init__(self)
        self.weight = norm.weight
        self.eps = norm.eps
        self._eps = torch.tensor(norm.eps, device="cpu")
        self._in_few_operators = norm.weight.is_cpu and self.weight.dtype is not torch.float64

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., size] over its last dimension."""
        if not self._in_few_operators:
            return rms_norm(x, self.weight, self.eps)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self._eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()
        return (x * scale).to(x.dtype) * self.weight

    # Hooks would cost microseconds twice in each layer.
    __call__ = forward


class RotaryTable(nn.Module):
    """The rotations of positions, https://arxiv.org/abs/2104.09864.

    They are looked up in tables of cosines and sines [max_positions, head_dim] in float32. The
    sines of the first half of head_dim are negative, as `rotate` expects them.
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

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        """Look up cosines and sines [..., 1, head_dim], ready to broadcast over heads.

        Args:
            positions: Integers [...], below max_positions.
            dtype: That of the result.
        """
        return (
            self.cos[positions].to(dtype).unsqueeze(-2),
            self.sin[positions].to(dtype).unsqueeze(-2),
        )


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (i, i + head_dim / 2) of x [..., heads, head_dim]."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), sin)


class HeadNorm(nn.Module):
    """LayerNorm over head_dim with weights of its own for each head.

    It is Chameleon's norm of queries and keys, https://arxiv.org/abs/2405.09818.
    """

    def __init__(self, heads: int, head_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, head_dim))
        self.bias = nn.Parameter(torch.zeros(heads, head_dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., heads, head_dim] over head_dim."""
        normed = F.layer_norm(x, (x.shape[-1],), eps=self.eps)
        return normed * self.weight + self.bias


class Attention(nn.Module):
    """Causal self-attention with grouped-query heads, https://arxiv.org/abs/2305.13245."""

    fused_projections: ClassVar = {"qkv": ("q", "k", "v")}

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.q = nn.Linear(config.hidden_size, config.heads * config.head_dim, bias=False)
        self.k = nn.Linear(config.hidden_size, config.kv_heads * config.head_dim, bias=False)
        self.v = nn.Linear(config.hidden_size, config.kv_heads * config.head_dim, bias=False)
        self.qkv: nn.Module | None = None  # in place of all three, see `unitok.nn.linear`
        self.o = nn.Linear(config.heads * config.head_dim, config.hidden_size, bias=False)
        self.q_norm = HeadNorm(config.heads, config.head_dim) if config.qk_norm else None
        self.k_norm = HeadNorm(config.kv_heads, config.head_dim) if config.qk_norm else None

    def forward(
        self, x: Tensor, rotation: Rotation, cache: Cache | None, lora: StepLora | None = None
    ) -> Tensor:
        """Attend from [..., n, hidden_size], alike in shape: to the cache, or without it to x."""
        q, k, v = self.project(x, rotation, lora)
        out = causal_attention(q, k, v) if cache is None else cache.attend(self.layer, q, k, v)
        return run(self.o, out.flatten(-2), lora)

    def project(
        self, x: Tensor, rotation: Rotation, lora: StepLora | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Project [..., hidden_size] to queries, keys (both rotated) and values.

        Returns:
            Queries [..., heads, head_dim], keys and values [..., kv_heads, head_dim].
        """
        if self.qkv is None:
            heads = torch.cat([run(layer, x, lora) for layer in (self.q, self.k, self.v)], dim=-1)
        else:
            heads = run(self.qkv, x, lora)
        heads = heads.view(*x.shape[:-1], -1, self.head_dim)
        qk, v = heads.split_with_sizes((self.heads + self.kv_heads, self.kv_heads), dim=-2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split_with_sizes((self.heads, self.kv_heads), dim=-2)
            qk = torch.cat([self.q_norm(q), self.k_norm(k)], dim=-2)
        q, k = rotate(qk, rotation).split_with_sizes((self.heads, self.kv_heads), dim=-2)
        return q, k, v


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend within sequences, each token to those before it and itself, as in training.

    Args:
        q: Queries [..., n, heads, head_dim].
        k: Keys [..., n, kv_heads, head_dim]; heads / kv_heads neighbouring heads share one.
        v: Values [..., n, kv_heads, head_dim].

    Returns:
        The attended values [..., n, heads, head_dim].
    """
    q, k, v = (t.transpose(-2, -3) for t in (q, k, v))
    group = q.shape[-3] // k.shape[-3]
    k, v = (t.repeat_interleave(group, dim=-3) if group > 1 else t for t in (k, v))
    return full_attention(q, k, v, causal=True).transpose(-2, -3)


def full_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Compute softmax(q k^T / sqrt(head_dim)) v of [..., heads, n, head_dim]."""
    in_training = any(x.requires_grad for x in (q, k, v))
    narrow = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] < WIDE_STEPS
    if in_training and narrow:
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if causal:
            scores = scores + scores.new_full(scores.shape[-2:], -torch.inf).triu(1)
        return scores.softmax(-1) @ v
    if q.dim() == 3:  # which torch's fused kernels do not take
        q, k, v = q[None], k[None], v[None]
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)[0]
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), https://arxiv.org/abs/2002.05202."""

    fused_projections: ClassVar = {"gate_up": ("gate", "up")}

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.gate_up: nn.Module | None = None  # in place of both, see `unitok.nn.linear`
        self.down = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor, lora: StepLora | None = None) -> Tensor:
        """Map [..., hidden_size] to the same shape."""
        if self.gate_up is None:
            gate, up = run(self.gate, x, lora), run(self.up, x, lora)
        else:
            gate, up = run(self.gate_up, x, lora).chunk(2, dim=-1)
        return run(self.down, F.silu(gate) * up, lora)


class Block(nn.Module):
    """A decoder layer: attention and SwiGLU, each with a norm and a residual connection.

    A norm stands before attention and MLP or, with `post_norm`, behind them.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.post_norm = config.post_norm
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config, layer)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(
        self, x: Tensor, rotation: Rotation, cache: Cache | None, lora: StepLora | None = None
    ) -> Tensor:
        """Map hidden states [..., n, hidden_size] to the next layer's."""
        if self.post_norm:
            x = x + self.attention_norm(self.attention(x, rotation, cache, lora))
            return x + self.mlp_norm(self.mlp(x, lora))
        x = x + self.attention(self.attention_norm(x), rotation, cache, lora)
        return x + self.mlp(self.mlp_norm(x), lora)

    def before_attention(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what `forward` does up to the cache: queries, keys and values of x [n, d]."""
        return self.attention.project(x if self.post_norm else self.attention_norm(x), rotation)

    def after_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """Compute the rest of `forward`, from x [n, d] and attended values [n, heads, head_dim]."""
        out = self.attention.o(attended.flatten(-2))
        if self.post_norm:
            x = x + self.attention_norm(out)
            return x + self.mlp_norm(self.mlp(x))
        x = x + out
        return x + self.mlp(self.mlp_norm(x))


class Projector(nn.Module):
    """Linear, GELU, Linear: Janus's aligners, its image head, and the MLP of a vision encoder."""

    def __init__(
        self, size_in: int, size_hidden: int, size_out: int, activation: Activation = "gelu"
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = nn.Linear(size_in, size_hidden)
        self.fc2 = nn.Linear(size_hidden, size_out)

    def forward(self, x: Tensor, lora: StepLora | None = None) -> Tensor:
        """Map [..., size_in] to [..., size_out]."""
        return run(self.fc2, self.activation(run(self.fc1, x, lora)), lora)
