"""Writing a trained model as a folder that `unitok.load` and transformers open."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from unitok.checkpoint import write_json
from unitok.emoji import captions
from unitok.families import janus
from unitok.model import UnifiedModel


@dataclass(frozen=True)
class DefaultSampling:
    """How the default model draws best; chosen by `scripts/evaluate.py --sweep`."""

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
    """Write weights, configs and tokenizer files of a default-type model into `folder`."""
    sampling = sampling or DefaultSampling()
    folder.mkdir(parents=True, exist_ok=True)
    ids = template.tokenizer.id
    janus.save_weights(model, folder, dtype)
    janus.save_config(model.config, folder, ids(template.placeholder), dtype)
    write_json(
        folder / "preprocessor_config.json",
        janus.preprocessor_to_json(model.config.vision.image_size),
    )
    generation = {
        "bos_token_id": ids(template.bos),
        "eos_token_id": ids(template.eos),
        "pad_token_id": ids(template.pad),
        "do_sample": sampling.temperature > 0,
        "temperature": sampling.temperature or 1.0,
        "guidance_scale": sampling.guidance,
        "generation_kwargs": {"boi_token_id": ids(template.begin_of_image)},
    }
    write_json(folder / "generation_config.json", generation)
    question = captions.DESCRIBE_QUESTIONS[0]
    extra = {"question": question, "system": "", "known_words": captions.vocabulary_words()}
    write_json(folder / "unitok.json", extra)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        source = text_tokenizer / name
        if source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
