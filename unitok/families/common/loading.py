"""Building a model on the meta device and filling it from a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from unitok.checkpoints.adapter import StateDictAdapter
from unitok.checkpoints.folders import first_line
from unitok.checkpoints.tensors import Tensors
from unitok.checkpoints.weights import (
    CODEBOOK,
    IMAGE_TOKENIZER,
    Dtype,
    ImageTokenizerOnly,
    check_shapes,
    fill,
)
from unitok.nn.config import ModelConfig
from unitok.nn.model import UnifiedModel
from unitok.nn.skeleton import skeleton
from unitok.quantization.weights import Quantized, StreamedQuantizer

HEAD = "text_head.weight"


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a checkpoint.

    Attributes:
        tensors: Its tensors by name.
        adapter: Says where each of our parameters is among them.
        dropped: Regular expressions of whole names that we do not use.
    """

    tensors: Tensors
    adapter: StateDictAdapter
    dropped: Sequence[str] = ()


def build_model(
    config: ModelConfig,
    weights: StoredWeights,
    dtype: Dtype,
    device: str,
    exact_codes: bool = False,
    tied: bool = False,
) -> UnifiedModel:
    """Build a model and fill it, strictly.

    Args:
        config: The sizes of the model.
        weights: What it is filled with.
        dtype: The type of the filled weights. Linear layers of few bits are quantised as soon as
            their weights are read. Of `ImageTokenizerOnly`, all else stays without storage.
        device: Where they are put.
        exact_codes: Whether the image tokenizer stays in float32, whatever `dtype` is, because it
            would give other codes in fewer bits.
        tied: Whether the text embedding serves as the text head if the checkpoint has none.

    Raises:
        ValueError: A key is missing, unknown or misshapen, or no tensor can have such sizes.
    """
    check_codebook(config, weights)
    try:
        with skeleton():
            model = UnifiedModel(config)
    except RuntimeError as error:
        reason = first_line(error)
        raise ValueError(f"{weights.tensors.source}: the sizes of the model: {reason}") from None
    tied = tied and weights.adapter(HEAD).name not in weights.tensors.names
    if tied:
        model.text_head.register_parameter("weight", None)
    exact = IMAGE_TOKENIZER if exact_codes else None
    if isinstance(dtype, ImageTokenizerOnly):
        return fill_image_tokenizer(model, weights, dtype, device, exact)
    placed = None
    if isinstance(dtype, Quantized):
        placed, dtype = StreamedQuantizer(model, dtype.quantization).placed, dtype.dtype
    tensors, dropped = weights.tensors, weights.dropped
    fill(model, tensors, weights.adapter, dtype, device, dropped, exact, placed)
    if tied:
        model.text_head.weight = model.text_embedding.weight
    model.image_tokenizer.refresh()
    return model.to(device).eval()


def fill_image_tokenizer(
    model: UnifiedModel,
    weights: StoredWeights,
    dtype: ImageTokenizerOnly,
    device: str,
    exact: str | None,
) -> UnifiedModel:
    """Fill no more of a model than its image tokenizer; see `build_model`."""
    tensors, dropped = weights.tensors, weights.dropped
    kind = fill(
        model, tensors, weights.adapter, dtype.dtype, device, dropped, exact, only=IMAGE_TOKENIZER
    )
    # Where the model is, and in which type, is read off this table. One number is all of it.
    like = torch.zeros((), dtype=kind, device=device)
    table = model.text_embedding.weight
    model.text_embedding.weight = nn.Parameter(like.expand(table.shape), requires_grad=False)
    model.image_tokenizer.refresh()
    model.image_tokenizer.to(device)
    return model.eval()


def check_codebook(config: ModelConfig, weights: StoredWeights) -> None:
    """Check the codebook's shape before the model is built, which allocates room for it alone.

    Raises:
        ValueError: It is missing, or has another shape than the settings say.
    """
    stored, tensors = weights.adapter(CODEBOOK), weights.tensors
    codes = config.image_tokenizer
    if stored.name not in tensors.names:
        raise ValueError(f"{tensors.source}: 1 missing keys, such as {stored.name}")
    shape = torch.empty(codes.codebook_size, codes.code_dim, device="meta")
    check_shapes({CODEBOOK: (stored, shape)}, tensors)
