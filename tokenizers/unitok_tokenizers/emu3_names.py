"""The names of the parameters of Emu3's image tokenizer in two kinds of checkpoint.

Sources: Emu3VQVAE of transformers, and https://github.com/baaivision/Emu3
(emu3/tokenizer/modeling_emu3visionvq.py), the folder BAAI/Emu3-VisionTokenizer.
"""

import re
from collections.abc import Sequence

from unitok_tokenizers.taming import rename

Renames = Sequence[tuple[str, str]]

# Whole names, as patterns, that a checkpoint holds and no tokenizer needs: BatchNorm counts batches
# for its training alone.
DROPPED = (r"(en|de)coder\.time_res_stack\.\d+\.norm\d\.num_batches_tracked",)

# Our names -> those of both kinds of checkpoint. Patterns are applied in order.
SHARED: Renames = [
    (r"^quantizer\.codebook$", "quantize.embedding.weight"),
    (r"^(post_quant_conv|quant_conv)\.", r"\1.conv."),
    (r"\.time_convs\.(\d+)\.", r".time_conv.\1.conv.conv."),
    (r"\.time_blocks\.(\d+)\.norm", r".time_res_stack.\1.norm"),
    (r"\.time_blocks\.(\d+)\.conv(\d)\.", r".time_res_stack.\1.conv\2.conv."),
    (r"\.(norm\w*)\.norm\.", r".\1.norm_layer."),
    (r"\.scale\.", ".conv_y."),
    (r"\.shift\.", ".conv_b."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"^encoder\.levels\.(\d+)\.resample\.", r"encoder.levels.\1.downsample."),
    (r"^decoder\.levels\.(\d+)\.resample\.", r"decoder.levels.\1.upsample."),
    (r"\.levels\.(\d+)\.blocks\.", r".levels.\1.block."),
    (r"\.middle\.block(\d)\.", r".middle.block_\1."),
]  # fmt: skip

# transformers: Emu3VQVAE, which is `model.vqmodel` in a whole Emu3.
TRANSFORMERS: Renames = [
    *SHARED,
    (r"\.levels\.(\d+)\.attentions\.(\d+)\.norm\.", r".levels.\1.attn_norms.\2."),
    (r"\.levels\.(\d+)\.attentions\.", r".levels.\1.attn."),
    (r"\.middle\.attention\.norm\.", ".middle.attn_norm."),
    (r"\.middle\.attention\.", ".middle.attn_1."),
    (r"\.(q|k|v)\.(weight|bias)$", r".\1_proj.\2"),
    (r"\.proj\.(weight|bias)$", r".out_proj.\1"),
    (r"\.middle\.", ".middle_block."),
    (r"^encoder\.levels\.", "encoder.down_block.down."),
    (r"^decoder\.levels\.", "decoder.up_block.up."),
]  # fmt: skip

# baaivision/Emu3, emu3/tokenizer/modeling_emu3visionvq.py: the folder Emu3-VisionTokenizer.
ORIGINAL: Renames = [
    *SHARED,
    (r"\.levels\.(\d+)\.attentions\.", r".levels.\1.attn."),
    (r"\.middle\.attention\.", ".middle.attn_1."),
    (r"\.proj\.(weight|bias)$", r".proj_out.\1"),
    (r"\.middle\.", ".mid."),
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.", "decoder.up."),
]  # fmt: skip


def transformers_name(key: str) -> str:
    """Translate a parameter's name into its name in transformers' Emu3VQVAE.

    A whole Emu3 has the prefix `model.vqmodel.` before it. The shapes are equal except where
    `linear_in_transformers` holds.

    Args:
        key: A name in the state dict of an `Emu3Tokenizer`.
    """
    return rename(key, TRANSFORMERS)


def original_name(key: str) -> str:
    """Translate a parameter's name into its name in the folder Emu3-VisionTokenizer.

    The shapes are equal.

    Args:
        key: A name in the state dict of an `Emu3Tokenizer`.
    """
    return rename(key, ORIGINAL)


def linear_in_transformers(key: str) -> bool:
    """Tell whether transformers stores a weight as that of a linear layer.

    Such a weight is [C, C] there and [C, C, 1, 1], that of a 1x1 convolution, here.

    Args:
        key: A name in the state dict of an `Emu3Tokenizer`.
    """
    return re.search(r"\.attentions?\.(\d+\.)?(q|k|v|proj)\.weight$", key) is not None
