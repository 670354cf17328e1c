"""Tiny random checkpoints of encoders, in the libraries' own formats, and pictures for them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
SIDE = 32  # pixels of a tiny model


def random_pictures(count: int, width: int = 50, height: int = 40) -> list[Image.Image]:
    """Smooth random pictures."""
    rng = np.random.default_rng(count)
    small = rng.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return [Image.fromarray(s).resize((width, height), Image.Resampling.BICUBIC) for s in small]


def save_model(folder: Path, kind: Any, config: Any, *others: Any) -> Path:
    """Save a random model, whose weights are larger than those that training begins with, and what
    else a folder needs."""
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                weight.normal_(0, 0.2)
        for name, values in model.named_buffers():
            if name.endswith("codebook.embed"):  # of zeros until it is trained
                values.normal_()
    for part in (model, *others):
        part.save_pretrained(folder)
    return folder
