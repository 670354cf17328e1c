"""Writing a trained model as a folder that `unitok.load` and transformers open."""

from dataclasses import dataclass
from pathlib import Path

import torch

from unitok.emoji import captions
from unitok.families import Defaults, janus
from unitok.nn.model import UnifiedModel


@dataclass(frozen=True)
class DefaultSampling:
    """How the default model draws best; chosen with `unitok eval emoji --only "draw_*"`."""

    temperature: float = 0.6
    guidance: float = 1.5


def save_folder(
    model: UnifiedModel,
    template: janus.Template,
    text_tokenizer: Path,
    folder: Path,
    sampling: DefaultSampling | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write weights, configs and tokenizer files of a model of the emoji world.

    Args:
        model: The trained model.
        template: The conversation format it was trained with.
        text_tokenizer: The folder or the file of its text tokenizer.
        folder: Where to write; it is made if it does not exist.
        sampling: The defaults of drawings.
        dtype: The type of the stored weights.
    """
    sampling = sampling or DefaultSampling()
    defaults = Defaults(
        temperature=sampling.temperature,
        top_k=0,
        top_p=1.0,
        guidance=sampling.guidance,
        question=captions.DESCRIBE_QUESTIONS[0],
        system="",
        known_words=frozenset(captions.vocabulary_words()),
        cpu_dtype=torch.float32,  # so that a seed means the same on every machine
    )
    preprocess = janus.Preprocessor(model.config.vision.image_size)
    family = janus.Janus("default", model, template, preprocess, defaults, source=text_tokenizer)
    family.save(folder, dtype=dtype)
