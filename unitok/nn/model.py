"""The model: one decoder over one line of ids, a reading path and a painting path.

Janus, https://arxiv.org/abs/2410.13848: text ids and image ids have their own embeddings and heads;
pictures that are read enter as features of a separate encoder. In Chameleon,
https://arxiv.org/abs/2405.09818, image ids lie in the text vocabulary and share its tables.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.nn.config import DecoderConfig, ModelConfig
from unitok.nn.layers import Block, Cache, Projector, RMSNorm, RotaryTable
from unitok.nn.packed_linear import missing_rows, pack
from unitok.nn.vision import VisionEncoder
from unitok.vocabulary import Vocabulary
from unitok_engine import IdRange, KVShape
from unitok_tokenizers.image import make_image_tokenizer

SMALL_TABLE = 2**22  # numbers that are quick to compute and to keep


class Decoder(nn.Module):
    """Llama's trunk: hidden states in, hidden states out."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.fills_up = False  # rows, once for all its layers, to a number that these want
        self.rotary = RotaryTable(config.head_dim, config.max_positions, config.rope_theta)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, hidden: Tensor, positions: Tensor, cache: Cache | None) -> Tensor:
        rows = len(hidden)
        if self.fills_up and cache is not None and (missing := missing_rows(rows)):
            hidden, positions = F.pad(hidden, (0, 0, 0, missing)), F.pad(positions, (0, missing))
            cache = FilledUp(cache, rows, missing)
        rotation = self.rotary(positions, hidden.dtype)
        for block in self.blocks:
            hidden = block(hidden, rotation, cache)
        return self.norm(hidden[:rows])


class FilledUp:
    """A cache that leaves out rows that were only put behind a step's own for packed layers."""

    def __init__(self, cache: Cache, rows: int, missing: int) -> None:
        self._cache, self._rows, self._missing = cache, rows, missing

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = self._cache.attend(layer, q[: self._rows], k[: self._rows], v[: self._rows])
        return F.pad(out, (0, 0, 0, 0, 0, self._missing))


class SharedHead(nn.Linear):
    """The head of text ids and image ids alike: its rows are used by range, so it is not packed."""


class UnifiedModel(nn.Module):
    """Text ids lie in [0, T); image ids behind or among them: see `vocabulary`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size, codes = config.decoder.hidden_size, config.image_tokenizer
        text_size, apart = config.decoder.vocab_size, config.image_start is None
        start = text_size if config.image_start is None else config.image_start
        self.config: Any = config  # each family knows its own kind
        self.vocabulary = Vocabulary(text_size, start, codes.codebook_size)
        # Parts that a family lacks are None, and typed Any: each family knows its own.
        self.text_embedding = nn.Embedding(text_size, size)
        self.image_embedding: Any = (
            nn.Embedding(codes.codebook_size, codes.code_dim) if apart else None
        )
        self.image_aligner: Any = Projector(codes.code_dim, size, size) if apart else None
        self.decoder = Decoder(config.decoder)
        self.text_head: Any = (nn.Linear if apart else SharedHead)(size, text_size, bias=False)
        self.image_head: Any = Projector(size, size, codes.codebook_size) if apart else None
        seen = config.vision
        self.vision: Any = VisionEncoder(seen) if seen else None
        self.vision_aligner: Any = Projector(seen.hidden_size, size, size) if seen else None
        self.image_tokenizer: Any = make_image_tokenizer(config.image_tokenizer)
        self._table: Tensor | None = None  # of all ids' embeddings

    def prepare(self, at_once: bool = False) -> None:
        """Get ready for inference, if the weights are frozen: they are not to change any more.

        What follows from them alone is computed once, and on a CPU linear layers are packed, those
        of a large model after a while of use unless it is to be at_once.
        """
        if any(p.requires_grad for p in self.parameters()):
            return
        size = self.vocabulary.size * self.config.decoder.hidden_size
        if self.image_embedding is not None and self._table is None and size <= SMALL_TABLE:
            with torch.inference_mode():
                images = self.image_aligner(self.image_embedding.weight)
                self._table = torch.cat([self.text_embedding.weight, images])
        for module in self.modules():
            if isinstance(module, RMSNorm):
                module.prepare()
        self.decoder.fills_up |= pack(self.decoder, at_once) > 0
        pack(self, at_once)

    def embed(self, ids: Tensor) -> Tensor:
        """Ids [...] -> [..., d], text and image ids mixed; shapes do not depend on the ids."""
        if self.image_embedding is None:
            return self.text_embedding(ids)
        if self._table is not None:
            return F.embedding(ids, self._table)
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
            ValueError: the range crosses the border between two heads, or the end.
        """
        start, stop = id_range.start, id_range.stop
        border = self.config.decoder.vocab_size
        if start >= 0 and stop <= border:
            if self.image_head is None:
                return F.linear(hidden, self.text_head.weight[start:stop])
            return self.text_head(hidden)[..., start:stop]
        if self.image_head is not None and start >= border and stop <= self.vocabulary.size:
            return self.image_head(hidden)[..., start - border : stop - border]
        raise ValueError(f"ids {start}..{stop - 1} belong to no single head")

    def read(self, pixels: Tensor) -> Tensor:
        """Pictures [B, 3, S, S], normalised to [-1, 1] -> features [B, patches, d] for the line.

        Raises:
            ValueError: the model has no reading path of its own.
        """
        if self.vision is None:
            raise ValueError("this model has no vision encoder: it reads pictures as ids")
        pixels = pixels.to(self.device, self.dtype)
        return self.vision_aligner(self.vision(pixels))

    @property
    def kv_shape(self) -> KVShape:
        c = self.config.decoder
        return KVShape(layers=c.layers, kv_heads=c.kv_heads, head_dim=c.head_dim)

    @property
    def hidden_size(self) -> int:
        """The width d of embeddings and hidden states."""
        return self.config.decoder.hidden_size

    @property
    def id_ranges(self) -> tuple[IdRange, ...]:
        """The ids of each head."""
        text, image = self.vocabulary.text_range, self.vocabulary.image_range
        return (text,) if self.image_head is None else (text, image)

    @property
    def dtype(self) -> torch.dtype:
        return self.text_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.text_embedding.weight.device
