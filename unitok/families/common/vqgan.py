"""Settings of VQGANs: those that transformers' families agree on, and the names before theirs.

The older names are those of taming-transformers (https://github.com/CompVis/taming-transformers),
which Chameleon's vqgan.yaml and Emu3's own config.json keep.
"""

from collections.abc import Mapping
from typing import Any

VQGAN_FIELDS = {
    "num_embeddings": "codebook_size",
    "embed_dim": "code_dim",
    "latent_channels": "latent_channels",
    "base_channels": "base_channels",
    "channel_multiplier": "channel_multiplier",
    "num_res_blocks": "res_blocks",
}
VQGAN_REQUIRED: Mapping[str, tuple[Any, ...]] = {
    "double_latent": (False,),
    "in_channels": (3,),
    "out_channels": (3,),
    "attn_type": ("vanilla",),
}
TAMING_NAMES = {  # the older name -> transformers'
    "n_embed": "num_embeddings",
    "z_channels": "latent_channels",
    "double_z": "double_latent",
    "ch": "base_channels",
    "ch_mult": "channel_multiplier",
    "out_ch": "out_channels",
}


def from_taming_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings under transformers' names."""
    return {TAMING_NAMES.get(key, key): value for key, value in settings.items()}
