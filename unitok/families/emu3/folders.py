"""What Emu3's folders say in their two formats; nothing large is read yet."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from unitok.checkpoints.settings import MAX_FIELDS, Settings, read_config
from unitok.checkpoints.tensors import Shards, open_tensors
from unitok.families.common.llama import read_decoder
from unitok.families.common.loading import StoredWeights
from unitok.families.common.preprocessing import read_colours, read_pixels
from unitok.families.common.vqgan import from_taming_names
from unitok.families.emu3.config import EMU3, read_image_tokenizer
from unitok.families.emu3.preprocessing import Preprocessor, preprocessor_from_json
from unitok.families.emu3.prompts import Template
from unitok.families.emu3.tokenizer import read_tiktoken
from unitok.families.emu3.weights import ORIGINAL, TRANSFORMERS_DROPPED, transformers_adapter
from unitok.nn.config import DecoderConfig
from unitok.shown import shown
from unitok_tokenizers import emu3_names as image_tokenizer
from unitok_tokenizers.emu3 import Emu3TokenizerConfig
from unitok_tokenizers.text import TextTokenizer

AREA = 720 * 720  # of a drawing, in pixels
VISUAL = "<|visual token {:06d}|>"
READ = ("text_config", "vq_config", "vocabulary_map", "image_token_id", "tie_word_embeddings")
# The original's config.json gives these tokens' ids: by what, and which field of `Template`.
ORIGINAL_IDS = {
    "bos_token_id": "bos",
    "eos_token_id": "eos",
    "boi_token_id": "begin_of_image",
    "img_token_id": "begin_of_ids",
    "eol_token_id": "end_of_line",
    "eof_token_id": "end_of_frame",
    "eoi_token_id": "end_of_image",
}


@dataclass(frozen=True)
class Contents:
    """What a folder says, whichever its format.

    Attributes:
        decoder: The sizes of the decoder.
        image_tokenizer: The sizes of the image tokenizer.
        preprocess: What is done to pictures that are read.
        template: The prompts.
        ids: What config.json itself says of tokens' ids.
        area: Of a drawing, in pixels.
        weights: What the model is filled with.
    """

    decoder: DecoderConfig
    image_tokenizer: Emu3TokenizerConfig
    preprocess: Preprocessor
    template: Template
    ids: Mapping[str, int]
    area: int
    weights: StoredWeights


def read_folder(folder: Path, strict: bool) -> Contents:
    """What a folder of either format says.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file does not fit.
    """
    config = read_config(folder, strict)
    is_original = config.data.get("model_type") == "Emu3"
    for part in (config, config if is_original else config.section("text_config")):
        if part.bool_setting("tie_word_embeddings", False):
            raise ValueError(f"{folder}: a head tied to the embedding is not Emu3's")
    return (read_original if is_original else read_transformers)(folder, config)


def read_transformers(folder: Path, config: Settings) -> Contents:
    """What a folder of Emu3ForConditionalGeneration says."""
    config.check(READ, model_type="emu3")
    pixels = read_pixels(folder, config.strict)
    preprocess, colours = preprocessor_from_json(pixels), read_colours(pixels)
    tensors = open_tensors(folder)
    adapter = transformers_adapter(tensors.names)
    return Contents(
        decoder=read_decoder(config.section("text_config"), EMU3, "emu3_text_model"),
        image_tokenizer=read_image_tokenizer(config.section("vq_config"), "emu3_vqgan", colours),
        preprocess=preprocess,
        template=Template(TextTokenizer.load(folder), full_stop=""),
        ids=config.section("vocabulary_map").data,
        area=AREA,
        weights=StoredWeights(tensors, adapter, TRANSFORMERS_DROPPED),
    )


def read_original(folder: Path, config: Settings) -> Contents:
    """What a folder of BAAI/Emu3-Gen or -Chat says, with its vision tokenizer inside."""
    inner = find_vision_folder(folder)
    pixels = read_pixels(inner, config.strict)
    preprocess, colours = preprocessor_from_json(pixels), read_colours(pixels)
    vq = read_config(inner, config.strict)
    vq = replace(vq, data=from_taming_names(vq.data), where=f"{inner / 'config.json'}", folder="")
    template = Template(read_tiktoken(folder), full_stop=".")
    ids = {key: config.data[key] for key in ORIGINAL_IDS if key in config.data}
    tensors = Shards([open_tensors(folder), open_tensors(inner)], str(folder))
    return Contents(
        decoder=read_decoder(config, EMU3, "Emu3", (*ORIGINAL_IDS, "image_area")),
        image_tokenizer=read_image_tokenizer(vq, "Emu3VisionVQ", colours),
        preprocess=preprocess,
        template=template,
        ids={getattr(template, ORIGINAL_IDS[key]): id for key, id in ids.items()},
        area=config.int_setting("image_area", AREA, MAX_FIELDS["max_pixels"]),
        weights=StoredWeights(tensors, ORIGINAL, image_tokenizer.DROPPED),
    )


def find_vision_folder(folder: Path) -> Path:
    """Where the vision tokenizer lies; FileNotFoundError if it does not."""
    for name in ("vision_tokenizer", "Emu3-VisionTokenizer"):
        if (folder / name).is_dir():
            return folder / name
    raise FileNotFoundError(
        f"{folder} has no vision tokenizer; put the files of BAAI/Emu3-VisionTokenizer into "
        f"{folder / 'vision_tokenizer'}"
    )


def find_image_start(contents: Contents) -> int:
    """The id of the first code, once all ids are seen to be where the model wants them.

    Raises:
        ValueError: Tokens and config disagree, or the visual tokens are not the last ids in order.
    """
    tokenizer, codes = contents.template.tokenizer, contents.image_tokenizer.codebook_size
    if codes > tokenizer.size:
        raise ValueError(f"the model has {codes} codes, but the tokenizer {tokenizer.size} ids")
    visual = [VISUAL.format(code) for code in range(codes)]
    found = {name: tokenizer.id(name) for name in (*contents.template.specials, *visual)}
    for name, i in found.items():
        if contents.ids.get(name, i) != i:
            raise ValueError(
                f"config.json gives {shown(name)} the id {contents.ids[name]}, the tokenizer {i}"
            )
    start = tokenizer.size - codes
    if wrong := [name for code, name in enumerate(visual) if found[name] != start + code]:
        raise ValueError(
            f"the {codes} visual tokens must be the tokenizer's last ids, in order; "
            f"{wrong[0]!r} is {found[wrong[0]]} of {tokenizer.size}"
        )
    return start
