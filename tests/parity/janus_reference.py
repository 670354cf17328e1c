"""Small random Janus models of transformers in odd shapes, their folders, and a tokenizer for them.

Weights are drawn so that what comes out depends on all that goes in: every layer keeps its input's
scale, biases and norms are not at their starting values, codebook rows have any length.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
PICTURE = ("<image_placeholder>", "<begin_of_image>", "<end_of_image>")
ROLES = ("<|User|>", "<|Assistant|>")
CORPUS = """You are a helpful language and vision assistant. You are able to understand the visual
content that the user provides, and assist the user with tasks using natural language. Describe the
picture. How many cats are left of the house? Two apples on a blue background, 图片里有什么？ User:
Assistant: a portrait of a young girl, masterpiece, film grained, best quality""".split("\n")


@dataclass(frozen=True)
class Shape:
    """Sizes; the text's vocabulary is a little larger than the tokenizer's."""

    text: dict[str, Any]
    vision: dict[str, Any]
    vq: dict[str, Any]
    vocab_size: int = 411
    context: int = 640


SHAPES = {
    "grouped heads": Shape(
        text={
            "hidden_size": 48,
            "intermediate_size": 77,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
        },
        vision={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 48,
            "patch_size": 12,
            "mlp_ratio": 2.5,
        },
        vq={
            "embed_dim": 8,
            "num_embeddings": 50,
            "latent_channels": 24,
            "base_channels": 32,
            "channel_multiplier": [1, 2, 1],
            "num_res_blocks": 1,
        },
    ),
    "wide heads": Shape(
        text={
            "hidden_size": 40,
            "intermediate_size": 131,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 16,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500.0,
        },
        vision={
            "hidden_size": 36,
            "num_hidden_layers": 1,
            "num_attention_heads": 3,
            "image_size": 75,
            "patch_size": 15,
            "mlp_ratio": 3.7362,
        },
        vq={
            "embed_dim": 5,
            "num_embeddings": 97,
            "latent_channels": 20,
            "base_channels": 32,
            "channel_multiplier": [2, 1],
            "num_res_blocks": 2,
        },
    ),
    "one key head": Shape(
        text={
            "hidden_size": 64,
            "intermediate_size": 50,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
        },
        vision={
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 56,
            "patch_size": 8,
            "mlp_ratio": 4.0,
        },
        vq={
            "embed_dim": 8,
            "num_embeddings": 160,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 2, 2, 3],
            "num_res_blocks": 2,
        },
    ),
}


def reference(shape: Shape, tokenizer: Tokenizer, tied: bool = False) -> Any:
    """transformers' model of this shape."""
    text = {"vocab_size": shape.vocab_size, "max_position_embeddings": shape.context}
    theta = shape.text.get("rope_theta", 10000.0)
    rope: Any = {"rope_type": "default", "rope_theta": theta}
    rest: Any = {k: v for k, v in shape.text.items() if k != "rope_theta"}
    size = shape.text["hidden_size"]
    patches = (shape.vision["image_size"] // shape.vision["patch_size"]) ** 2
    config = JanusConfig(
        text_config=LlamaConfig(**text, **rest, rope_parameters=rope),
        vision_config=JanusVisionConfig(
            **shape.vision, projection_dim=size, num_image_tokens=patches
        ),
        vq_config=JanusVQVAEConfig(**shape.vq, projection_dim=size, image_token_embed_dim=size),
        image_token_id=tokenizer.token_to_id(PICTURE[0]) or 0,
        tie_word_embeddings=tied,
    )
    model: Any = JanusForConditionalGeneration(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.named_parameters():
        draw(name, tensor, generator)
    return model


def draw(name: str, tensor: Tensor, generator: torch.Generator) -> None:
    noise = torch.randn(tensor.shape, generator=generator)
    if tensor.ndim == 1:
        is_scale_of_norm = "norm" in name and name.endswith("weight")
        scale, start = 0.1, float(is_scale_of_norm)
    elif "embed" in name and tensor.ndim == 2:
        scale, start = 1.0, 0.0
    else:
        scale, start = 1 / math.sqrt(math.prod(tensor.shape[1:])), 0.0
    if "decoder.conv_out" in name:
        scale *= 0.4  # pixels in about [-1, 1], as a trained net's are
    tensor.copy_(noise * scale + start)


def make_tokenizer(roles: tuple[str, ...] = ROLES) -> Tokenizer:
    """Byte-level BPE with the special tokens of Janus; it puts BOS before a text, as DeepSeek's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([  # type: ignore[assignment]
        pre_tokenizers.Split("\n", "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    names = [BOS, EOS, PAD, *PICTURE, *roles]
    tokenizer.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    bos = (BOS, tokenizer.token_to_id(BOS))
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=[BOS, "$A"], special_tokens=[bos]
    )
    return tokenizer


def write_words(folder: Path, tokenizer: Tokenizer) -> None:
    """tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    pictures = dict(zip(("image_token", "boi_token", "eoi_token"), PICTURE, strict=True))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": pictures}
    config |= {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_preprocessor(folder: Path, size: int, original: bool = False) -> None:
    common = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "min_size": 14}
    square = {"height": size, "width": size}
    sizes = {"image_size": size} if original else {"size": square, "do_pad": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(common | sizes))


def write_folder(folder: Path, model: Any, tokenizer: Tokenizer) -> Path:
    """As transformers writes it, with the files of the processor."""
    model.save_pretrained(folder)
    write_words(folder, tokenizer)
    write_preprocessor(folder, model.config.vision_config.image_size)
    return folder


def generation(tokenizer: Tokenizer, **changes: Any) -> Any:
    """Greedy generation, with what drawing needs."""
    config: Any = GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
        **changes,
    )
    config.generation_kwargs = {"boi_token_id": tokenizer.token_to_id("<begin_of_image>")}
    return config
