"""Sizes of a model, as frozen dataclasses, and the named ones."""

from dataclasses import dataclass
from typing import Literal, Protocol

from unitok_tokenizers.autoencoder import AutoencoderConfig

MAX_ROTATIONS = 2**26
"""The most numbers in the table of rotations, which is `max_positions` times `head_dim`."""

Activation = Literal["gelu", "gelu_tanh"]
"""The activations of a vision encoder."""


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder as in Llama, https://arxiv.org/abs/2302.13971, with grouped-query heads.

    Attributes:
        vocab_size: The number of text ids, which includes image ids that lie among them.
        hidden_size: The width of embeddings and hidden states.
        intermediate_size: The width inside an MLP.
        layers: The number of blocks.
        heads: The number of query heads, a multiple of `kv_heads`.
        kv_heads: The number of key and value heads.
        head_dim: The width of a head.
        max_positions: The number of positions that have a rotation, and so the longest context.
        rope_theta: The base of the rotations' wavelengths.
        norm_eps: What is added to the mean square in an RMSNorm.
        qk_norm: Whether each head's queries and keys go through a LayerNorm (Chameleon).
        post_norm: Whether norms stand behind attention and MLP, not before (Chameleon 30B).
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    qk_norm: bool = False
    post_norm: bool = False

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
            )
        if self.max_positions * self.head_dim > MAX_ROTATIONS:
            raise ValueError(
                f"{self.max_positions} positions times heads of {self.head_dim} numbers are more "
                f"than {MAX_ROTATIONS}, the most that the table of rotations may have"
            )


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a vision encoder as in SigLIP, https://arxiv.org/abs/2303.15343.

    Attributes:
        image_size: The side of a picture in pixels.
        patch_size: The side of a patch in pixels.
        hidden_size: The width of the embeddings, a multiple of `heads`.
        intermediate_size: The width inside an MLP.
        layers: The number of blocks.
        heads: The number of attention heads.
        norm_eps: What is added to the variance in a LayerNorm.
        activation: That of the MLPs.
    """

    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    norm_eps: float = 1e-6
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError(
                f"the vision encoder's hidden_size ({self.hidden_size}) must be a multiple of its "
                f"heads ({self.heads})"
            )

    @property
    def patches(self) -> int:
        """The number of embeddings of a picture."""
        return (self.image_size // self.patch_size) ** 2


class ImageTokenizerConfig(Protocol):
    """What the model needs to know of its image tokenizer."""

    @property
    def codebook_size(self) -> int:
        """The number of codes, and so of image ids."""
        ...

    @property
    def code_dim(self) -> int:
        """The width of a codebook vector."""
        ...


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model that understands pictures and generates them.

    Attributes:
        decoder: The language model.
        vision: The encoder of pictures, if they enter as embeddings (Janus).
        image_tokenizer: Maps pictures to image codes and back.
        image_start: None if image ids follow the text ids and have an embedding and a head of their
            own (Janus); else the first image id inside the vocabulary (Chameleon, Emu3).
    """

    decoder: DecoderConfig
    vision: VisionConfig | None
    image_tokenizer: ImageTokenizerConfig
    image_start: int | None = None


@dataclass(frozen=True)
class JanusConfig(ModelConfig):
    """Sizes of a Janus: it has all the parts, and as many patches as image codes in a picture."""

    vision: VisionConfig
    image_tokenizer: AutoencoderConfig

    def __post_init__(self) -> None:
        if self.vision.patches != self.image_tokenizer.grid**2:
            raise ValueError(
                f"a picture is {self.vision.patches} patches to read but "
                f"{self.image_tokenizer.grid**2} codes to draw; Janus wants both alike"
            )


DEFAULT = JanusConfig(
    decoder=DecoderConfig(
        vocab_size=640,
        hidden_size=256,
        intermediate_size=640,
        layers=6,
        heads=8,
        kv_heads=8,
        head_dim=32,
        max_positions=2048,
    ),
    vision=VisionConfig(
        image_size=64, patch_size=8, hidden_size=128, intermediate_size=512, layers=4, heads=4
    ),
    image_tokenizer=AutoencoderConfig(
        image_size=64,
        codebook_size=1024,
        latent_channels=64,
        base_channels=32,
        channel_multiplier=(1, 1, 2, 3),
        res_blocks=1,
        encoder="patch",
        patch_width=192,
        code_dim=32,
    ),
)
"""The embedded model's shape."""

JANUS_PRO_1B = JanusConfig(
    decoder=DecoderConfig(
        vocab_size=102400,
        hidden_size=2048,
        intermediate_size=5632,
        layers=24,
        heads=16,
        kv_heads=16,
        head_dim=128,
        max_positions=16384,
    ),
    vision=VisionConfig(
        image_size=384, patch_size=16, hidden_size=1024, intermediate_size=4096, layers=24, heads=16
    ),
    image_tokenizer=AutoencoderConfig(),
)
"""The shape of Janus-Pro-1B, https://arxiv.org/abs/2501.17811."""
