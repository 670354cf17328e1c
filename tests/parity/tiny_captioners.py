"""Folders of tiny random captioners, as transformers saves them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from tests.parity.tiny_scorers import PATCH, SIZE, SIZES, save

WORDS = "a red cat dog is what this how many are there question answer the image user".split()
CLIP_SIZES: dict[str, Any] = {
    "size": {"shortest_edge": SIZE},
    "crop_size": {"height": SIZE, "width": SIZE},
}
SQUARE: dict[str, Any] = {"size": {"height": SIZE, "width": SIZE}}
VISION: dict[str, Any] = {**SIZES, "image_size": SIZE, "patch_size": PATCH}
QUERIES = 3
TEMPLATE = (
    "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<image>"
    "{% else %} {{ c.text }}{% endif %}{% endfor %}{% endfor %} answer :"
)


def language_tokenizer(images: bool = True) -> Any:
    """The tokenizer of a language model that goes on with a text, with a token for pictures."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS, ":", "."])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=made, **names)
    if images:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


def bert_tokenizer() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    return hf.BertTokenizer({word: i for i, word in enumerate([*special, *WORDS, ":", "."])})


def ids(tokenizer: Any) -> dict[str, Any]:
    names = [f"{name}_token_id" for name in ("pad", "bos", "eos")]
    return {name: getattr(tokenizer, name) for name in names}


def wild(model: Any) -> Any:
    """The model with larger weights, so that pictures make a difference to what it says."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def blip_folder(folder: Path, kind: str = "BlipForConditionalGeneration") -> Path:
    tokenizer = bert_tokenizer()
    names = {"bos": "[DEC]", "eos": "[SEP]", "sep": "[SEP]", "pad": "[PAD]"}
    special = {f"{k}_token_id": tokenizer.convert_tokens_to_ids(w) for k, w in names.items()}
    text = {**SIZES, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, **special}
    config = hf.BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    torch.manual_seed(0)
    model = getattr(hf, kind)(config)
    return save(
        folder, wild(model), hf.BlipProcessor(hf.BlipImageProcessorPil(**SQUARE), tokenizer)
    )


def q_former() -> dict[str, Any]:
    return {**SIZES, "vocab_size": 40, "encoder_hidden_size": 32}


def opt_config(tokenizer: Any) -> Any:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return hf.OPTConfig(
        **sizes, word_embed_proj_dim=32, vocab_size=len(tokenizer), **ids(tokenizer)
    )


def llama_config(tokenizer: Any) -> Any:
    return hf.LlamaConfig(
        **SIZES, num_key_value_heads=2, vocab_size=len(tokenizer), **ids(tokenizer)
    )


def blip2_folder(folder: Path) -> Path:
    tokenizer = language_tokenizer()
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = hf.Blip2Config(
        vision_config=VISION,
        qformer_config=q_former(),
        text_config=opt_config(tokenizer).to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=image,
    )
    torch.manual_seed(1)
    model = hf.Blip2ForConditionalGeneration(config)
    processor = hf.Blip2Processor(hf.BlipImageProcessorPil(**SQUARE), tokenizer, QUERIES)
    return save(folder, wild(model), processor)


def instructblip_folder(folder: Path) -> Path:
    tokenizer = language_tokenizer()
    config = hf.InstructBlipConfig(
        vision_config=VISION,
        qformer_config=q_former(),
        text_config=llama_config(tokenizer).to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(2)
    model = hf.InstructBlipForConditionalGeneration(config)
    images = hf.BlipImageProcessorPil(**SQUARE)
    processor = hf.InstructBlipProcessor(images, tokenizer, bert_tokenizer(), QUERIES)
    model = wild(model)
    torch.nn.init.normal_(model.query_tokens)
    return save(folder, model, processor)


def llava_folder(folder: Path, template: str | None = TEMPLATE) -> Path:
    tokenizer = language_tokenizer()
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=llama_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
    )
    torch.manual_seed(3)
    model = hf.LlavaForConditionalGeneration(config)
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(**CLIP_SIZES),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return save(folder, wild(model), processor)


def original_llava_folder(folder: Path, kind: str = "share4v", with_tower: bool = False) -> Path:
    """What `llava_folder` writes, in the layout of LLaVA's authors, and its tower beside it."""
    made = hf.LlavaForConditionalGeneration.from_pretrained(llava_folder(folder / "hf", None))
    model: Any = made
    tower = folder / "tower-l12"
    vision = hf.CLIPVisionModel(model.config.vision_config)
    vision.load_state_dict(model.model.vision_tower.state_dict())
    vision.save_pretrained(tower)
    hf.CLIPImageProcessorPil(**CLIP_SIZES).save_pretrained(tower)
    made = folder / "original"
    tokenizer = language_tokenizer(images=False)
    tokenizer.save_pretrained(made)
    config = model.config.text_config.to_dict() | {
        "vocab_size": len(tokenizer),
        "model_type": kind,
        "architectures": ["Share4VLlamaForCausalLM"],
        "mm_vision_tower": "someone/tower-l12",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_hidden_size": 32,
    }
    (made / "config.json").write_text(json.dumps(config))
    torch.save(dict(original_weights(model, with_tower)), made / "pytorch_model.bin")
    return made


def original_weights(model: Any, with_tower: bool) -> Iterator[tuple[str, Tensor]]:
    """Weights under the names of the authors."""
    for name, weight in model.state_dict().items():
        if name.startswith("model.vision_tower."):
            if with_tower:
                own = name.removeprefix("model.vision_tower.")
                yield f"model.vision_tower.vision_tower.vision_model.{own}", weight
            continue
        for ours, theirs in (
            ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
            ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
            ("model.language_model.", "model."),
        ):
            name = name.replace(ours, theirs)
        words = name in ("model.embed_tokens.weight", "lm_head.weight")
        yield name, weight[:-1].clone() if words else weight  # without the token for pictures
