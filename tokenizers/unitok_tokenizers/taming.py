"""The names of the parameters in taming-transformers' VQGAN, which Chameleon keeps.

Sources: https://github.com/CompVis/taming-transformers and, for Chameleon,
https://github.com/facebookresearch/chameleon (chameleon/inference/vqgan.py), under "state_dict" in
vqgan.ckpt. transformers' Chameleon has the same names under `model.vqmodel.`, without the decoder.
"""

import re
from collections.abc import Iterable

# Our names -> those that VQGAN and its descendants agree on.
COMMON = [
    (r"^quantizer\.codebook$", "quantize.embedding.weight"),
    (r"^(encoder\.levels\.\d+)\.resample\.", r"\1.downsample."),
    (r"^(decoder\.levels\.\d+)\.resample\.", r"\1.upsample."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"\.proj\.", ".proj_out."),
]
# Our names -> those of taming-transformers. Patterns are applied in order.
RENAMES = [
    *COMMON,
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.", "decoder.up."),
    (r"\.(down|up)\.(\d+)\.blocks\.", r".\1.\2.block."),
    (r"\.attentions\.", ".attn."),
    (r"\.middle\.block(\d)\.", r".mid.block_\1."),
    (r"\.middle\.attention\.", ".mid.attn_1."),
]
# Whole names, as patterns, that such a checkpoint may hold and no tokenizer needs: those of the
# loss that it was trained with.
DROPPED = (r"loss\..*",)


def taming_name(key: str, levels: int = 5) -> str:
    """Translate a parameter's name into its name in taming-transformers' VQGAN.

    A checkpoint counts the decoder's levels from the full resolution, which is run last; an
    `ImageTokenizer` counts them in the order in which they are run.

    Args:
        key: A name in the state dict of an `ImageTokenizer`.
        levels: The number of levels of that tokenizer.
    """
    name = rename(key, RENAMES)
    return re.sub(r"^decoder\.up\.(\d+)", lambda m: f"decoder.up.{levels - 1 - int(m[1])}", name)


def rename(key: str, renames: Iterable[tuple[str, str]]) -> str:
    """Apply patterns and their replacements to a parameter's name, all of them, in order.

    Args:
        key: The name.
        renames: Regular expressions and what replaces each of their matches.
    """
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
