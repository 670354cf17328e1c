"""SigLIP towers (https://arxiv.org/abs/2303.15343), as transformers stores them."""

from collections.abc import Callable

from torch import Tensor

from unitok.nn.config import VisionConfig
from unitok.prompt import ImageEncoderBatch
from unitok_engine import Embeddings

SIGLIP_LARGE = VisionConfig(  # large-patch16-384
    image_size=384, patch_size=16, hidden_size=1024, intermediate_size=4096, layers=24, heads=16
)
SIGLIP_SO400M = VisionConfig(  # so400m-patch14-384
    image_size=384,
    patch_size=14,
    hidden_size=1152,
    intermediate_size=4304,
    layers=27,
    heads=16,
    activation="gelu_tanh",
)
SIGLIP_FIELDS = {  # but for the width of the MLP, which Janus gives as a ratio
    "image_size": "image_size",
    "patch_size": "patch_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "layer_norm_eps": "norm_eps",
}


def siglip_names(tower: str, output: str) -> tuple[tuple[str, str], ...]:
    """Our names of a vision encoder's parameters -> a checkpoint's, for `renaming`.

    Args:
        tower: What the tower is called there.
        output: What the output projection of its attention is called there.
    """
    layer = rf"{tower}.encoder.layers.\1."
    return (
        (r"^vision\.(patch|position)_embedding\.", rf"{tower}.embeddings.\1_embedding."),
        (r"^vision\.blocks\.(\d+)\.norm(\d)\.", rf"{layer}layer_norm\2."),
        (r"^vision\.blocks\.(\d+)\.attention\.o\.", rf"{layer}self_attn.{output}."),
        (r"^vision\.blocks\.(\d+)\.attention\.(\w)\.", rf"{layer}self_attn.\2_proj."),
        (r"^vision\.blocks\.(\d+)\.mlp\.", f"{layer}mlp."),
        (r"^vision\.norm\.", f"{tower}.post_layernorm."),
    )


def vision_embeddings(
    pixels: Tensor,
    digest: str,
    encode: Callable[[Tensor], Tensor],
    length: int,
    placeholder: int,
) -> Embeddings:
    """What stands in a prompt for a picture that the tower encodes.

    Args:
        pixels: Of the picture, normalised, [3, S, S].
        digest: Names them.
        encode: Pixels [B, 3, S, S] -> embeddings [B, n, d], called when they are needed.
        length: How many embeddings a picture has, n.
        placeholder: The id that prompts hold in their places.
    """
    encoder = ImageEncoderBatch(encode)
    return Embeddings(
        start=0,
        length=length,
        digest=digest,
        compute=lambda: encoder([pixels])[0],
        payload=pixels,
        compute_many=encoder,
        placeholder=placeholder,
    )
