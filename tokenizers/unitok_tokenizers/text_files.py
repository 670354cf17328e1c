"""The files of a text tokenizer: which one it is, and what the files beside it say.

The files beside it are `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`,
as transformers (https://github.com/huggingface/transformers) writes and reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from unitok_tokenizers.bounded_files import read_object

SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True)
class FolderSettings:
    """What the files beside a tokenizer say. The defaults hold where there are none.

    Attributes:
        added: Added tokens by their ids, from tokenizer_config.json.
        unflagged: Added tokens by their ids, from added_tokens.json, which holds no flags.
        special: The strings of all tokens that a file names special, whether they have ids or not.
        bos: The token that begins a text; empty if it is not named.
        eos: The token that ends a text; empty if it is not named.
        add_bos: Whether each text begins with `bos`.
        add_eos: Whether each text ends with `eos`.
        is_llama: Whether the tokenizer is of Llama's class in transformers.
        legacy: Whether sentencepiece puts a space before the text after each special token too.
        add_prefix_space: Whether sentencepiece puts a space before the first text.
    """

    added: Mapping[int, AddedToken] = field(default_factory=dict[int, AddedToken])
    unflagged: Mapping[int, AddedToken] = field(default_factory=dict[int, AddedToken])
    special: frozenset[str] = frozenset()
    bos: str = ""
    eos: str = ""
    add_bos: bool = True
    add_eos: bool = False
    is_llama: bool = False
    legacy: bool = True
    add_prefix_space: bool = True


def locate(path: Path) -> Path:
    """Find the tokenizer file that a path means.

    Args:
        path: The file itself, or a folder that holds `tokenizer.json` or else `tokenizer.model`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has another suffix.
    """
    if path.is_dir():
        for name in ("tokenizer.json", "tokenizer.model"):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"no tokenizer.json and no tokenizer.model in {path}")
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}")
    if path.suffix not in (".json", ".model"):
        raise ValueError(f"{path} is not a tokenizer: expected a .json or a .model file")
    return path


def read_settings(folder: Path) -> FolderSettings:
    """Read the files beside a tokenizer.

    Raises:
        ValueError: A file is broken, or the files disagree on token ids.
    """
    config = _read_object(folder / "tokenizer_config.json")
    roles = _read_object(folder / "special_tokens_map.json")
    listed = _read_object(folder / "added_tokens.json")
    flags = config.get("added_tokens_decoder") or {}
    try:
        named = _named_tokens(roles) | _named_tokens(config)
        special = frozenset(named.values())
        added = {_token_id(i): _added_token(flags[i], special) for i in flags}
        pairs = [(_token_id(i), token) for token, i in listed.items()]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} has a badly written added token: {error!r}") from error
    _check_agreement(folder, {*pairs, *((i, token.content) for i, token in added.items())})
    return FolderSettings(
        added=added,
        unflagged={i: AddedToken(token, special=token in special) for i, token in pairs},
        special=special,
        bos=named.get("bos_token", ""),
        eos=named.get("eos_token", ""),
        add_bos=config.get("add_bos_token") is not False,
        add_eos=config.get("add_eos_token") is True,
        is_llama=str(config.get("tokenizer_class")).startswith("LlamaTokenizer"),
        legacy=config.get("legacy") is not False,
        add_prefix_space=config.get("add_prefix_space") is not False,
    )


def _read_object(file: Path) -> dict[str, Any]:
    """The JSON object of a file, or an empty one if there is no such file."""
    return read_object(file) if file.is_file() else {}


def _named_tokens(document: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens of a file by the names of their roles."""
    tokens = {key: token for key, token in document.items() if key.endswith("_token")}
    for key in SPECIAL_LISTS:
        several = document.get(key) or []
        pairs = several.items() if isinstance(several, dict) else enumerate(several)
        tokens |= {f"{key} {place}": token for place, token in pairs}
    contents = {key: _content(token) for key, token in tokens.items()}
    return {key: content for key, content in contents.items() if content}


def _content(token: Any) -> str:
    """The string of a token, which may be written with its flags; empty if it is no token."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _token_id(i: Any) -> int:
    """The id of an added token, which is a key of an object in one file and a number in another."""
    if (number := int(i)) < 0:
        raise ValueError(f"{number} is no token id")
    return number


def _added_token(flags: Mapping[str, Any], special: frozenset[str]) -> AddedToken:
    """A token from its string and flags in a file."""
    kept = {key: flag for key, flag in flags.items() if key not in ("__type", "content")}
    token = AddedToken(flags["content"], **kept)
    token.special = token.special or token.content in special
    return token


def _check_agreement(folder: Path, pairs: set[tuple[int, str]]) -> None:
    """Check that no id has two tokens, and no token two ids."""
    ids, tokens = {i for i, _ in pairs}, {token for _, token in pairs}
    if len(ids) < len(pairs) or len(tokens) < len(pairs):
        raise ValueError(f"the files of {folder} disagree on the ids of added tokens")
