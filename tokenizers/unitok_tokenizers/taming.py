"""The names of taming-transformers' VQGAN, which Chameleon's image tokenizer keeps.

Sources: https://github.com/CompVis/taming-transformers and, for Chameleon,
https://github.com/facebookresearch/chameleon (chameleon/inference/vqgan.py), under "state_dict" in
vqgan.ckpt. transformers' Chameleon has the same names under `model.vqmodel.`, without the decoder.
"""

import re
from collections.abc import Iterable

# What VQGAN and its descendants agree on: our names -> theirs.
COMMON = [
    (r"^quantizer\.codebook$", "quantize.embedding.weight"),
    (r"^(encoder\.levels\.\d+)\.resample\.", r"\1.downsample."),
    (r"^(decoder\.levels\.\d+)\.resample\.", r"\1.upsample."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"\.proj\.", ".proj_out."),
]
RENAMES = [
    *COMMON,
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.", "decoder.up."),
    (r"\.(down|up)\.(\d+)\.blocks\.", r".\1.\2.block."),
    (r"\.attentions\.", ".attn."),
    (r"\.middle\.block(\d)\.", r".mid.block_\1."),
    (r"\.middle\.attention\.", ".mid.attn_1."),
]
# Whole names that such a checkpoint may hold and no tokenizer needs: what it was trained against.
DROPPED = (r"loss\..*",)


def taming_name(key: str, levels: int = 5) -> str:
    """A parameter's name in an `ImageTokenizer` of so many levels -> its name in such a checkpoint.

    Theirs counts the decoder's levels from the highest resolution, which is run last; ours in the
    order they are run.
    """
    name = rename(key, RENAMES)
    return re.sub(r"^decoder\.up\.(\d+)", lambda m: f"decoder.up.{levels - 1 - int(m[1])}", name)


def rename(key: str, renames: Iterable[tuple[str, str]]) -> str:
    """Apply regular expressions and their replacements, all of them, in order."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
