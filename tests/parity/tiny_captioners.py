"""Folders of tiny random captioners, as transformers saves them."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.parity.tiny_scorers import PATCH, SIZE, SIZES, save

WORDS = "a red cat dog is what this how many are there question answer the image user".split()
CLIP_SIZES = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
SQUARE = {"size": {"height": SIZE, "width": SIZE}}
VISION = {**SIZES, "image_size": SIZE, "patch_size": PATCH}
QUERIES = 3
TEMPLATE = (
    "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<image>"
    "{% else %} {{ c.text }}{% endif %}{% endfor %}{% endfor %} answer :"
)


def word_tokenizer(special: list[str], before: str = "", after: str = "") -> Any:
    """A tokenizer of words, with special tokens of which one may stand before or after a text."""
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS, ":", "."])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    named = [(word, vocabulary[word]) for word in (before, after) if word]
    text = " ".join(filter(None, (before, "$A", after)))
    made.post_processor = processors.TemplateProcessing(single=text, special_tokens=named)  # type: ignore
    return made


def language_tokenizer(**more: Any) -> Any:
    """The tokenizer of a language model that goes on with a text."""
    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(special, before="<s>"),
        additional_special_tokens=["<image>"],
        **names,
        **more,
    )


def bert_tokenizer() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    return hf.BertTokenizer({word: i for i, word in enumerate([*special, *WORDS, ":", "."])})


def ids(tokenizer: Any) -> dict[str, int]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}


def blip_folder(folder: Path, kind: str = "BlipForConditionalGeneration") -> Path:
    tokenizer = bert_tokenizer()
    names = {"bos": "[DEC]", "eos": "[SEP]", "sep": "[SEP]", "pad": "[PAD]"}
    special = {f"{k}_token_id": tokenizer.convert_tokens_to_ids(w) for k, w in names.items()}
    text = {**SIZES, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, **special}
    config = hf.BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    torch.manual_seed(0)
    model = getattr(hf, kind)(config)
    return save(folder, model, hf.BlipProcessor(hf.BlipImageProcessorPil(**SQUARE), tokenizer))


def q_former() -> dict[str, Any]:
    return {**SIZES, "vocab_size": 40, "encoder_hidden_size": 32}


def opt_config(tokenizer: Any) -> Any:
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
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
    return save(folder, model, processor)


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
    return save(folder, model, hf.InstructBlipProcessor(images, tokenizer, bert_tokenizer(), QUERIES))


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
    return save(folder, model, processor)
