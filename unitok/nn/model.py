"""The model: one decoder over sequences of token ids, with a way in and a way out for pictures.

It follows Janus, https://arxiv.org/abs/2410.13848: text ids and image ids have embeddings and heads
of their own, and pictures to understand enter as embeddings of a separate encoder. In Chameleon,
https://arxiv.org/abs/2405.09818, image ids lie in the text vocabulary and share its embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.nn.activation_checkpointing import Mode, run_block
from unitok.nn.compiled import MAX_ROWS, CompiledBlocks
from unitok.nn.config import DecoderConfig, ModelConfig
from unitok.nn.layers import Block, Cache, PreparedRMSNorm, Projector, RMSNorm, RotaryTable
from unitok.nn.linear import LinearReplacement
from unitok.nn.lora import LoraAdapter
from unitok.nn.lora_layers import Deltas, StepLora, for_step, place_adapter, run
from unitok.nn.packed_linear import PackedLinear, pack, rows_to_pad
from unitok.nn.vision import VisionEncoder
from unitok.vocabulary import Vocabulary
from unitok_engine import AdapterRows, IdRange, KVShape
from unitok_tokenizers.image import make_image_tokenizer

SMALL_TABLE = 2**22
"""Numbers of an embedding table that is computed when the model is prepared, and kept."""


class Decoder(nn.Module):
    """The trunk of Llama, https://arxiv.org/abs/2302.13971: blocks, and a norm behind them.

    Attributes:
        row_sizes: The numbers that rows are padded to, once for all layers, as packed ones have
            kernels for them; empty if they have them for any.
        activation_checkpointing: What training keeps of each block; the rest is computed again for
            the gradients.
        compiled: Runs the blocks and the norm in steps of few rows, if the model was prepared so.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.row_sizes: Sequence[int] = ()
        self.activation_checkpointing: Mode = "none"
        self.compiled: CompiledBlocks | None = None
        self.rotary = RotaryTable(config.head_dim, config.max_positions, config.rope_theta)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(
        self,
        hidden: Tensor,
        positions: Tensor,
        cache: Cache | None,
        lora: StepLora | None = None,
    ) -> Tensor:
        """Map embeddings [..., n, d] at positions [..., n] to normed hidden states, alike."""
        rows = len(hidden)
        if cache is not None and (missing := rows_to_pad(rows, self.row_sizes)):
            hidden, positions = F.pad(hidden, (0, 0, 0, missing)), F.pad(positions, (0, missing))
            cache = PaddedCache(cache, rows, missing)
        rotation = self.rotary(positions, hidden.dtype)
        if self.compiled is not None and cache is not None and len(hidden) <= MAX_ROWS:
            return self.compiled(hidden, rotation, cache)[:rows]
        for block in self.blocks:
            inputs = (hidden, rotation, cache, lora)
            hidden = run_block(self.activation_checkpointing, block, *inputs)
        return self.norm(hidden[:rows])

    def compile_blocks(self) -> None:
        """Run steps of few rows compiled from now on; layers that wait to be packed are packed."""
        for module in self.modules():
            if isinstance(module, PackedLinear):
                module.pack()
        self.compiled = CompiledBlocks(cast(Sequence[Block], self.blocks), self.norm)


