"""Folders of tiny random CLIP, SigLIP and SigLIP 2 models, as transformers saves them."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Processor,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
    SiglipTokenizer,
)

SIZE, PATCH, LENGTH = 32, 8, 32
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
VISION: dict[str, Any] = {**SIZES, "image_size": SIZE, "patch_size": PATCH}
TEXTS = ["a red cat", "two blue dogs on a green field", "dogs"]


def pictures(count: int = 3) -> list[Image.Image]:
    """Noise of several sizes."""
    random = np.random.default_rng(0)
    shapes = [(40 + 7 * i, 30 + 11 * i, 3) for i in range(count)]
    return [Image.fromarray(random.integers(0, 256, s, dtype=np.uint8)) for s in shapes]


def letters() -> list[str]:
    return [chr(c) for c in range(ord("a"), ord("z") + 1)]


def clip_folder(folder: Path) -> Path:
    """A CLIP whose tokenizer knows letters and two merges."""
    pieces = [*letters(), *(f"{c}</w>" for c in letters()), "ca", "cat</w>"]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    merges: Any = [("c", "a"), ("ca", "t</w>")]
    tokenizer = CLIPTokenizer(vocabulary, merges)
    start, end = (vocabulary[f"<|{name}oftext|>"] for name in ("start", "end"))
    ids = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    text = {**SIZES, "vocab_size": len(vocabulary), "max_position_embeddings": LENGTH, **ids}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24))
    sizes: dict[str, Any] = {
        "size": {"shortest_edge": SIZE},
        "crop_size": {"height": SIZE, "width": SIZE},
    }
    return save(folder, model, CLIPProcessor(CLIPImageProcessorPil(**sizes), tokenizer))


def siglip_folder(folder: Path) -> Path:
    """A SigLIP with a sentencepiece tokenizer."""
    file = folder / "spiece.model"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(sentences())
    tokenizer = SiglipTokenizer(str(file), model_max_length=LENGTH, model_input_names=["input_ids"])
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, **ids}
    torch.manual_seed(1)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    images = SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    return save(folder, randomised(model), SiglipProcessor(images, tokenizer))


def sentences() -> bytes:
    """A sentencepiece model of the texts."""
    file = BytesIO()
    sentencepiece.SentencePieceTrainer.Train(  # type: ignore[attr-defined]
        sentence_iterator=iter(TEXTS * 20),
        model_writer=file,
        vocab_size=36,
        model_type="bpe",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return file.getvalue()


def siglip2_folder(folder: Path) -> Path:
    """A SigLIP 2 that keeps the shape of pictures."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, *letters(), "▁", *(f"<0x{i:02X}>" for i in range(256))]
    tokenizer = Siglip2Tokenizer({piece: i for i, piece in enumerate(pieces)}, [])
    ids = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    text = {**SIZES, "vocab_size": len(pieces), "max_position_embeddings": 64, **ids}
    torch.manual_seed(2)
    vision = {**SIZES, "patch_size": PATCH, "num_patches": 16}
    model = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    images = Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=16)
    return save(folder, randomised(model), Siglip2Processor(images, tokenizer))


def randomised(model: Any) -> Any:
    """A SigLIP with a scale and a bias, which are random numbers of no meaning when it is made."""
    torch.nn.init.constant_(model.logit_scale, 1.5)
    torch.nn.init.constant_(model.logit_bias, -0.75)
    return model


def save(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
