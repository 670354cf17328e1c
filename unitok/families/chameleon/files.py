"""The files of a Chameleon folder beside its weights: where they are, and whether they fit."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitok.families.chameleon.image_ids import IMAGE_NAME, ImageIds
from unitok.families.chameleon.prompts import MARKS
from unitok.families.common.family import check_ids
from unitok.nn.config import DecoderConfig
from unitok.shown import shown
from unitok_tokenizers.text import TextTokenizer

ARCHITECTURE = "ChameleonForConditionalGeneration"


def architecture(config: Mapping[str, Any]) -> str:
    """The class that config.json was saved from, by default transformers' own.

    Raises:
        ValueError: It is no name in a list.
    """
    names = config.get("architectures") or [ARCHITECTURE]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise ValueError(f"config.json: architectures must be a list of names, not {shown(names)}")
    return names[0]


def is_unitoken(config: Mapping[str, Any]) -> bool:
    """Whether config.json is of UniToken, which keeps Chameleon's model_type."""
    return bool(re.fullmatch(r"Chameleon(XLLMX|Gen)\w+(Base|AnyRes)", architecture(config)))


def find_file(folder: Path, name: str) -> Path | None:
    """A file of the tokenizers, in one of the places where people keep it."""
    places, outer = [folder, folder / "tokenizer"], folder.absolute().parent
    if outer.name == "models":  # one model of Meta's download
        places.append(outer.parent / "tokenizer")
    return next((place / name for place in places if (place / name).is_file()), None)


def need_file(folder: Path, name: str) -> Path:
    """As `find_file`; FileNotFoundError if there is none."""
    found = find_file(folder, name)
    if found is None:
        raise FileNotFoundError(
            f"{folder} has no {name}; put Meta's file of Chameleon's tokenizer/ there, or into a "
            "folder tokenizer/ in it"
        )
    return found


def load_tokenizer(folder: Path) -> TextTokenizer:
    """tokenizer.json of a folder, else Meta's text_tokenizer.json."""
    if (folder / "tokenizer.json").is_file():
        return TextTokenizer.load(folder)
    words = find_file(folder, "text_tokenizer.json")
    if words is None:
        raise FileNotFoundError(f"{folder} has no tokenizer.json and no text_tokenizer.json")
    return TextTokenizer.load(words)


def check_words(
    folder: Path, tokenizer: TextTokenizer, decoder: DecoderConfig, ids: ImageIds
) -> None:
    """Raise ValueError if the text tokenizer has too many ids, or marks among the image ids."""
    check_ids(folder, tokenizer, decoder)
    image = range(ids.start, ids.start + len(ids.codes))
    if strays := [mark for mark in MARKS if tokenizer.id(mark) in image]:
        raise ValueError(f"{folder}: {strays[0]} of the tokenizer is an image id of the model")


def check_names(folder: Path, tokenizer: TextTokenizer, names: Mapping[str, Any]) -> None:
    """Raise ValueError if config.json gives a mark or an image token another id than the tokenizer.

    Image tokens may be unknown to the tokenizer: no text holds them.
    """
    for name, id in names.items():
        if name not in MARKS and not IMAGE_NAME.fullmatch(name):
            continue
        if (found := find_id(tokenizer, name)) not in (None, id):
            raise ValueError(
                f"{folder}: vocabulary_map of config.json gives {name} the id {id}, the tokenizer "
                f"{found}"
            )


def find_id(tokenizer: TextTokenizer, name: str) -> int | None:
    """The id of a token; None if there is none."""
    try:
        return tokenizer.id(name)
    except ValueError:
        return None
