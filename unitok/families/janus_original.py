"""The folders in which DeepSeek published Janus and Janus-Pro: config.json and names of weights.

Source: https://github.com/deepseek-ai/Janus (janus/models: modeling_vlm.py, clip_encoder.py,
siglip_vit.py, vq_model.py). model_type is "multi_modality"; each part has a class `cls` and its
`params`. There the sizes of SigLIP hang on its name and those of VQ-16 are fixed in code; here
`params` may also spell them out, under the names those files use, so that a model of any size has
such a folder: `width`, `layers`, `heads`, `patch_size`, `mlp_ratio` of the vision tower, `ch`,
`encoder_ch_mult`, `num_res_blocks`, `z_channels` of the image tokenizer.
"""

from collections.abc import Mapping
from typing import Any

from unitok.checkpoints.settings import check_settings, real, section, whole, wholes
from unitok.checkpoints.weights import Stored, renaming
from unitok.families.common.llama import LLAMA, llama_names, read_decoder
from unitok.nn.config import JanusConfig, VisionConfig
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.llamagen import original_name

# --- names ---------------------------------------------------------------------------------------

TOWER = "vision_model.vision_tower."
PAINTING = "gen_vision_model."
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


def layout(key: str) -> Stored:
    """Where a parameter of ours lies in such a folder."""
    if key.startswith("image_tokenizer."):
        return Stored(PAINTING + original_name(key.removeprefix("image_tokenizer.")))
    name = names(key).name
    if ".attn.qkv." in name:
        return Stored(name, FUSED.index(key.split(".")[-2]), len(FUSED))
    if name == f"{TOWER}pos_embed":  # [1, patches, width]
        return Stored(name, load=lambda t: t.squeeze(0), store=lambda t: t.unsqueeze(0))
    return Stored(name)


# --- config.json ---------------------------------------------------------------------------------

# Sizes by name, as siglip_vit.py has them; Janus's is the first. Its own image_size is not used.
TOWERS: Mapping[str, Mapping[str, Any]] = {
    "siglip_large_patch16_384": {
        "patch_size": 16, "width": 1024, "layers": 24, "heads": 16, "mlp_ratio": 4,
    },
    "siglip_so400m_patch14_384": {
        "patch_size": 14, "width": 1152, "layers": 27, "heads": 16, "mlp_ratio": 3.7362,
    },
    "siglip_so400m_patch14_224": {
        "patch_size": 14, "width": 1152, "layers": 27, "heads": 16, "mlp_ratio": 3.7362,
    },
}  # fmt: skip
NAME = "siglip_large_patch16_384"
VQ16 = AutoencoderConfig()
CLASSES = {  # of each part; the original looks for the name anywhere in `cls`
    "vision": "CLIPVisionTower",
    "aligner": "MlpProjector",
    "gen_vision": "VQ-16",
    "gen_aligner": "MlpProjector",
    "gen_head": "vision_head",
}
READ = {*(f"{part}_config" for part in CLASSES), "language_config"}
TOWER_READ = "image_size model_name select_layer width layers heads patch_size mlp_ratio".split()
TOWER_NEUTRAL = {
    "select_layers": (None,),
    "pixel_mean": (None,),
    "pixel_std": (None,),
    "ignore_head": (True,),
}
TOWER_HARMLESS = ["select_feature", "ckpt_path", "weight_init"]  # SigLIP's is always "same"
VQ_READ = """image_token_size n_embed ch encoder_ch_mult decoder_ch_mult num_res_blocks z_channels
    encoder patch_width""".split()
ALIGNER_NEUTRAL = {"projector_type": ("mlp_gelu",), "depth": (2,)}


def config_from_json(data: Mapping[str, Any]) -> JanusConfig:
    """The dictionary of config.json -> JanusConfig; absent values are those of the original's code.

    Raises:
        ValueError: another model, a setting that would change the maths or that we do not know, a
            value of the wrong type.
    """
    where = "config.json"
    check_settings(data, where, READ, model_type="multi_modality")
    params = {part: read_part(data, part, cls) for part, cls in CLASSES.items()}
    for part in ("aligner", "gen_aligner"):
        stated = {"depth": 1, **params[part]}
        check_settings(stated, f"{part}_config", ["input_dim", "n_embed"], ALIGNER_NEUTRAL)
    check_settings(
        params["gen_head"], "gen_head_config", ["n_embed", "image_token_embed", "image_token_size"]
    )
    reading = read_tower(params["vision"])
    language = section(data, "language_config", where)
    decoder = read_decoder(language, f"language_config of {where}", LLAMA, "llama")
    return JanusConfig(decoder, reading, read_painting(params["gen_vision"], reading))


def read_part(data: Mapping[str, Any], part: str, cls: str) -> Mapping[str, Any]:
    """The params of a part, which must be of the class that Janus has there."""
    config = data.get(f"{part}_config")
    if not isinstance(config, Mapping):
        raise ValueError(
            f"config.json has no {part}_config: a multi_modality folder, but not of Janus or "
            "Janus-Pro (of JanusFlow or DeepSeek-VL?)"
        )
    if cls not in str(config.get("cls")):
        raise ValueError(f"{part}_config: cls is {config.get('cls')!r}; Janus's is {cls!r}")
    check_settings(config, f"{part}_config", ["cls", "params"], model_type=part)
    return section(config, "params", f"{part}_config")


