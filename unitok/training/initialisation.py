"""The weights of a model that begins from nothing."""

import math

from torch import nn

from unitok.nn.model import UnifiedModel


def initialise(model: UnifiedModel) -> None:
    """Draw all weights but the image tokenizer's from normal distributions, as GPT-2 does.

    The standard deviation is 0.02. Projections that write to the residual stream are scaled down
    with depth, and biases are zero.
    """
    depth = len(model.decoder.blocks)
    for name, module in model.named_modules():
        if name.startswith("image_tokenizer"):
            continue
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
            last = name.endswith((".o", ".down"))
            nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * depth) if last else 0.02)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    # Codes have few numbers: they must start far enough apart to be distinguished.
    nn.init.normal_(model.image_embedding.weight, std=1.0)
    nn.init.normal_(model.image_aligner.fc1.weight, std=0.3)
