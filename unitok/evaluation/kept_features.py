"""Features of a picture in a journal: as text, so that a run that was killed goes on."""

from __future__ import annotations

import base64

import numpy as np
import torch
from torch import Tensor

from unitok.evaluation.extractors import Features


def packed(features: Features) -> dict[str, str]:
    """The features of a picture as text, for the journal."""
    found = {"values": features.values, "logits": features.logits}
    return {name: to_text(tensor) for name, tensor in found.items() if tensor is not None}


def unpacked(facts: dict[str, str]) -> Features:
    """The features of a picture, from the journal."""
    return Features(
        from_text(facts["values"]), from_text(facts["logits"]) if "logits" in facts else None
    )


def to_text(tensor: Tensor) -> str:
    """Numbers in float32, little end first, in base64."""
    return base64.b64encode(tensor.numpy().astype("<f4").tobytes()).decode()


def from_text(text: str) -> Tensor:
    """A row [1, n] of such numbers."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").copy())[None]