def read_tower(params: Mapping[str, Any]) -> VisionConfig:
    where, name = "vision_config", params.get("model_name", NAME)
    check_settings(params, where, [*TOWER_READ, *TOWER_HARMLESS], TOWER_NEUTRAL)
    if name not in TOWERS:
        raise ValueError(f"{where}: model_name must be one of {', '.join(TOWERS)}, not {name!r}")
    sizes = {**TOWERS[name], **params}
    width, layers = (whole(sizes, key, 1, where) for key in ("width", "layers"))
    select = params.get("select_layer", -2)
    if not isinstance(select, int) or select < -layers:
        raise ValueError(f"{where}: select_layer {select!r} is none of {layers} layers")
    return VisionConfig(
        image_size=whole(params, "image_size", 336, where),
        patch_size=whole(sizes, "patch_size", 1, where),
        hidden_size=width,
        intermediate_size=int(width * real(sizes, "mlp_ratio", 1, where)),
        layers=min(layers, layers + select + 1 if select <= 0 else select),
        heads=whole(sizes, "heads", 1, where),
    )


def read_painting(params: Mapping[str, Any], reading: VisionConfig) -> AutoencoderConfig:
    where = "gen_vision_config"
    check_settings(params, where, VQ_READ, {})
    multiplier = wholes(params, "encoder_ch_mult", VQ16.channel_multiplier, where)
    if wholes(params, "decoder_ch_mult", multiplier, where) != multiplier:
        raise ValueError(f"{where}: encoder_ch_mult and decoder_ch_mult differ")
    return AutoencoderConfig(
        # As many codes are painted as patches are read.
        image_size=reading.image_size // reading.patch_size * 2 ** (len(multiplier) - 1),
        codebook_size=whole(params, "image_token_size", VQ16.codebook_size, where),
        code_dim=whole(params, "n_embed", VQ16.code_dim, where),
        latent_channels=whole(params, "z_channels", VQ16.latent_channels, where),
        base_channels=whole(params, "ch", VQ16.base_channels, where),
        channel_multiplier=multiplier,
        res_blocks=whole(params, "num_res_blocks", VQ16.res_blocks, where),
        encoder=params.get("encoder", VQ16.encoder),
        patch_width=whole(params, "patch_width", VQ16.patch_width, where),
    )


def config_to_json(config: JanusConfig, dtype: str, tied: bool) -> dict[str, Any]:
    """JanusConfig -> config.json; what equals the sizes fixed in the original's code is left out.

    tied: whether the text head is the text embedding, and so not written.
    """
    d, size = config.decoder, config.decoder.hidden_size
    codes = config.image_tokenizer
    params: dict[str, dict[str, Any]] = {
        "vision": tower_to_json(config.vision),
        "aligner": projector(config.vision.hidden_size, size),
        "gen_vision": painting_to_json(codes),
        "gen_aligner": projector(codes.code_dim, size),
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
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        **parts,
        "language_config": {
            "model_type": "llama",
            "torch_dtype": dtype,
            "vocab_size": d.vocab_size,
            "hidden_size": size,
            "intermediate_size": d.intermediate_size,
            "num_hidden_layers": d.layers,
            "num_attention_heads": d.heads,
            "num_key_value_heads": d.kv_heads,
            "head_dim": d.head_dim,
            "max_position_embeddings": d.max_positions,
            "rms_norm_eps": d.norm_eps,
            "rope_theta": d.rope_theta,
            "tie_word_embeddings": tied,
        },
    }


def projector(size_in: int, size_out: int) -> dict[str, Any]:
    return {"projector_type": "mlp_gelu", "depth": 2, "input_dim": size_in, "n_embed": size_out}


def tower_to_json(vision: VisionConfig) -> dict[str, Any]:
    """Raises ValueError for what such a folder cannot say."""
    if vision.norm_eps != 1e-6 or vision.activation != "gelu":
        raise ValueError("the original layout knows only GELU and norms of eps 1e-6")
    sizes = {
        "patch_size": vision.patch_size,
        "width": vision.hidden_size,
        "layers": vision.layers,
        "heads": vision.heads,
        "mlp_ratio": ratio(vision.intermediate_size, vision.hidden_size),
    }
    named = {"image_size": vision.image_size, "model_name": NAME, "select_feature": "same"}
    return named | {"select_layer": -1} | changed(sizes, TOWERS[NAME])


def painting_to_json(codes: AutoencoderConfig) -> dict[str, Any]:
    def sizes(c: AutoencoderConfig) -> dict[str, Any]:
        multiplier = list(c.channel_multiplier)
        return {
            "z_channels": c.latent_channels,
            "ch": c.base_channels,
            "encoder_ch_mult": multiplier,
            "decoder_ch_mult": multiplier,
            "num_res_blocks": c.res_blocks,
            "encoder": c.encoder,
            "patch_width": c.patch_width,
        }

    named = {"image_token_size": codes.codebook_size, "n_embed": codes.code_dim}
    return named | changed(sizes(codes), sizes(VQ16))


def changed(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value != usual[key]}


def ratio(size: int, width: int) -> float:
    """A ratio of which int(width * ratio), as the readers compute it, gives the size again."""
    quotient = size / width
    return quotient if int(width * quotient) == size else (size + 0.5) / width
