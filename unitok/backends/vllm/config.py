# pyright: reportMissingImports=false
"""DeepSeek's own config.json as transformers' AutoConfig reads it for vLLM."""

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, LlamaConfig, PreTrainedConfig


class OriginalJanusConfig(PreTrainedConfig):
    """The config of `multi_modality`, which transformers does not know.

    vLLM needs the decoder's part. The rest is read by unitok's own reader, from the folder.
    """

    model_type = "multi_modality"

    def __init__(self, language_config: Mapping[str, Any] | None = None, **others: Any) -> None:
        """Keep the decoder's settings as `text_config`.

        Args:
            language_config: The decoder's settings.
            others: All else.
        """
        language = dict(language_config or {})
        self.text_config = LlamaConfig(**language)
        others.setdefault("torch_dtype", language.get("torch_dtype"))
        others.setdefault("tie_word_embeddings", language.get("tie_word_embeddings", False))
        super().__init__(**others)


def register_config() -> None:
    """Make it known to transformers."""
    AutoConfig.register(OriginalJanusConfig.model_type, OriginalJanusConfig, exist_ok=True)
