"""How text is sampled by transformers' `generate`, for a request of ours."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unitok.requests import TextOptions


def generation_options(asked: TextOptions) -> dict[str, Any]:
    """The options of `generate` for a request. They replace those that the folder names."""
    options = {
        "max_new_tokens": asked.max_tokens,
        "repetition_penalty": float(asked.repetition_penalty),
        "num_beams": 1,
        "do_sample": asked.temperature > 0,
    }
    if asked.temperature > 0:
        options |= {"temperature": float(asked.temperature), "top_p": float(asked.top_p)}
        options |= {"top_k": asked.top_k, "min_p": float(asked.min_p) or None}
    return options


class Steps:
    """Counts the tokens that `generate` has sampled for each sequence.

    What it returns begins with the prompt, or does not, as the class of the model will have it. The
    new tokens are always the last ones.

    Attributes:
        count: The tokens so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Count a token; the scores stay as they are."""
        self.count += 1
        return scores
