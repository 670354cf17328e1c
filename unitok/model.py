"""The model: one decoder over one line of ids, a reading path and a painting path.

Janus, https://arxiv.org/abs/2410.13848: text ids and image ids have their own embeddings and heads;
pictures that are read enter as features of a separate encoder.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from unitok.config import DecoderConfig, ModelConfig
from unitok.layers import Block, Cache, Projector, RMSNorm, RotaryTable
from unitok.vision import VisionEncoder
from unitok_engine import KVShape
from unitok_tokenizers.image import ImageTokenizer
from unitok_tokenizers.vocabulary import Vocabulary


class IdRange(Protocol):
    """Ids from start up to, not including, stop."""

    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


class Decoder(nn.Module):
    """Llama's trunk: hidden states in, hidden states out."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.rotary = RotaryTable(config.head_dim, config.max_positions, config.rope_theta)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, hidden: Tensor, positions: Tensor, cache: Cache | None) -> Tensor:
        rotation = self.rotary(positions, hidden.dtype)
        for block in self.blocks:
            hidden = block(hidden, rotation, cache)
        return self.norm(hidden)


class UnifiedModel(nn.Module):
    """Text ids lie in [0, T), image ids in [T, T + K): see `vocabulary`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size, codes = config.decoder.hidden_size, config.image_tokenizer
        self.config = config
        self.vocabulary = Vocabulary(
            config.decoder.vocab_size, config.decoder.vocab_size, codes.codebook_size
        )
        self.text_embedding = nn.Embedding(config.decoder.vocab_size, size)
        self.image_embedding = nn.Embedding(codes.codebook_size, codes.code_dim)
        self.image_aligner = Projector(codes.code_dim, size, size)
        self.decoder = Decoder(config.decoder)
        self.text_head = nn.Linear(size, config.decoder.vocab_size, bias=False)
        self.image_head = Projector(size, size, codes.codebook_size)
        self.vision = VisionEncoder(config.vision)
        self.vision_aligner = Projector(config.vision.hidden_size, size, size)
        self.image_tokenizer = ImageTokenizer(codes)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids [...] -> [..., d], text and image ids mixed; shapes do not depend on the ids."""
        is_image = ids >= self.vocabulary.image_start
        text = self.text_embedding(ids.masked_fill(is_image, 0))
        codes = (ids - self.vocabulary.image_start).clamp_min(0)
        image = self.image_aligner(self.image_embedding(codes))
        return torch.where(is_image.unsqueeze(-1), image, text.to(image.dtype))

    def forward(self, hidden: Tensor, positions: Tensor, cache: Cache | None = None) -> Tensor:
        """Hidden states [..., n, d] at positions [..., n] -> normed hidden states, alike.

        Without a cache, each line attends to itself, causally (training); with one, the rows are
        flat [n, d] and the cache knows which line each belongs to.
        """
        return self.decoder(hidden, positions, cache)

    def logits(self, hidden: Tensor, id_range: IdRange) -> Tensor:
        """Hidden states [..., d] -> logits [..., stop - start] of the ids of one range.

        Raises:
            ValueError: the range crosses the border between text and image ids.
        """
        border, end = self.vocabulary.image_start, self.vocabulary.size
        if id_range.stop <= border:
            return self.text_head(hidden)[..., id_range.start : id_range.stop]
        if id_range.start >= border and id_range.stop <= end:
            return self.image_head(hidden)[..., id_range.start - border : id_range.stop - border]
        raise ValueError(f"ids {id_range.start}..{id_range.stop - 1} belong to no single head")

    def read(self, pixels: Tensor) -> Tensor:
        """Pictures [B, 3, S, S], normalised to [-1, 1] -> features [B, patches, d] for the line."""
        pixels = pixels.to(self.device, self.dtype)
        return self.vision_aligner(self.vision(pixels))

    @property
    def kv_shape(self) -> KVShape:
        c = self.config.decoder
        return KVShape(layers=c.layers, kv_heads=c.kv_heads, head_dim=c.head_dim)

    @property
    def dtype(self) -> torch.dtype:
        return self.text_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.text_embedding.weight.device
