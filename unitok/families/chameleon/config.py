"""The sizes of Chameleon: transformers' config.json, and Meta's vqgan.yaml."""

from dataclasses import replace
from pathlib import Path

import yaml

from unitok.checkpoints.settings import Settings
from unitok.families.common.llama import read_decoder
from unitok.families.common.vqgan import VQGAN_FIELDS, VQGAN_REQUIRED, from_taming_names
from unitok.nn.config import DecoderConfig
from unitok_tokenizers.autoencoder import AutoencoderConfig
from unitok_tokenizers.bounded_files import read_text

CHAMELEON = DecoderConfig(  # what transformers takes for absent settings: the 7B model
    vocab_size=65536,
    hidden_size=4096,
    intermediate_size=11008,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    max_positions=4096,
    norm_eps=1e-5,
    qk_norm=True,
)
CHAMELEON_VQGAN = AutoencoderConfig(
    image_size=512,
    codebook_size=8192,
    code_dim=256,
    quantizer="euclidean",
    attention=False,
    decoder=False,
)
# Ids are found by name; the last two are of use in training, or for transformers' mask alone.
ALSO_READ = """swin_norm model_parallel_size vq_config vocabulary_map image_token_id boi_token_id
    eoi_token_id vision_config mask_image_logits z_loss_weight""".split()
VQ_FIELDS = {"resolution": "image_size", **VQGAN_FIELDS}
VQ_REQUIRED = {
    **VQGAN_REQUIRED,
    "double_z": (False,),
    "out_ch": (3,),
    "use_linear_attn": (False,),
    "resamp_with_conv": (True,),
    "give_pre_end": (False,),
    "tanh_out": (False,),
    "remap": (None,),
}
# Sizes in vqgan.yaml, and what is of use in training alone. Converted folders repeat both after
# transformers' own names.
MAX_YAML = 2**16  # bytes; Meta's file has 1,400
YAML_SIZES = ("n_embed", "z_channels", "ch", "ch_mult")
VQ_IGNORED = """lossconfig ckpt_path monitor scheduler_config ignore_keys image_key
    colorize_nlabels lr_g_factor sane_index_shape""".split()


def config_from_json(config: Settings) -> tuple[DecoderConfig, AutoencoderConfig]:
    """Read config.json: the sizes of the decoder and of the VQGAN's encoder.

    Raises:
        ValueError: A setting would change the maths, a value has the wrong type, or a setting is
            unknown and loading is strict.
    """
    decoder = read_decoder(config, CHAMELEON, "chameleon", also=ALSO_READ)
    if config.bool_setting("tie_word_embeddings", False):
        raise ValueError(f"{config.where}: tie_word_embeddings = True is not supported")
    post_norm = config.bool_setting("swin_norm", False)
    return replace(decoder, post_norm=post_norm), read_autoencoder(config.section("vq_config"))


def read_autoencoder(vq: Settings) -> AutoencoderConfig:
    """The sizes of a VQGAN under transformers' names; it is taken to have no decoder.

    Raises:
        ValueError: As in `config_from_json`.
    """
    read = (*VQ_FIELDS, "attn_resolutions", *YAML_SIZES, *VQ_IGNORED)
    vq.check(read, VQ_REQUIRED, "chameleon_vqgan")
    codes = replace(CHAMELEON_VQGAN, **vq.fields(VQ_FIELDS, CHAMELEON_VQGAN))
    attention = vq.data.get("attn_resolutions") or []
    if attention not in ([], [codes.grid]):
        raise ValueError(
            f"{vq.where}: attn_resolutions {attention} is neither [] nor [{codes.grid}]"
        )
    return replace(codes, attention=bool(attention))


def read_vqgan_yaml(path: Path, strict: bool = False) -> AutoencoderConfig:
    """The sizes in Meta's vqgan.yaml.

    Raises:
        ValueError: It cannot be read, or as in `config_from_json`.
    """
    text = read_text(path, MAX_YAML)
    try:
        params = yaml.safe_load(text)["model"]["params"]
        vq = {k: v for k, v in params.items() if k != "ddconfig"} | params["ddconfig"]
        complete = vq.keys() >= set(YAML_SIZES)
    except (yaml.YAMLError, RecursionError, KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise ValueError(f"{path} is no VQGAN's settings")
    return read_autoencoder(Settings(from_taming_names(vq), str(path), strict))
