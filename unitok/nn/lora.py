"""Low-rank adapters of linear layers, https://arxiv.org/abs/2106.09685."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to a linear layer: y + scale * (x A^T) B^T.

    Attributes:
        a: [rank, in_features].
        b: [out_features, rank].
        scale: alpha / rank.
    """

    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter of a model.

    Attributes:
        name: For people, and in requests.
        layers: The names of linear layers in the model, such as "decoder.blocks.0.attention.q" ->
            what is added to them.
        digest: Names the numbers: equal digests are equal adapters.
    """

    name: str
    layers: Mapping[str, LowRank]
    digest: str
