"""Names of Chameleon's weights, and how queries, keys and the codebook are stored."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from unitok.checkpoints.adapter import StateDictAdapter, Stored, renaming, same
from unitok.families.chameleon.image_ids import ImageIds
from unitok.families.common.llama import llama_names
from unitok.nn.config import ModelConfig
from unitok_tokenizers.taming import taming_name

# Our names -> transformers' names.
TRANSFORMERS = (
    *llama_names("model", "lm_head"),
    (r"^decoder\.blocks\.(\d+)\.attention\.(\w_norm)\.", r"model.layers.\1.self_attn.\2."),
)
TRANSFORMERS_VQGAN = "model.vqmodel."
# Whole names of transformers' folders that we do not use; the first if vqgan.ckpt is there.
DOUBLE_VQGAN = r"model\.vqmodel\..*"
TRANSFORMERS_DROPPED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)

QUERY_OR_KEY = re.compile(r"^decoder\.blocks\.\d+\.attention\.(?P<which>[qk])(?P<norm>_norm)?\.")


def make_adapter(
    config: ModelConfig,
    ids: ImageIds,
    renames: Sequence[tuple[str, str]],
    vqgan: str = "",
    paired: bool = False,
) -> StateDictAdapter:
    """Where our parameters are stored.

    Args:
        config: The sizes of the model.
        ids: Which say in what order the codebook is.
        renames: Our names to the checkpoint's, but for the VQGAN's.
        vqgan: What stands before the VQGAN's names.
        paired: Whether neighbours are rotated together, as in Meta's files, and not the halves of a
            head, as here and in transformers.
    """
    names, decoder = renaming(renames), config.decoder
    size, turn = decoder.head_dim, partial(unpair, size=decoder.head_dim) if paired else same

    def stored(key: str) -> Stored:
        if key.startswith("image_tokenizer."):
            return stored_vqgan(key.removeprefix("image_tokenizer."), config, ids, vqgan)
        name, match = names(key).name, QUERY_OR_KEY.match(key)
        if match is None:
            return Stored(name)
        if match["norm"] is None:
            return Stored(name, load=turn)
        heads = decoder.heads if match["which"] == "q" else decoder.kv_heads
        return Stored(name, load=lambda tensor: spread(turn(tensor), heads, size))

    return stored


def stored_vqgan(key: str, config: ModelConfig, ids: ImageIds, prefix: str) -> Stored:
    """Where a parameter of the VQGAN is stored."""
    codes: Any = config.image_tokenizer
    name = prefix + taming_name(key, len(codes.channel_multiplier))
    return Stored(name, load=ids.reorder) if key == "quantizer.codebook" else Stored(name)


def unpair(tensor: Tensor, size: int) -> Tensor:
    """Rows of heads of `size`, from pairs (0, 1), (2, 3), ... to pairs (0, size / 2), ...

    [heads * size, ...] -> the same; rope_padded of xformers turns the first kind.
    """
    pairs = tensor.reshape(-1, size // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)


def spread(tensor: Tensor, heads: int, size: int) -> Tensor:
    """Weights of the norm of queries or keys, of one head per file or of all -> [heads, size].

    Meta's files hold one for all heads in them, transformers' older ones too.
    """
    rows = tensor.reshape(-1, size)
    return rows.repeat_interleave(heads // len(rows), dim=0)
