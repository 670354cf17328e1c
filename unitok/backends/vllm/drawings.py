"""A drawing as vLLM takes it: one prompt with two streams, and sampling parameters.

The second stream is made from the first one's ids, so it can only be the prompt with pads for all
but its ends. Drawings with any other unconditional prompt are refused.
"""

import math
from dataclasses import dataclass

from unitok.backends.vllm.layout import TokenLayout
from unitok.families.common.family import GenerationSpec
from unitok.requests import MAX_GUIDANCE
from unitok.shown import shown

GUIDANCE = "guidance"
"""The key of `SamplingParams.extra_args`, and of `vllm_xargs` over HTTP, for the guidance scale."""


@dataclass(frozen=True)
class VllmDrawing:
    """A drawing for vLLM.

    Attributes:
        token_ids: The prompt, in vLLM's ids.
        guidance: The guidance scale.
        tokens: How many image ids a picture has.
    """

    token_ids: list[int]
    guidance: float
    tokens: int


def check_guidance(scale: object) -> None:
    """Raise ValueError unless it is a finite number within the bounds that `Draw` has too."""
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not is_number or not math.isfinite(scale) or abs(scale) > MAX_GUIDANCE:  # pyright: ignore
        raise ValueError(
            f"{GUIDANCE} must be a number from {-MAX_GUIDANCE} to {MAX_GUIDANCE}, not "
            f"{shown(scale)}"
        )


def drawing_of(spec: GenerationSpec, layout: TokenLayout) -> VllmDrawing:
    """The drawing that a family's spec describes.

    Args:
        spec: As `Family.generation_spec` gives it, of a `GridPlan`.
        layout: The ids of the model that vLLM serves.

    Raises:
        ValueError: vLLM cannot draw this; the message says why.
    """
    first, *others = spec.branches
    token_ids = layout.drawing_prompt(first.token_ids)
    if first.embeddings:
        raise ValueError(
            "the vLLM backend draws from text alone, not from a prompt with pictures: use unitok's "
            "own engine"
        )
    if others and [list(b.token_ids) for b in others] != [layout.second_prompt(token_ids)]:
        raise ValueError(
            "the vLLM backend guides a drawing by one unconditional prompt of the same length, so "
            "it takes no negative prompt, no drawing inside a chat and no edit: use unitok's own "
            "engine"
        )
    return VllmDrawing(token_ids, first.weight, spec.plan.max_length)
