"""Names of UniToken's weights: Chameleon's, and those of its vision encoder."""

from unitok.families.chameleon.weights import TRANSFORMERS
from unitok.families.common.siglip import siglip_names

# Our names -> the checkpoint's names.
RENAMES = (
    *TRANSFORMERS,
    *siglip_names("vit", "out_proj"),
    (r"^vision_aligner\.fc1\.", "adapter.0."),
    (r"^vision_aligner\.fc2\.", "adapter.2."),
)
# Whole names that we do not use.
DROPPED = (r"vit\.head\..*",)
