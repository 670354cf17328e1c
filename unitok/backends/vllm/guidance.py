# pyright: reportMissingImports=false
"""Mixes the two streams' logits by each request's guidance scale, for both of vLLM's runners.

It is found by the entry point `vllm.logits_processors`. A request states its scale in
`SamplingParams.extra_args["guidance"]`, which is `vllm_xargs` over HTTP; without it the
checkpoint's own holds. The mixed logits are scale * first + (1 - scale) * second, and the second
stream's columns are never sampled.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor as V1LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2LogitsProcessor

from unitok.backends.vllm.checkpoint import open_checkpoint
from unitok.backends.vllm.drawings import GUIDANCE, check_guidance
from unitok.backends.vllm.layout import KEY, TokenLayout


class Guidance(V1LogitsProcessor, V2LogitsProcessor):
    """Guidance of the drawings in a batch; other models' requests pass through it unchanged."""

    def __init__(self, vllm_config: Any, place: Any, is_pin_memory: bool | None = None) -> None:
        """Read the layout, and the scale that holds for requests without one.

        Args:
            vllm_config: vLLM's.
            place: The device for runner V1, the requests' state for V2.
            is_pin_memory: Given by runner V1 alone.
        """
        model_config = vllm_config.model_config
        self.layout: TokenLayout | None = None
        self.default = 1.0
        self._scales: dict[int, float] = {}  # by row (V1) or slot (V2)
        if hasattr(model_config.hf_config, KEY):
            layout = TokenLayout.of_config(model_config.hf_config)
            folder = open_checkpoint(model_config.model, model_config.revision)
            self.layout, self.default = layout if layout.draws else None, folder.defaults.guidance

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError for a scale that is no number, or too large."""
        scale = (sampling_params.extra_args or {}).get(GUIDANCE)
        if scale is not None:
            check_guidance(scale)

    def is_argmax_invariant(self) -> bool:
        """Whether greedy requests could do without it; they cannot."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows of runner V1.

        Args:
            batch_update: What changed; None for nothing.
        """
        process_dict_updates(self._scales, batch_update, lambda params, *_: self._scale_of(params))

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take note of a request of runner V2, which keeps its slot.

        Args:
            req_idx: The slot.
            sampling_params: The request's.
        """
        self._scales[req_idx] = self._scale_of(sampling_params)
        return self.layout is not None

    def _scale_of(self, sampling_params: Any) -> float:
        scale = (sampling_params.extra_args or {}).get(GUIDANCE)
        return self.default if scale is None else float(scale)

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Mix the drawings' logits in place.

        Args:
            logits: [rows, layout.size].
            ctx: Which slot each row is of, from runner V2.

        Returns:
            The same tensor.
        """
        if self.layout is None:
            return logits
        slots = range(len(logits)) if ctx is None else ctx.expanded_idx_mapping.tolist()
        scales = [self._scales.get(slot, self.default) for slot in slots]
        mix(logits, self.layout, torch.tensor(scales).to(logits.device)[:, None])
        return logits


def mix(logits: Tensor, layout: TokenLayout, scales: Tensor) -> None:
    """Mix the streams in place.

    Args:
        logits: [rows, layout.size], of which rows of text have none of image ids.
        layout: Where the columns are.
        scales: [rows, 1].
    """
    first = logits[:, layout.images.start : layout.images.stop]
    second = logits[:, layout.second.start : layout.second.stop]
    # Minus infinity times a negative number would be infinity.
    is_drawing = second > float("-inf")
    first.copy_(torch.where(is_drawing, scales * first + (1 - scales) * second, first))
    second.fill_(float("-inf"))
