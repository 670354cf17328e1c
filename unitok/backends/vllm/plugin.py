# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""What vLLM calls in each of its processes, by the entry point `vllm.general_plugins`."""

from pathlib import Path

from unitok.backends.vllm.versions import refusal, warning

# What config.json calls the class, in transformers' folders and in DeepSeek's own.
ARCHITECTURES = ("JanusForConditionalGeneration", "MultiModalityCausalLM")
MODEL = "unitok.backends.vllm.model:TwoStreamJanus"


def register() -> None:
    """Make Janus known to vLLM; it may be called more than once.

    Raises:
        ImportError: This vLLM lacks a part that the plugin needs; the message names versions that
            have it.
    """
    import vllm
    from vllm.logger import init_logger

    if told := warning(vllm.__version__):
        init_logger("vllm.plugins.unitok").warning(told)
    try:
        register_model()
        register_template()
    except ImportError as error:
        if not (error.name or "").startswith("vllm"):  # a library of ours is missing
            raise
        raise ImportError(refusal(vllm.__version__, error)) from error


def register_model() -> None:
    """The model's class, named but not imported, and what prepares its config."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from unitok.backends.vllm.config import register_config
    from unitok.backends.vllm.settings import ModelSettings

    register_config()
    for architecture in ARCHITECTURES:
        ModelRegistry.register_model(architecture, MODEL)
        MODELS_CONFIG_MAP[architecture] = ModelSettings


def register_template() -> None:
    """The conversation format for folders that bring no chat template."""
    from vllm.transformers_utils.chat_templates import registry

    for model_type in ("janus", "multi_modality"):
        registry._MODEL_TYPE_TO_CHAT_TEMPLATE_FALLBACK[model_type] = chat_template


def chat_template(tokenizer: str) -> Path:
    """A file with the conversation format of a folder.

    Args:
        tokenizer: The folder or the hub id.
    """
    from unitok.backends.vllm.chat_template import write_template
    from unitok.backends.vllm.checkpoint import open_checkpoint

    return write_template(open_checkpoint(tokenizer))
