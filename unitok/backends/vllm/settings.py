# pyright: reportMissingImports=false
"""What vLLM is told of the model's sizes, and what it is refused.

vLLM sizes its buffers, its cache and its kernels by the config. With two streams there are twice as
many heads, wider embeddings and more ids than config.json says.
"""

import copy
from typing import Any

from vllm.model_executor.models.config import VerifyAndUpdateConfig

from unitok.backends.vllm.checkpoint import open_checkpoint
from unitok.backends.vllm.layout import KEY, STREAMS, TokenLayout
from unitok.shown import shown


class ModelSettings(VerifyAndUpdateConfig):
    """vLLM calls these when it makes its config, before any process starts."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        """Write the sizes of two streams into the config.

        Args:
            model_config: vLLM's `ModelConfig`.

        Raises:
            ValueError: The folder is not one that can be served.
        """
        hf_config = model_config.hf_config
        if hasattr(hf_config, KEY):
            return
        folder = open_checkpoint(model_config.model, model_config.revision)
        layout = TokenLayout.of_folder(folder, read_streams(hf_config))
        layout.to_config(hf_config)
        widen(model_config.hf_text_config, layout)
        model_config.model_arch_config = model_config.get_model_arch_config()

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """Refuse what would give other pictures, or end in the middle of loading.

        Args:
            vllm_config: vLLM's `VllmConfig`.

        Raises:
            ValueError: The reason.
        """
        layout = TokenLayout.of_config(vllm_config.model_config.hf_config)
        if vllm_config.speculative_config is not None and layout.draws:
            raise ValueError(
                "with speculative decoding vLLM runs no logits processors, and drawings need one: "
                f"leave it out, or serve text alone with --hf-overrides '{{\"{STREAMS}\": 1}}'"
            )
        text = one_stream(vllm_config.model_config.hf_text_config, layout)
        check_parallel(text, layout, vllm_config.parallel_config.tensor_parallel_size)


def read_streams(hf_config: Any) -> int:
    """How many streams --hf-overrides asks for; ValueError for anything but 1 and 2."""
    streams = getattr(hf_config, STREAMS, 2)
    if streams not in (1, 2) or isinstance(streams, bool):
        raise ValueError(f"{STREAMS} must be 2, or 1 to serve text alone, not {shown(streams)}")
    return streams


def widen(text_config: Any, layout: TokenLayout) -> None:
    """Turn the config of the decoder into what vLLM sees: all streams as one."""
    streams = layout.streams
    heads, size = text_config.num_attention_heads, text_config.hidden_size
    text_config.head_dim = getattr(text_config, "head_dim", None) or size // heads
    text_config.num_key_value_heads = (text_config.num_key_value_heads or heads) * streams
    text_config.num_attention_heads = heads * streams
    text_config.vocab_size = layout.size
    # vLLM takes this for the width of embeddings.
    text_config.projection_dim = embedding_width(size, layout)


def one_stream(text_config: Any, layout: TokenLayout) -> Any:
    """The inverse of `widen`: a copy of the config with the sizes of the decoder itself."""
    own = copy.deepcopy(text_config)
    own.num_attention_heads //= layout.streams
    own.num_key_value_heads //= layout.streams
    own.vocab_size = layout.text_size
    return own


def embedding_width(size: int, layout: TokenLayout) -> int:
    """Numbers of an embedding: those of each stream, and with two, whether the row paints."""
    return 2 * size + 1 if layout.draws else size


def check_parallel(text_config: Any, layout: TokenLayout, ranks: int) -> None:
    """Raise ValueError if so many ranks of tensor parallelism do not share the model evenly."""
    sizes = {
        "attention heads": text_config.num_attention_heads,
        "key and value heads": text_config.num_key_value_heads,
        "numbers inside an MLP": text_config.intermediate_size,
        **({"image ids": layout.image_size} if layout.draws else {}),
    }
    for what, size in sizes.items():
        if size % ranks:
            raise ValueError(
                f"a tensor parallel size of {ranks} does not divide the model's {size} {what}; it "
                f"must divide {', '.join(f'{n} {w}' for w, n in sizes.items())}"
            )
