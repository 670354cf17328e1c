"""The sizes of Emu3 in config.json."""

from unitok.checkpoints.settings import Settings
from unitok.families.common.preprocessing import Colour
from unitok.families.common.vqgan import VQGAN_REQUIRED
from unitok.nn.config import DecoderConfig
from unitok_tokenizers.emu3 import Emu3TokenizerConfig

EMU3 = DecoderConfig(  # what both references take for absent settings
    vocab_size=184622,
    hidden_size=4096,
    intermediate_size=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    max_positions=9216,
    rope_theta=1e6,
    norm_eps=1e-5,
)
VQ_FIELDS = {
    "codebook_size": "codebook_size",
    "embed_dim": "code_dim",
    "latent_channels": "latent_channels",
    "base_channels": "base_channels",
    "channel_multiplier": "channel_multiplier",
    "num_res_blocks": "res_blocks",
    "temporal_downsample_factor": "temporal_downsample",
}
VQ_REQUIRED = {**VQGAN_REQUIRED, "num_attention_heads": (1,)}


def read_image_tokenizer(
    vq: Settings, model_type: str, colours: tuple[Colour, Colour]
) -> Emu3TokenizerConfig:
    """The sizes of the image tokenizer.

    Args:
        vq: Its settings, by transformers' names.
        model_type: What they may call themselves.
        colours: Mean and standard deviation, which are the preprocessor's.

    Raises:
        ValueError: A setting would change the maths, a value has the wrong type, sizes do not fit,
            or a setting is unknown and loading is strict.
    """
    vq.check([*VQ_FIELDS, "attn_resolutions", "hidden_size"], VQ_REQUIRED, model_type)
    return Emu3TokenizerConfig(
        **vq.fields(VQ_FIELDS, Emu3TokenizerConfig()),
        attention_stages=vq.ints_setting("attn_resolutions", (3,), least=0),
        mean=colours[0],
        std=colours[1],
    )
