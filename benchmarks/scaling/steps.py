"""How long a decode step takes, in terms, and what follows from it.

A step of B drawings, on a replica that is split over T GPUs (tensor parallel), takes

    fixed + max(weights, compute) + kv + link

    fixed    layers * c                          launching and waiting, which no GPU more makes less
    weights  2 bytes * N / T / (bandwidth * w)   all N weights are read once
    compute  2 * N * R / T / (flops * s)         R = 2 B rows, a multiplication and an addition each
    kv       R * context * k / min(T, kv heads) / (bandwidth * a)    k bytes of K/V a token
    link     2 * layers * (latency + 2 (T - 1) / T * 2 bytes * R * width / link bandwidth)

Reading and computing are the roofline, https://doi.org/10.1145/1498765.1498785, with the share that
kernels reach of it; https://arxiv.org/abs/2211.05102 writes inference of transformers this way. Two
all-reduces a layer are Megatron's, https://arxiv.org/abs/1909.08053. What a ring sends is in
https://doi.org/10.1016/j.jpdc.2008.09.002. c, w and a are fitted to measured steps
(`benchmarks/scaling/measured.py`); s is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from benchmarks.scaling.shapes import TWO_BYTES, Gpu, Shape

COMPUTE_SHARE = 0.5  # s: of the peak that matrix products reach; assumed
MEMORY_SHARE = 0.9  # of the memory that weights and K/V may have; the rest is for activations


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What a GPU reaches, by measurement.

    Attributes:
        bandwidth: Bytes a second that it reads, in one large read.
        per_layer: c, in seconds.
        weight_share: w, of the bandwidth, where weights are read.
        kv_share: a, of the bandwidth, where K/V are read.
    """

    bandwidth: float
    per_layer: float
    weight_share: float
    kv_share: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """The terms of a step, in seconds.

    Attributes:
        fixed: What takes as long however much is done.
        weights: Reading the weights.
        compute: Matrix products, while the weights are read.
        kv: Reading keys and values.
        link: All-reduces.
    """

    fixed: float
    weights: float
    compute: float
    kv: float
    link: float

    @property
    def seconds(self) -> float:
        """How long the step takes."""
        return self.fixed + max(self.weights, self.compute) + self.kv + self.link

    @property
    def binds(self) -> str:
        """The name of the largest term."""
        largest = max((field.name for field in fields(self)), key=lambda name: getattr(self, name))
        return "K/V" if largest == "kv" else largest


def step_of(shape: Shape, gpu: Gpu, speed: Speed, drawings: int, tensor: int = 1) -> Step:
    """A step in the middle of drawings.

    Args:
        shape: The model.
        gpu: The GPU.
        speed: What it reaches.
        drawings: How many are under way in the replica.
        tensor: GPUs that the replica is split over.
    """
    rows = shape.branches * drawings
    weights = TWO_BYTES * shape.weights / tensor
    kv = rows * shape.context * shape.kv_per_token / min(tensor, shape.kv_heads)
    return Step(
        fixed=shape.layers * speed.per_layer,
        weights=weights / (speed.bandwidth * speed.weight_share),
        compute=2 * shape.weights * rows / tensor / (gpu.flops * COMPUTE_SHARE),
        kv=kv / (speed.bandwidth * speed.kv_share),
        link=all_reduces(shape, gpu, rows, tensor),
    )


def all_reduces(shape: Shape, gpu: Gpu, rows: int, tensor: int) -> float:
    """Seconds that a step's all-reduces take: two a layer, of a row of the model's width a row."""
    if tensor == 1:
        return 0.0
    link = gpu.inside if tensor <= gpu.node else gpu.between
    sent = 2 * (tensor - 1) / tensor * TWO_BYTES * rows * shape.hidden
    return 2 * shape.layers * (link.latency + sent / link.bandwidth)


def room(shape: Shape, memory: float, tensor: int = 1) -> int:
    """How many drawings a replica has memory for; 0 if not even the weights fit.

    Args:
        shape: The model.
        memory: Bytes of one GPU.
        tensor: GPUs that the replica is split over.
    """
    left = MEMORY_SHARE * memory - shape.memory / tensor
    return max(0, int(left * min(tensor, shape.kv_heads) / shape.kv_per_drawing))


def least_gpus(shape: Shape, memory: float) -> int:
    """The fewest GPUs, a power of two, that hold the weights and a drawing."""
    tensor = 1
    while not room(shape, memory, tensor):
        tensor *= 2
    return tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How GPUs are used.

    Attributes:
        data: Replicas.
        tensor: GPUs of each.
        drawings: Drawings under way in each.
        step: A step of a replica.
        tokens: Image tokens of a picture.
    """

    data: int
    tensor: int
    drawings: int
    step: Step
    tokens: int

    @property
    def picture_seconds(self) -> float:
        """From the first to the last token of a picture."""
        return self.tokens * self.step.seconds

    @property
    def rate(self) -> float:
        """Pictures a second, of all replicas, before they are decoded to pixels."""
        return self.data * self.drawings / self.picture_seconds

    def dollars(self, price: float, pictures: int = 1000) -> float:
        """What pictures cost.

        Args:
            price: Dollars for an hour of a GPU.
            pictures: How many.
        """
        return pictures * self.data * self.tensor * price / 3600 / self.rate


def layout_of(shape: Shape, gpu: Gpu, speed: Speed, gpus: int, tensor: int, per_gpu: int) -> Layout:
    """GPUs in replicas of `tensor` each, which have up to `per_gpu` drawings a GPU under way.

    Args:
        shape: The model.
        gpu: The GPU.
        speed: What it reaches.
        gpus: How many there are; a multiple of `tensor`.
        tensor: GPUs of a replica.
        per_gpu: Drawings for each GPU; fewer if the memory has no room.
    """
    drawings = min(per_gpu * tensor, room(shape, gpu.memory, tensor))
    return Layout(
        data=gpus // tensor,
        tensor=tensor,
        drawings=drawings,
        step=step_of(shape, gpu, speed, drawings, tensor),
        tokens=shape.tokens,
    )
