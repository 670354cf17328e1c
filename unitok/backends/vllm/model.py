# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Janus as vLLM runs it: one decoder over two streams, or over one where text alone is served.

A row of embeddings is [first stream | second stream | mode], the width 2 d + 1. The mode is 1 where
image ids come next, 0 for text. All three follow from the row's token id. Hidden states have the
same layout, so that the heads know the mode.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vllm.config import VllmConfig
from vllm.model_executor.layers.linear import ColumnParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.multimodal import MULTIMODAL_REGISTRY

from unitok.backends.vllm.checkpoint import open_checkpoint
from unitok.backends.vllm.decoder import StreamedLlama
from unitok.backends.vllm.layout import TokenLayout
from unitok.backends.vllm.pictures import PictureDummies, PictureInfo, PictureProcessor
from unitok.backends.vllm.settings import one_stream
from unitok.backends.vllm.weights import fill
from unitok.nn.layers import Projector
from unitok.nn.vision import VisionEncoder

NOTHING = float("-inf")


def may_hold(rows: Tensor) -> bool:
    """Whether any of the rows may be true. A GPU is not waited for to find out."""
    return rows.device.type != "cpu" or bool(rows.any())


class ImageHead(nn.Module):
    """The head of image ids, its second layer shared among the ranks.

    Args:
        size: The width d of hidden states.
        image_size: The number I of image ids.
        prefix: The head's name.
    """

    def __init__(self, size: int, image_size: int, prefix: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, size)
        self.fc2 = ColumnParallelLinear(
            size, image_size, gather_output=True, prefix=f"{prefix}.fc2"
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [n, d] to logits [n, I]."""
        logits, _ = self.fc2(F.gelu(self.fc1(hidden)))
        return logits


@MULTIMODAL_REGISTRY.register_processor(
    PictureProcessor, info=PictureInfo, dummy_inputs=PictureDummies
)
class TwoStreamJanus(nn.Module, SupportsMultiModal):
    """The model that vLLM builds for Janus's folders."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Build the parts that this replica needs.

        Args:
            vllm_config: vLLM's, with what `ModelSettings` wrote into it.
            prefix: The model's name.
        """
        super().__init__()
        model_config: Any = vllm_config.model_config
        self.folder = open_checkpoint(model_config.model, model_config.revision)
        self.layout = TokenLayout.of_config(model_config.hf_config)
        text = one_stream(model_config.hf_text_config, self.layout)
        size, seen = text.hidden_size, self.folder.sizes.vision
        with self._mark_language_model(vllm_config):
            self.language_model = StreamedLlama(
                vllm_config=vllm_config.with_hf_config(text, ["LlamaForCausalLM"]),
                prefix=f"{prefix}.language_model".lstrip("."),
                streams=self.layout.streams,
            )
        with self._mark_tower_model(vllm_config, "image"):
            self.vision = VisionEncoder(seen)
            self.vision_aligner = Projector(seen.hidden_size, size, size)
        self.text_head = ParallelLMHead(self.layout.text_size, size, prefix="text_head")
        self.logits_processor = LogitsProcessor(self.layout.text_size)
        if self.layout.draws:
            codes = self.folder.sizes.image_tokenizer
            self.image_embedding = nn.Embedding(codes.codebook_size, codes.code_dim)
            self.image_aligner = Projector(codes.code_dim, size, size)
            self.image_head = ImageHead(size, codes.codebook_size, "image_head")

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """What vLLM's chat writes for a picture."""
        return "<image_placeholder>" if modality == "image" else None

    # --- in --------------------------------------------------------------------------------------

    def embed_multimodal(self, **kwargs: Any) -> Sequence[Tensor]:
        """Pictures that are read: pixels [B, 3, S, S] -> rows [patches, width] each."""
        pixels: Tensor = kwargs["pixel_values"].to(self.vision.position_embedding.weight)
        features = self.vision_aligner(self.vision(pixels))
        return [self._as_rows(picture) for picture in features]

    def _as_rows(self, features: Tensor) -> Tensor:
        """Features [patches, d] as rows; the second stream sees pads, as of all text."""
        if not self.layout.draws:
            return features
        pads = torch.full(features.shape[:1], self.layout.pad, device=features.device)
        pad = self.language_model.embed_tokens(pads)
        return torch.cat([features, pad, torch.zeros_like(pad[:, :1])], dim=-1)

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Sequence[Tensor] | None = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """Embed token ids.

        Args:
            input_ids: [n].
            multimodal_embeddings: The rows of pictures that are read, in order.
            is_multimodal: Bool [n], where they belong.

        Returns:
            Rows [n, width].
        """
        rows = self._embed(input_ids)
        if multimodal_embeddings is not None and len(multimodal_embeddings):
            rows[is_multimodal] = torch.cat(list(multimodal_embeddings)).to(rows.dtype)
        return rows

    def _embed(self, ids: Tensor) -> Tensor:
        if not self.layout.draws:
            return self.language_model.embed_tokens(ids)
        layout = self.layout
        is_text = ids < layout.text_size
        first = torch.where(is_text, ids.clamp_min(0), layout.begin_of_image)
        second = torch.where(is_text & (ids != layout.bos), layout.pad, first)
        text = self.language_model.embed_tokens(torch.cat([first, second]))
        is_image = ((ids >= layout.images.start) & (ids < layout.images.stop))[:, None]
        codes = (ids - layout.images.start).clamp(0, layout.image_size - 1)
        image = self.image_aligner(self.image_embedding(codes))
        streams = [torch.where(is_image, image, stream) for stream in text.chunk(2)]
        return torch.cat([*streams, (~is_text)[:, None].to(image.dtype)], dim=-1)

    # --- through and out -------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> Tensor:
        """Run the decoder.

        Args:
            input_ids: [n], if there are no embeddings.
            positions: [n].
            intermediate_tensors: None, as there is no pipeline parallelism.
            inputs_embeds: Rows [n, width].
            kwargs: Nothing that this model reads.

        Returns:
            Hidden states [n, width].
        """
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed_input_ids(input_ids)
        if not self.layout.draws:
            return self.language_model(positions, inputs_embeds)
        embeddings, mode = inputs_embeds[:, :-1], inputs_embeds[:, -1:]
        return torch.cat([self.language_model(positions, embeddings), mode], dim=-1)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """The logits of hidden states.

        Args:
            hidden_states: [rows, width].

        Returns:
            [rows, layout.size]: a row of text has those of the text ids, a row of a drawing those
            of the image ids by both streams, and minus infinity stands elsewhere. None on ranks
            that do not sample.
        """
        if not self.layout.draws:
            return self.logits_processor(self.text_head, hidden_states)
        size = (hidden_states.shape[-1] - 1) // 2
        first, second, mode = hidden_states.split([size, size, 1], dim=-1)
        paints = mode > 0.5
        text = self._text_logits(first.contiguous(), paints)
        images = self._image_logits(torch.cat([first, second]), paints)
        if text is None:
            return None
        no_paint = text.new_full((len(text), 1), NOTHING)
        return torch.cat([text, images[0], no_paint, images[1]], dim=-1)

    def _text_logits(self, first: Tensor, paints: Tensor) -> Tensor | None:
        """Hidden states [rows, d] -> [rows, T], minus infinity in rows of drawings."""
        if not may_hold(~paints):
            return first.new_full((len(first), self.layout.text_size), NOTHING)
        logits = self.logits_processor(self.text_head, first)
        return None if logits is None else logits.masked_fill(paints, NOTHING)

    def _image_logits(self, both: Tensor, paints: Tensor) -> Sequence[Tensor]:
        """Hidden states [2 rows, d] -> two of [rows, I], minus infinity in rows of text."""
        if not may_hold(paints):
            nothing = both.new_full((len(paints), self.layout.image_size), NOTHING)
            return nothing, nothing
        return [part.masked_fill(~paints, NOTHING) for part in self.image_head(both).chunk(2)]

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Fill the model from the folder's tensors; see `weights.fill`."""
        return fill(self, self.folder, weights)
