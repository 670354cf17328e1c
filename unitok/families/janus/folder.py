"""A Janus's folder without its weights: sizes, prompts, preprocessing and defaults."""

from dataclasses import dataclass
from pathlib import Path

from unitok.checkpoints.folders import read_json
from unitok.checkpoints.settings import read_config
from unitok.families.common.family import Defaults, check_ids
from unitok.families.common.preprocessing import read_pixels
from unitok.families.janus import files
from unitok.families.janus.preprocessing import Preprocessor, preprocessor_from_json
from unitok.families.janus.prompts import Template, read_roles
from unitok.families.janus.weights import MODEL_TYPES, Format
from unitok.nn.config import JanusConfig
from unitok_tokenizers.text import TextTokenizer


@dataclass(frozen=True)
class JanusFolder:
    """What a folder of Janus says, but for its weights.

    Attributes:
        folder: Where it lies.
        format: Transformers' or DeepSeek's own.
        sizes: Of the model.
        tied: Whether the text embedding serves as a text head that is absent.
        template: The prompts.
        preprocess: What is done to pictures that are read.
        defaults: How the checkpoint samples and is asked.
    """

    folder: Path
    format: Format
    sizes: JanusConfig
    tied: bool
    template: Template
    preprocess: Preprocessor
    defaults: Defaults


def read_folder(folder: Path, strict: bool = False) -> JanusFolder:
    """Read a folder in transformers' format, or one of DeepSeek's own.

    Args:
        folder: The folder, whose config.json names one of `MODEL_TYPES`.
        strict: Whether an unknown setting is an error; if not, it gives a warning.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file asks for what we do not do, or they do not fit.
    """
    config = read_config(folder, strict)
    format = MODEL_TYPES[config.data["model_type"]]
    sizes = format.read(config)
    preprocess = preprocessor_from_json(read_pixels(folder, strict))
    if preprocess.image_size != sizes.vision.image_size:
        raise ValueError(
            f"{folder}: preprocessor_config.json and config.json differ in picture size"
        )
    template = read_template(folder, sizes)
    defaults = files.defaults_from_json(
        read_json(folder / "generation_config.json", optional=True),
        files.read_own_file(folder, strict),
    )
    return JanusFolder(folder, format, sizes, format.ties(config), template, preprocess, defaults)


def read_template(folder: Path, sizes: JanusConfig) -> Template:
    """The prompts of a folder; ValueError if its tokenizer does not fit them or the model."""
    tokenizer = TextTokenizer.load(folder)
    check_ids(folder, tokenizer, sizes.decoder)
    user, assistant = read_roles(folder, tokenizer)
    template = Template(tokenizer, sizes.vision.patches, user=user, assistant=assistant)
    template.check()
    return template
