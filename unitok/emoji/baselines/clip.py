"""A small CLIP (https://arxiv.org/abs/2103.00020) of transformers, from nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from unitok.emoji import captions
from unitok.emoji.baselines.budget import Budget, TimedCosine
from unitok.emoji.baselines.contrast import ContrastiveLoss
from unitok.emoji.baselines.pairs import PairBatch, PairUpdates
from unitok.emoji.scenes import CANVAS
from unitok.extras import need
from unitok.training.optimisers import make_muon
from unitok.training.trainer import Trainer

PAD, UNKNOWN, BEGIN, END = SPECIAL = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
MEAN = STD = 0.5  # of a channel, in the preprocessing
PREPROCESSING = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": CANVAS, "width": CANVAS},
    "resample": int(Image.Resampling.BICUBIC),
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [MEAN] * 3,
    "image_std": [STD] * 3,
}


@dataclass(frozen=True)
class ClipSizes:
    """Sizes of both towers.

    Attributes:
        width: Of the picture tower.
        layers: Of the picture tower.
        text_width: Of the text tower.
        text_layers: Of the text tower.
        patch: Pixels of a side of a patch.
        projection: Numbers of an embedding.
        head: Numbers of an attention head.
        longest: Tokens of a text.
    """

    width: int = 128
    layers: int = 4
    text_width: int = 128
    text_layers: int = 3
    patch: int = 8
    projection: int = 128
    head: int = 32
    longest: int = 24


def word_tokenizer() -> Tokenizer:
    """A token for each word of the grammar; any other word is [UNK]."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *captions.vocabulary_words()))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, vocabulary[token]) for token in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{BEGIN} $A {END}", None, ends)
    return tokenizer


@dataclass(frozen=True)
class ClipRun:
    """Options of one run.

    Attributes:
        batch: Pictures of an update.
        lr: The highest learning rate.
        warmup: Updates until it is reached.
        weight_decay: Of all weights.
        seed: Of the weights and of the data.
        sizes: Of the model.
    """

    batch: int = 256
    lr: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.02
    seed: int = 0
    sizes: ClipSizes = field(default_factory=ClipSizes)


class Clip(nn.Module):
    """A CLIPModel of transformers with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def new(cls, sizes: ClipSizes) -> Clip:
        """One that has learned nothing."""
        library, words = need("transformers", "baselines"), word_tokenizer()
        tokenizer = library.PreTrainedTokenizerFast(
            tokenizer_object=words,
            pad_token=PAD,
            unk_token=UNKNOWN,
            bos_token=BEGIN,
            eos_token=END,
            model_max_length=sizes.longest,
        )
        model = library.CLIPModel(_config(sizes, words.get_vocab_size()))
        model.set_attn_implementation("eager")  # the fused one is slow backward on a CPU
        return cls(model, tokenizer)

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and preprocessing, as transformers stores them."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        text = json.dumps(PREPROCESSING, indent=2) + "\n"
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")

    @property
    def logit_scale(self) -> nn.Parameter:
        """The logarithm of what cosines are multiplied by."""
        return self.model.logit_scale

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Embeddings [B, d] of pictures [B, 3, 64, 64] in [0, 1]."""
        return self.model.get_image_features(pixel_values=(pixels - MEAN) / STD).pooler_output

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [B, d] of texts."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return self.model.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output


def make_trainer(run: ClipRun, budget: Budget) -> Trainer[PairBatch]:
    """A trainer of a new CLIP."""
    torch.manual_seed(run.seed)
    clip = Clip.new(run.sizes)
    inner = (clip.model.vision_model.encoder, clip.model.text_model.encoder)
    return Trainer(
        clip,
        ContrastiveLoss(clip),
        make_muon(clip, inner, run.weight_decay),
        TimedCosine(run.lr, run.warmup, budget),
        PairUpdates(run.batch, run.seed),
    )


def save(trainer: Trainer[Any], folder: Path) -> None:
    """Write the CLIP that a trainer has trained."""
    clip = trainer.model
    if not isinstance(clip, Clip):
        raise TypeError("this trainer trains no CLIP")
    clip.save(folder)


def _config(sizes: ClipSizes, words: int) -> Any:
    shared = {"hidden_act": "gelu", "projection_dim": sizes.projection}
    text = _tower(sizes.text_width, sizes.text_layers, sizes.head) | shared
    vision = _tower(sizes.width, sizes.layers, sizes.head) | shared
    text |= {"vocab_size": words, "max_position_embeddings": sizes.longest}
    text |= {f"{name}_token_id": i for name, i in (("pad", 0), ("bos", 2), ("eos", 3))}
    vision |= {"image_size": CANVAS, "patch_size": sizes.patch}
    return need("transformers", "baselines").CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=sizes.projection
    )


def _tower(width: int, layers: int, head: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // head,
    }
