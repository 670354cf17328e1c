"""A tiny Janus with grouped heads in either format, of a head size that vLLM's CPU kernels have."""

from dataclasses import replace
from pathlib import Path

import torch

from tests.unitok.tiny import ASSETS, TINY, tiny_model
from unitok.families import Defaults
from unitok.families.janus import Janus, Preprocessor, Template
from unitok_tokenizers.text import TextTokenizer

SIZES = replace(TINY, decoder=replace(TINY.decoder, head_dim=32))


def save_tiny(folder: Path, layout: str = "transformers", system: str = "be brief") -> Path:
    """A folder of random weights in fp32."""
    template = Template(TextTokenizer.load(ASSETS), SIZES.vision.patches)
    defaults = Defaults(1.0, 0, 1.0, 3.0, question="what is this?", system=system)
    preprocess = Preprocessor(SIZES.vision.image_size)
    family = Janus("tiny", tiny_model(config=SIZES), template, preprocess, defaults, ASSETS)
    folder.mkdir(parents=True, exist_ok=True)
    family.save(folder, layout, torch.float32)
    return folder
