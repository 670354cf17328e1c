"""The weights of Janus in both formats: transformers' names, loading and writing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from unitok.checkpoints.adapter import StateDictAdapter, Stored, renaming
from unitok.checkpoints.saving import stored_tensors, write_json, write_tensors
from unitok.checkpoints.settings import Settings
from unitok.checkpoints.tensors import open_tensors
from unitok.checkpoints.weights import Dtype
from unitok.families.common.llama import llama_names
from unitok.families.common.loading import HEAD, StoredWeights, build_model
from unitok.families.common.siglip import siglip_names
from unitok.families.janus import config, original
from unitok.nn.config import JanusConfig
from unitok.nn.model import UnifiedModel
from unitok.precision import name_of
from unitok_tokenizers import taming
from unitok_tokenizers.taming import rename

# Our names -> transformers' names, but for the image tokenizer's, applied in order.
names = renaming([
    *llama_names("model.language_model", "lm_head"),
    *siglip_names("model.vision_model", "projection_layer"),
    (r"^image_embedding\.", "model.generation_embeddings."),
    (r"^image_aligner\.fc1\.", "model.generation_aligner.fc1."),
    (r"^image_aligner\.fc2\.", "model.generation_aligner.hidden_layers.0."),
    (r"^image_head\.fc1\.", "model.generation_head.proj_out."),
    (r"^image_head\.fc2\.", "model.generation_head.vision_head."),
    (r"^vision_aligner\.fc1\.", "model.aligner.fc1."),
    (r"^vision_aligner\.fc2\.", "model.aligner.hidden_layers.0."),
])  # fmt: skip


def adapter(key: str) -> Stored:
    """Where a parameter of ours is stored in transformers' folder."""
    if key.startswith("image_tokenizer."):
        # Its decoder counts levels as ours does, not as the image tokenizer it comes from.
        inner = key.removeprefix("image_tokenizer.")
        return Stored("model.vqmodel." + rename(inner, taming.RENAMES))
    return names(key)


@dataclass(frozen=True)
class Format:
    """How a folder holds a Janus.

    Attributes:
        adapter: The names of the weights.
        dropped: What else may lie among them.
        read: Reads config.json.
        ties: Whether, after config.json, the text embedding serves as a text head that is absent.
    """

    adapter: StateDictAdapter
    dropped: tuple[str, ...]
    read: Callable[[Settings], JanusConfig]
    ties: Callable[[Settings], bool]


TRANSFORMERS = Format(
    adapter,
    dropped=(),
    read=config.config_from_json,
    ties=lambda data: data.bool_setting("tie_word_embeddings", True),
)
ORIGINAL = Format(
    original.adapter,
    original.DROPPED,
    original.config_from_json,
    lambda data: data.section("language_config").bool_setting("tie_word_embeddings", False),
)
FORMATS = {"transformers": TRANSFORMERS, "original": ORIGINAL}
MODEL_TYPES = {"janus": TRANSFORMERS, "multi_modality": ORIGINAL}


def load_weights(
    folder: Path,
    config: JanusConfig,
    dtype: Dtype,
    device: str,
    format: Format = TRANSFORMERS,
    tied: bool = False,
) -> UnifiedModel:
    """Build the model and fill it from the folder's weights; see `build_model`.

    Raises:
        FileNotFoundError: There are no weights.
        ValueError: A file cannot be read, or a key is missing, unknown or misshapen.
    """
    weights = StoredWeights(open_tensors(folder), format.adapter, format.dropped)
    return build_model(config, weights, dtype, device, tied=tied)


def save_weights(
    model: UnifiedModel, folder: Path, dtype: torch.dtype, adapter: StateDictAdapter = adapter
) -> None:
    """Write `model.safetensors` under an adapter's names, by default transformers'."""
    tensors = stored_tensors(model, adapter, dtype)
    if is_tied(model):
        del tensors[adapter(HEAD).name]
    write_tensors(tensors, folder)


def save_config(sizes: JanusConfig, folder: Path, image_token_id: int, dtype: torch.dtype) -> None:
    """Write `config.json` for transformers."""
    data = config.config_to_json(sizes, image_token_id, name_of(dtype))
    write_json(folder / "config.json", data)


def is_tied(model: UnifiedModel) -> bool:
    """Whether the text embedding is the text head."""
    return getattr(model.text_head, "weight", None) is model.text_embedding.weight
