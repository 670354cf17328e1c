"""Models to measure with: one that costs nothing, and random ones of any size."""

import dataclasses

import torch
from torch import Tensor

from unitok.nn.config import DEFAULT, JANUS_PRO_1B, DecoderConfig, ModelConfig
from unitok.nn.model import UnifiedModel
from unitok_engine import CacheView, IdRange, KVShape

TOY = dataclasses.replace(
    JANUS_PRO_1B.decoder,
    hidden_size=256,
    intermediate_size=512,
    layers=2,
    heads=2,
    kv_heads=2,
    vocab_size=1000,
)


class NullModel:
    """A model that costs nothing: what is left is the engine's own work."""

    kv_shape = KVShape(layers=0, kv_heads=1, head_dim=1)
    dtype = torch.float32
    device = torch.device("cpu")
    id_ranges = (IdRange(0, 2**31),)
    hidden_size = 1

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [n] -> zeros [n, 1]."""
        return torch.zeros(1, 1).expand(len(ids), 1)

    def forward(self, hidden: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        """Hidden states, unchanged."""
        return hidden

    def logits(self, hidden: Tensor, id_range: IdRange) -> Tensor:
        """Hidden states [n, 1] -> zeros [n, size of the range]."""
        return torch.zeros(1, 1).expand(len(hidden), id_range.size)


def random_model(decoder: DecoderConfig, codebook: int, dtype: torch.dtype) -> UnifiedModel:
    """A random decoder of any size with its embeddings and heads; its two vision paths are tiny.

    Args:
        decoder: The sizes of the decoder.
        codebook: How many image tokens there are.
        dtype: The type of the weights.
    """
    codes = dataclasses.replace(DEFAULT.image_tokenizer, codebook_size=codebook)
    config = ModelConfig(decoder, DEFAULT.vision, codes)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        return UnifiedModel(config).to(dtype).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(default)
