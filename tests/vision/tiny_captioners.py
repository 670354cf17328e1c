"""Folders of tiny random captioners whose processors need torchvision."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tests.parity.tiny_captioners import language_tokenizer, wild
from tests.parity.tiny_scorers import SIZES, save

hf: Any = import_module("transformers")  # whose types know no settings that are made here

PATCH = 8
TEMPLATE = (
    "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}IMAGE"
    "{% else %} {{ c.text }}{% endif %}{% endfor %}{% endfor %} answer :"
)
OF_QWEN = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
IN_QWEN = "<|vision_start|><|image_pad|><|vision_end|>"
OF_INTERNVL = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
IN_INTERNVL = "<IMG_CONTEXT>"
EDGES = {"shortest_edge": 4 * (2 * PATCH) ** 2, "longest_edge": 9 * (2 * PATCH) ** 2}  # pixels


def qwen_folder(folder: Path, kind: str) -> Path:
    """A folder of Qwen2VL, Qwen2_5_VL or Qwen3VL, which take pictures of any shape."""
    tokenizer = with_tokens(OF_QWEN)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in OF_QWEN.items()}
    config = getattr(hf, f"{kind}Config")(
        text_config=qwen_text(kind, tokenizer),
        vision_config=VISION[kind],
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
    )
    torch.manual_seed(4)
    model = getattr(hf, f"{kind}ForConditionalGeneration")(config)
    video = hf.Qwen3VLVideoProcessor if kind == "Qwen3VL" else hf.Qwen2VLVideoProcessor
    processor = getattr(hf, f"{kind}Processor")(
        hf.Qwen2VLImageProcessor(patch_size=PATCH, merge_size=2, size=EDGES),
        tokenizer,
        video(patch_size=PATCH),
        chat_template=TEMPLATE.replace("IMAGE", IN_QWEN),
    )
    return save(folder, wild(model), processor)


def qwen_text(kind: str, tokenizer: Any) -> dict[str, Any]:
    """The settings of the language model."""
    sections = [2, 1, 1]  # of half a head: time, height and width
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    own = {"head_dim": 8} if kind == "Qwen3VL" else {}
    ids = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("pad", "bos", "eos")}
    return {
        **SIZES,
        **own,
        **ids,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "rope_parameters": rope,
    }


VISION: dict[str, dict[str, Any]] = {
    "Qwen2VL": {
        "depth": 2,
        "embed_dim": 32,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": PATCH,
        "hidden_size": 32,
    },
    "Qwen2_5_VL": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": PATCH,
        "window_size": 4 * PATCH,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
    },
    "Qwen3VL": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": PATCH,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    },
}


def internvl_folder(folder: Path) -> Path:
    """A folder of InternVL, whose pictures have 32 pixels a side and 4 tokens."""
    tokenizer = with_tokens(OF_INTERNVL)
    sizes = {k: v for k, v in SIZES.items() if k != "num_attention_heads"}
    ids = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("pad", "bos", "eos")}
    text = hf.Qwen2Config(
        **sizes, num_attention_heads=4, num_key_value_heads=2, vocab_size=len(tokenizer), **ids
    )
    vision = {**SIZES, "image_size": [32, 32], "patch_size": [PATCH, PATCH]}
    config = hf.InternVLConfig(
        text_config=text.to_dict(),
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids(IN_INTERNVL),
        image_seq_length=4,
    )
    torch.manual_seed(5)
    model = hf.InternVLForConditionalGeneration(config)
    side = {"height": 32, "width": 32}
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=side),
        tokenizer,
        hf.InternVLVideoProcessor(size=side),
        image_seq_length=4,
        chat_template=TEMPLATE.replace("IMAGE", IN_INTERNVL),
    )
    return save(folder, wild(model), processor)


def with_tokens(named: dict[str, str]) -> Any:
    """A tokenizer with special tokens that have names."""
    made = language_tokenizer(images=False)
    names = {f"{n}_token": getattr(made, f"{n}_token") for n in ("pad", "bos", "eos", "unk")}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer, extra_special_tokens=named, **names
    )
