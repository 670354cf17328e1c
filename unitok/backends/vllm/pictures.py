# pyright: reportMissingImports=false
"""Pictures that are read: our preprocessing as vLLM's multimodal processor.

It needs no processor of transformers, which knows neither DeepSeek's own folders nor our patch-wise
encoder.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdate,
    PromptUpdateDetails,
)

from unitok.backends.vllm.checkpoint import open_checkpoint
from unitok.families.janus import JanusFolder
from unitok.pictures import open_picture


class PictureInfo(BaseProcessingInfo):
    """What vLLM asks of a model before it sees a picture."""

    @cached_property
    def folder(self) -> JanusFolder:
        """The folder that is served."""
        model_config: Any = self.ctx.model_config
        return open_checkpoint(model_config.model, model_config.revision)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Any number of pictures."""
        return {"image": None}

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Token ids of a picture, its marks included."""
        return {"image": self.folder.template.picture_length + 2}


class PictureDummies(BaseDummyInputsBuilder[PictureInfo]):
    """Pictures for vLLM's measurement of memory."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """A prompt with so many pictures."""
        return self.info.folder.template.placeholder * mm_counts.get("image", 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]
    ) -> dict[str, list[Image.Image]]:
        """So many pictures."""
        side, count = self.info.folder.preprocess.image_size, mm_counts.get("image", 0)
        images = self._get_dummy_images(width=side, height=side, num_images=count)
        return {"image": images}


class PictureProcessor(BaseMultiModalProcessor[PictureInfo]):
    """Turns pictures into pixels, and their placeholders in a prompt into as many as they take."""

    def _call_hf_processor(
        self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        """Pixels [B, 3, S, S] of pictures, by our own preprocessing."""
        pixels = torch.stack([self._pixels(image) for image in hf_data["images"]])
        return BatchFeature({"pixel_values": pixels})

    def _pixels(self, image: Any) -> Tensor:
        """The pixels [3, S, S] of a picture; those that `unitok.load` sends are pixels already."""
        if isinstance(image, Tensor):
            return image
        return self.info.folder.preprocess(open_picture(image))

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values": MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(
        self,
        mm_items: Any,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: Any,
    ) -> Sequence[PromptUpdate]:
        """Each placeholder becomes begin-of-image, a placeholder for each patch, end-of-image."""
        template = self.info.folder.template
        names = (template.begin_of_image, template.placeholder, template.end_of_image)
        begin, place, end = map(template.tokenizer.id, names)
        ids = [begin, *[place] * template.picture_length, end]
        shown = PromptUpdateDetails.select_token_id(ids, place)
        return [PromptReplacement(modality="image", target=[place], replacement=shown)]
