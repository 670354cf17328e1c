"""The folders in which DeepSeek published Janus and Janus-Pro: config.json and names of weights.

Source: https://github.com/deepseek-ai/Janus (janus/models: modeling_vlm.py, clip_encoder.py,
siglip_vit.py, vq_model.py). model_type is "multi_modality"; each part has a class `cls` and its
`params`. There the sizes of SigLIP depend on its name and those of VQ-16 are fixed in code; here
`params` may also spell them out, under the names those files use, so that a model of any size has
such a folder: `width`, `layers`, `heads`, `patch_size`, `mlp_ratio` of the vision tower, `ch`,
`encoder_ch_mult`, `num_res_blocks`, `z_channels` of the image tokenizer.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unitok.checkpoints.adapter import Stored, renaming
from unitok.checkpoints.settings import MAX_FIELDS, Settings, fields_to_json
from unitok.families.common.llama import LLAMA, llama_names, read_decoder
from unitok.families.common.siglip import SIGLIP_LARGE, SIGLIP_SO400M
from unitok.families.janus.config import decoder_to_json, ratio, read_codes
from unitok.nn.config import JanusConfig, VisionConfig
from unitok.shown import shown
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.llamagen import original_name

# --- names ---------------------------------------------------------------------------------------

TOWER = "vision_model.vision_tower."
IMAGE_TOKENIZER = "gen_vision_model."
FUSED = ("q", "k", "v")  # one tensor, in this order
DROPPED = (
    r"vision_model\.vision_tower\.attn_pool\..*",
    r"gen_vision_model\.quantize\.codebook_used",
)

names = renaming([
    *llama_names("language_model.model", "language_model.lm_head"),
    (r"^image_embedding\.", "gen_embed."),
    (r"^image_aligner\.fc1\.", "gen_aligner.layers.0."),
    (r"^image_aligner\.fc2\.", "gen_aligner.layers.2."),
    (r"^image_head\.fc1\.", "gen_head.output_mlp_projector."),
    (r"^image_head\.fc2\.", "gen_head.vision_head."),
    (r"^vision\.patch_embedding\.", f"{TOWER}patch_embed.proj."),
    (r"^vision\.position_embedding\.weight$", f"{TOWER}pos_embed"),
    (r"^vision\.blocks\.(\d+)\.attention\.o\.", rf"{TOWER}blocks.\1.attn.proj."),
    (r"^vision\.blocks\.(\d+)\.attention\.[qkv]\.", rf"{TOWER}blocks.\1.attn.qkv."),
    (r"^vision\.blocks\.", f"{TOWER}blocks."),
    (r"^vision\.norm\.", f"{TOWER}norm."),
    (r"^vision_aligner\.fc1\.", "aligner.layers.0."),
    (r"^vision_aligner\.fc2\.", "aligner.layers.2."),
])  # fmt: skip


def adapter(key: str) -> Stored:
    """Where a parameter of ours is stored in such a folder."""
    if key.startswith("image_tokenizer."):
        return Stored(IMAGE_TOKENIZER + original_name(key.removeprefix("image_tokenizer.")))
    name = names(key).name
    if ".attn.qkv." in name:
        return Stored(name, FUSED.index(key.split(".")[-2]), len(FUSED))
    if name == f"{TOWER}pos_embed":  # [1, patches, width]
        return Stored(name, load=lambda t: t.squeeze(0), store=lambda t: t.unsqueeze(0))
    return Stored(name)


# --- config.json ---------------------------------------------------------------------------------

# Sizes by name, as siglip_vit.py has them, with GELU and the ratio of the MLP; Janus's is the
# first. The image_size that is part of a name is not used.
NAME = "siglip_large_patch16_384"
SO400M = replace(SIGLIP_SO400M, activation="gelu"), 3.7362
TOWERS: Mapping[str, tuple[VisionConfig, float]] = {
    NAME: (SIGLIP_LARGE, 4.0),
    "siglip_so400m_patch14_384": SO400M,
    "siglip_so400m_patch14_224": SO400M,
}
TOWER_FIELDS = {
    "patch_size": "patch_size",
    "width": "hidden_size",
    "layers": "layers",
    "heads": "heads",
}
CODES_FIELDS = {
    "image_token_size": "codebook_size",
    "n_embed": "code_dim",
    "z_channels": "latent_channels",
    "ch": "base_channels",
    "encoder_ch_mult": "channel_multiplier",
    "num_res_blocks": "res_blocks",
    "encoder": "encoder",
    "patch_width": "patch_width",
}
CLASSES = {  # of each part; the original looks for the name anywhere in `cls`
    "vision": "CLIPVisionTower",
    "aligner": "MlpProjector",
    "gen_vision": "VQ-16",
    "gen_aligner": "MlpProjector",
    "gen_head": "vision_head",
}
READ = {*(f"{part}_config" for part in CLASSES), "language_config"}
# SigLIP's select_feature is always "same"; the last two are of use in training alone.
TOWER_READ = (*TOWER_FIELDS, "mlp_ratio", "image_size", "model_name", "select_layer")
TOWER_IGNORED = ("select_feature", "ckpt_path", "weight_init")
TOWER_REQUIRED = {
    "select_layers": (None,),
    "pixel_mean": (None,),
    "pixel_std": (None,),
    "ignore_head": (True,),
}
ALIGNER_REQUIRED = {"projector_type": ("mlp_gelu",), "depth": (2,)}


def config_from_json(config: Settings) -> JanusConfig:
    """Read config.json; absent values are those of the original's code.

    Raises:
        ValueError: Another model, a setting that would change the maths, a value of the wrong
            type, or an unknown setting if loading is strict.
    """
    config.check(READ, model_type="multi_modality")
    params = {part: read_part(config, part, cls) for part, cls in CLASSES.items()}
    for part in ("aligner", "gen_aligner"):
        stated = replace(params[part], data={"depth": 1, **params[part].data})
        stated.check(["input_dim", "n_embed"], ALIGNER_REQUIRED)
    params["gen_head"].check(["n_embed", "image_token_embed", "image_token_size"])
    vision, codes = read_tower(params["vision"]), params["gen_vision"]
    codes.check([*CODES_FIELDS, "decoder_ch_mult"], {})
    image_tokenizer = read_codes(codes, CODES_FIELDS, vision)
    multiplier = image_tokenizer.channel_multiplier
    if codes.ints_setting("decoder_ch_mult", multiplier) != multiplier:
        raise ValueError(f"{codes.where}: encoder_ch_mult and decoder_ch_mult differ")
    decoder = read_decoder(config.section("language_config"), LLAMA, "llama")
    return JanusConfig(decoder, vision, image_tokenizer)


def read_part(config: Settings, part: str, cls: str) -> Settings:
    """The params of a part, which must be of the class that Janus has there."""
    key, where = f"{part}_config", f"{config.where}: {part}_config"
    if not isinstance(config.data.get(key), Mapping):
        raise ValueError(
            f"config.json has no {key}: a multi_modality folder, but not of Janus or "
            "Janus-Pro (of JanusFlow or DeepSeek-VL?)"
        )
    around = config.section(key, where)
    if cls not in str(around.data.get("cls")):
        raise ValueError(f"{where}: cls is {shown(around.data.get('cls'))}; Janus's is {cls!r}")
    around.check(["cls", "params"], model_type=part)
    return around.section("params", where)


def read_tower(params: Settings) -> VisionConfig:
    """The sizes of the vision tower, up to the layer whose embeddings are taken."""
    name = params.data.get("model_name", NAME)
    params.check([*TOWER_READ, *TOWER_IGNORED], TOWER_REQUIRED)
    if name not in TOWERS:
        raise ValueError(
            f"{params.where}: model_name must be one of {', '.join(TOWERS)}, not {shown(name)}"
        )
    named, mlp_ratio = TOWERS[name]
    tower = replace(named, **params.fields(TOWER_FIELDS, named))
    layers, select = tower.layers, params.data.get("select_layer", -2)
    if not isinstance(select, int) or select < -layers:
        raise ValueError(f"{params.where}: select_layer {select!r} is none of {layers} layers")
    return replace(
        tower,
        image_size=params.int_setting("image_size", 336, MAX_FIELDS["image_size"]),
        intermediate_size=params.scaled_setting("mlp_ratio", mlp_ratio, tower.hidden_size),
        layers=min(layers, layers + select + 1 if select <= 0 else select),
    )


def config_to_json(config: JanusConfig, dtype: str, tied: bool) -> dict[str, Any]:
    """Write config.json; what equals the sizes fixed in the original's code is left out.

    Args:
        config: The sizes.
        dtype: The type of the weights.
        tied: Whether the text head is the text embedding, and so not stored.

    Raises:
        ValueError: Such a folder cannot say this.
    """
    size, codes = config.decoder.hidden_size, config.image_tokenizer
    params: dict[str, dict[str, Any]] = {
        "vision": tower_to_json(config.vision),
        "aligner": aligner_to_json(config.vision.hidden_size, size),
        "gen_vision": codes_to_json(codes),
        "gen_aligner": aligner_to_json(codes.code_dim, size),
        "gen_head": {
            "n_embed": size,
            "image_token_embed": size,
            "image_token_size": codes.codebook_size,
        },
    }
    parts = {
        f"{part}_config": {"model_type": part, "cls": CLASSES[part], "params": params[part]}
        for part in CLASSES
    }
    language = {"torch_dtype": dtype, "rope_theta": config.decoder.rope_theta}
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        **parts,
        "language_config": decoder_to_json(config.decoder, tied) | language,
    }


def aligner_to_json(size_in: int, size_out: int) -> dict[str, Any]:
    """The params of an aligner."""
    return {"projector_type": "mlp_gelu", "depth": 2, "input_dim": size_in, "n_embed": size_out}


def tower_to_json(vision: VisionConfig) -> dict[str, Any]:
    """The params of the vision tower; ValueError for what such a folder cannot say."""
    if vision.norm_eps != 1e-6 or vision.activation != "gelu":
        raise ValueError("the original layout knows only GELU and norms of eps 1e-6")

    def sizes(tower: VisionConfig) -> dict[str, Any]:
        mlp_ratio = ratio(tower.intermediate_size, tower.hidden_size)
        return fields_to_json(TOWER_FIELDS, tower) | {"mlp_ratio": mlp_ratio}

    named = {"image_size": vision.image_size, "model_name": NAME, "select_feature": "same"}
    return named | {"select_layer": -1} | changed(sizes(vision), sizes(SIGLIP_LARGE))


def codes_to_json(codes: AutoencoderConfig) -> dict[str, Any]:
    """The params of the image tokenizer."""
    sizes, usual = (fields_to_json(CODES_FIELDS, c) for c in (codes, AutoencoderConfig()))
    named = {key: sizes[key] for key in ("image_token_size", "n_embed")}
    others = changed(sizes, usual)
    if "encoder_ch_mult" in others:
        others["decoder_ch_mult"] = others["encoder_ch_mult"]
    return named | others


def changed(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the usual."""
    return {key: value for key, value in values.items() if value != usual[key]}
