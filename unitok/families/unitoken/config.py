"""What UniToken's config.json says beside Chameleon's: the sizes of SigLIP."""

from dataclasses import replace

from unitok.checkpoints.settings import Settings
from unitok.families.common.siglip import SIGLIP_FIELDS, SIGLIP_SO400M
from unitok.nn.config import VisionConfig

VISION_FIELDS = SIGLIP_FIELDS | {"intermediate_size": "intermediate_size"}
VISION_REQUIRED = {"hidden_act": ("gelu_pytorch_tanh",), "num_channels": (3,)}


def read_vision(config: Settings) -> VisionConfig:
    """The sizes of SigLIP: so400m's, unless config.json has a vision_config.

    Raises:
        ValueError: A setting would change the maths, a value has the wrong type, or a setting is
            unknown and loading is strict.
    """
    vision = config.section("vision_config")
    vision.check([*VISION_FIELDS, "vision_use_head"], VISION_REQUIRED, "siglip_vision_model")
    return replace(SIGLIP_SO400M, **vision.fields(VISION_FIELDS, SIGLIP_SO400M))
