"""config.json of transformers' Janus, read and written."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unitok.checkpoints.settings import Settings, fields_to_json
from unitok.families.common.llama import LLAMA, LLAMA_FIELDS, read_decoder
from unitok.families.common.siglip import SIGLIP_FIELDS, SIGLIP_LARGE
from unitok.families.common.vqgan import VQGAN_FIELDS, VQGAN_REQUIRED
from unitok.nn.config import DecoderConfig, JanusConfig, VisionConfig
from unitok.shown import shown
from unitok_tokenizers.autoencoder import AutoencoderConfig

READ = ("text_config", "vision_config", "vq_config", "image_token_id", "tie_word_embeddings")
VISION_READ = (*SIGLIP_FIELDS, "mlp_ratio", "projection_dim", "num_image_tokens", "vision_use_head")
VISION_REQUIRED = {
    "hidden_act": ("gelu",),
    "num_channels": (3,),
    "attention_bias": (True,),
    "use_qk_norm": (None, False),
    "depth": (2,),
    "hidden_dropout_rate": (0.0,),
    "projection_dropout": (0.0,),
}
# The patch-wise encoder is ours: transformers knows the convolutional one alone.
OWN_FIELDS = {"encoder": "encoder", "patch_width": "patch_width"}
# What follows from other sizes is seen in the shapes of the weights.
VQ_READ = (*VQGAN_FIELDS, *OWN_FIELDS, "num_patches", "projection_dim", "image_token_embed_dim")
VQ_REQUIRED = {
    **VQGAN_REQUIRED,
    "attn_resolutions": (None,),
    "hidden_act": ("gelu",),
    "num_hidden_layers": (2,),
}


def config_from_json(config: Settings) -> JanusConfig:
    """Read config.json; absent settings take transformers' defaults.

    Raises:
        ValueError: Another model type, a setting that would change the maths, a value of the wrong
            type, or an unknown setting if loading is strict.
    """
    if config.data.get("model_type") != "janus":
        raise ValueError(
            f"model_type is {shown(config.data.get('model_type'))}; this loader reads 'janus'"
        )
    config.check(READ, model_type="janus")
    decoder = read_decoder(config.section("text_config"), LLAMA, "llama")
    vision = read_vision(config.section("vision_config"))
    vq = config.section("vq_config")
    vq.check(VQ_READ, VQ_REQUIRED, "janus_vqgan")
    return JanusConfig(decoder, vision, read_codes(vq, VQGAN_FIELDS | OWN_FIELDS, vision))


def read_vision(vision: Settings) -> VisionConfig:
    """The sizes of the SigLIP tower."""
    vision.check(VISION_READ, VISION_REQUIRED, "janus_vision_model")
    sizes = vision.fields(SIGLIP_FIELDS, SIGLIP_LARGE)
    width = vision.scaled_setting("mlp_ratio", 4.0, sizes["hidden_size"])
    tower = replace(SIGLIP_LARGE, **sizes, intermediate_size=width)
    stated = vision.data.get("num_image_tokens", tower.patches)
    if stated != tower.patches:
        raise ValueError(
            f"{vision.where}: num_image_tokens is {stated}, but a picture has {tower.patches} "
            "patches"
        )
    return tower


def read_codes(vq: Settings, fields: Mapping[str, str], vision: VisionConfig) -> AutoencoderConfig:
    """The sizes of the image tokenizer; as many codes are generated as patches are read."""
    sizes = vq.fields(fields, AutoencoderConfig())
    grid = vision.image_size // vision.patch_size
    return AutoencoderConfig(grid * 2 ** (len(sizes["channel_multiplier"]) - 1), **sizes)


def config_to_json(
    config: JanusConfig, image_token_id: int, dtype: str, tied: bool = False
) -> dict[str, Any]:
    """Write config.json for transformers.

    Args:
        config: The sizes.
        image_token_id: The placeholder of pictures in prompts.
        dtype: The type of the weights.
        tied: Whether the text head is the text embedding, and so not stored.
    """
    size, vision, codes = config.decoder.hidden_size, config.vision, config.image_tokenizer
    return {
        "architectures": ["JanusForConditionalGeneration"],
        "model_type": "janus",
        "image_token_id": image_token_id,
        "tie_word_embeddings": tied,
        "dtype": dtype,
        "text_config": {
            **decoder_to_json(config.decoder, tied),
            "rope_parameters": {"rope_type": "default", "rope_theta": config.decoder.rope_theta},
        },
        "vision_config": {
            "model_type": "janus_vision_model",
            **fields_to_json(SIGLIP_FIELDS, vision),
            "mlp_ratio": ratio(vision.intermediate_size, vision.hidden_size),
            "hidden_act": "gelu",
            "projection_dim": size,
            "depth": 2,
            "num_image_tokens": vision.patches,
        },
        "vq_config": {
            "model_type": "janus_vqgan",
            **fields_to_json(VQGAN_FIELDS, codes),
            **(fields_to_json(OWN_FIELDS, codes) if codes.encoder != "conv" else {}),
            "num_patches": codes.grid,
            "num_hidden_layers": 2,
            "projection_dim": size,
            "image_token_embed_dim": size,
        },
    }


def decoder_to_json(decoder: DecoderConfig, tied: bool) -> dict[str, Any]:
    """What both formats say of the decoder."""
    sizes = fields_to_json(LLAMA_FIELDS, decoder)
    return {"model_type": "llama", **sizes, "tie_word_embeddings": tied}


def ratio(size: int, width: int) -> float:
    """A ratio of which int(width * ratio), as the readers compute it, gives the size again."""
    quotient = size / width
    return quotient if int(width * quotient) == size else (size + 0.5) / width