class PaddedCache:
    """A cache that leaves out the rows that were added behind a step's own for packed layers."""

    def __init__(self, cache: Cache, rows: int, missing: int) -> None:
        self._cache, self._rows, self._missing = cache, rows, missing

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend as the cache does; what padding rows get is zero."""
        out = self._cache.attend(layer, q[: self._rows], k[: self._rows], v[: self._rows])
        return F.pad(out, (0, 0, 0, 0, 0, self._missing))


class SharedHead(nn.Linear):
    """The head of text ids and image ids alike, of which only the rows of one range are used."""


class UnifiedModel(nn.Module):
    """A decoder of text ids and image ids that picks embedding and head by the range of the ids.

    Attributes:
        config: The sizes of all parts; each family has its own kind.
        vocabulary: Where text ids and image ids lie.
        quantization: How its linear layers were quantised; None if they were not.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size, codes = config.decoder.hidden_size, config.image_tokenizer
        text_size, apart = config.decoder.vocab_size, config.image_start is None
        start = text_size if config.image_start is None else config.image_start
        self.config: Any = config
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
        self.lora: Any = None  # what `unitok.training.lora` keeps of an adapter in training
        self.quantization: str | None = None
        self._embedding_table: Tensor | None = None  # of all ids
        self._adapters: Mapping[str, Deltas] = {}  # is replaced as a whole: a step may read it

    def prepare(self, at_once: bool = False, compile: bool = False) -> None:
        """Get ready for inference, unless a weight is trainable; weights may not change any more.

        What follows from the weights alone is computed once, norms lose their hooks, and on a CPU
        linear layers are packed.

        Args:
            at_once: Whether the layers of a large model are packed at their first call, and not
                after a while of use.
            compile: Whether the decoder's steps of few rows go through torch.compile. Its linear
                layers are packed now then, as what is compiled may not change.

        Raises:
            ValueError: It is to be compiled, and a weight is trainable.
        """
        if any(p.requires_grad for p in self.parameters()):
            if compile:
                raise ValueError("trainable weights cannot be compiled: freeze them first")
            return
        self._tabulate_embeddings()
        prepare_norms(self)
        pack(self.decoder, at_once)
        pack(self, at_once)
        replaced = (m for m in self.decoder.modules() if isinstance(m, LinearReplacement))
        sizes = filter(None, (layer.row_sizes for layer in replaced))
        self.decoder.row_sizes = min(sizes, key=len, default=())
        if compile:
            self.decoder.compile_blocks()

    def checkpoint_activations(self, mode: Mode = "full") -> None:
        """Train in less memory: much of the decoder's blocks is computed again for the gradients.

        Inference stays as it is.
        """
        self.decoder.activation_checkpointing = mode

    def _tabulate_embeddings(self) -> None:
        """Keep the embeddings of all ids, if they take computing and are not too many."""
        size = self.vocabulary.size * self.hidden_size
        if self.image_embedding is None or self._embedding_table is not None or size > SMALL_TABLE:
            return
        self._embedding_table = self._embeddings_of_all()

    @torch.inference_mode()
    def refresh(self) -> None:
        """Compute anew, in place, what `prepare` computed of the weights."""
        if self._embedding_table is not None:
            self._embedding_table.copy_(self._embeddings_of_all())

    @torch.inference_mode()
    def _embeddings_of_all(self) -> Tensor:
        images = self.image_aligner(self.image_embedding.weight)
        return torch.cat([self.text_embedding.weight, images])

    @property
    def adapters(self) -> Sequence[str]:
        """The names of the adapters that stand beside the weights."""
        return tuple(self._adapters)

    def put_adapter(self, adapter: LoraAdapter) -> None:
        """Put an adapter beside the weights of a prepared model, in place of one of its name.

        Raises:
            ValueError: It does not fit, see `place_adapter`; or the model is compiled.
        """
        if self.decoder.compiled is not None:
            raise ValueError(
                "a compiled model takes no adapters beside its weights, as its steps are recorded "
                "without them: load it without compile, or merge the adapter"
            )
        placed = place_adapter(self, adapter, self.text_embedding.weight)
        self._adapters = {**self._adapters, adapter.name: placed}

    def drop_adapter(self, name: str) -> None:
        """Take an adapter away."""
        self._adapters = {n: deltas for n, deltas in self._adapters.items() if n != name}

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ids [...], text and image ids mixed, as [..., d].

        No shape on the way depends on the ids, so that it can be recorded as a CUDA graph.
        """
        if self.image_embedding is None:
            return self.text_embedding(ids)
        if self._embedding_table is not None:
            return F.embedding(ids, self._embedding_table)
        is_image = ids >= self.vocabulary.image_start
        text = self.text_embedding(ids.masked_fill(is_image, 0))
        codes = (ids - self.vocabulary.image_start).clamp_min(0)
        image = self.image_aligner(self.image_embedding(codes))
        return torch.where(is_image.unsqueeze(-1), image, text.to(image.dtype))

    def forward(
        self,
        hidden: Tensor,
        positions: Tensor,
        cache: Cache | None = None,
        adapters: AdapterRows | None = None,
    ) -> Tensor:
        """Map embeddings [..., n, d] at positions [..., n] to normed hidden states [..., n, d].

        Without a cache each sequence of n attends to itself, as in training. With one, the rows are
        flat [n, d], and the cache knows which sequence each belongs to; then some of the rows may
        have adapters.
        """
        return self.decoder(hidden, positions, cache, for_step(self._adapters, adapters))

    def logits(
        self, hidden: Tensor, id_range: IdRange, adapters: AdapterRows | None = None
    ) -> Tensor:
        """Map hidden states [..., d] to the logits [..., id_range.size] of the ids of one range.

        Args:
            hidden: The hidden states.
            id_range: The range.
            adapters: Those of some rows, if the hidden states are [m, d].

        Raises:
            ValueError: The range crosses the border between two heads, or the end.
        """
        start, stop = id_range.start, id_range.stop
        border = self.config.decoder.vocab_size
        lora = for_step(self._adapters, adapters)
        if start >= 0 and stop <= border:
            if self.image_head is None:
                logits = F.linear(hidden, self.text_head.weight[start:stop])
                return (
                    lora.add(self.text_head, hidden, logits, slice(start, stop)) if lora else logits
                )
            return run(self.text_head, hidden, lora)[..., start:stop]
        if self.image_head is not None and start >= border and stop <= self.vocabulary.size:
            return self.image_head(hidden, lora)[..., start - border : stop - border]
        raise ValueError(f"ids {start}..{stop - 1} belong to no single head")

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pictures [B, 3, S, S], normalised to [-1, 1], as embeddings [B, patches, d].

        Raises:
            ValueError: The model has no vision encoder.
        """
        if self.vision is None:
            raise ValueError("this model has no vision encoder: pictures enter it as ids")
        pixels = pixels.to(self.device, self.dtype)
        return self.vision_aligner(self.vision(pixels))

    @property
    def hidden_size(self) -> int:
        """The width d of embeddings and hidden states."""
        return self.config.decoder.hidden_size

    @property
    def kv_shape(self) -> KVShape:
        """The layers and heads of its keys and values."""
        c = self.config.decoder
        return KVShape(layers=c.layers, kv_heads=c.kv_heads, head_dim=c.head_dim)

    @property
    def id_ranges(self) -> tuple[IdRange, ...]:
        """The ids of each head, as ranges."""
        text, image = self.vocabulary.text_range, self.vocabulary.image_range
        return (text,) if self.image_head is None else (text, image)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and hidden states."""
        return self.text_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return self.text_embedding.weight.device


def prepare_norms(model: nn.Module) -> None:
    """Replace the RMSNorms of a model by prepared ones, which share their weights."""
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if type(child) is RMSNorm:
                setattr(module, name, PreparedRMSNorm(child))
