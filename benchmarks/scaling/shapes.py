"""The models and the GPUs that costs are computed for."""

from __future__ import annotations

from dataclasses import dataclass

TWO_BYTES = 2  # of a number in bfloat16


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model that draws, in bfloat16.

    Attributes:
        name: What tables call it.
        layers: Of the decoder.
        hidden: Width of a token.
        ffn: Width inside the feed-forward network, which is gated.
        heads: Of the queries.
        kv_heads: Of keys and values.
        head_dim: Width of a head.
        image_ids: Rows of the head that image tokens are sampled from.
        head_layers: Square layers before that head.
        tokens: Image tokens of a picture.
        prompt: Tokens of a prompt.
        memory: Bytes of all weights, those that a drawing does not use included.
        branches: Rows of a drawing; guidance has two.
    """

    name: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int = 128
    image_ids: int
    head_layers: int = 0
    tokens: int
    prompt: int = 16
    memory: float
    branches: int = 2

    @property
    def weights(self) -> int:
        """Numbers that a step reads: attention, the gated feed-forward network, and the head."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        head = self.hidden * (self.image_ids + self.head_layers * self.hidden)
        return self.layers * (attention + 3 * self.hidden * self.ffn) + head

    @property
    def kv_per_token(self) -> int:
        """Bytes of keys and values of a token of one branch."""
        return 2 * self.layers * self.kv_heads * self.head_dim * TWO_BYTES

    @property
    def kv_per_drawing(self) -> int:
        """Bytes of keys and values of a whole drawing, all branches."""
        return self.branches * (self.prompt + self.tokens) * self.kv_per_token

    @property
    def context(self) -> float:
        """Tokens that a row attends to in the middle of a drawing."""
        return self.prompt + self.tokens / 2


# Memory as in docs/checkpoints.md. Janus-Pro's sizes: https://arxiv.org/abs/2501.17811, table 1.
JANUS_1B = Shape(
    name="1B",
    layers=24,
    hidden=2048,
    ffn=5632,
    heads=16,
    kv_heads=16,
    image_ids=16384,
    head_layers=1,
    tokens=576,
    memory=4.2e9,
)
JANUS_7B = Shape(
    name="7B",
    layers=30,
    hidden=4096,
    ffn=11008,
    heads=32,
    kv_heads=32,
    image_ids=16384,
    head_layers=1,
    tokens=576,
    memory=15e9,
)
# Chameleon's largest. Its paper, https://arxiv.org/abs/2405.09818, gives no width; these sizes have
# the 34 billion parameters that it does give.
CHAMELEON_34B = Shape(
    name="34B",
    layers=48,
    hidden=8192,
    ffn=22016,
    heads=64,
    kv_heads=8,
    image_ids=8192,
    tokens=1024,
    memory=68e9,
)
SHAPES = (JANUS_1B, JANUS_7B, CHAMELEON_34B)


@dataclass(frozen=True, kw_only=True)
class Link:
    """What GPUs talk over.

    Attributes:
        bandwidth: Bytes a second in each direction, of one GPU.
        latency: Seconds of an all-reduce of almost nothing.
    """

    bandwidth: float
    latency: float


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU, by its data sheet. How fast it reads memory is measured.

    Attributes:
        name: What the page calls it.
        memory: Bytes.
        flops: Multiplications and additions a second, in bfloat16 without sparsity.
        node: GPUs of a machine.
        inside: The link within a machine.
        between: The link between machines.
    """

    name: str
    memory: float
    flops: float
    node: int
    inside: Link
    between: Link


# https://www.nvidia.com/en-us/data-center/h200/: 141 GB, 989 TFLOPS dense, NVLink of 900 GB/s, both
# directions together. Between machines: InfiniBand NDR, 400 Gbit/s a GPU. Latencies are assumed.
H200 = Gpu(
    name="NVIDIA H200",
    memory=141e9,
    flops=989e12,
    node=8,
    inside=Link(bandwidth=450e9, latency=10e-6),
    between=Link(bandwidth=50e9, latency=30e-6),
)
