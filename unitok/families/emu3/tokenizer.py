"""The text tokenizer of BAAI's folders: tiktoken's ranks, read for the `tokenizers` library.

Source: baaivision/Emu3, emu3/mllm/tokenization_emu3.py.
"""

import base64
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from unitok_tokenizers.bounded_files import read_file, read_text
from unitok_tokenizers.text import TextTokenizer
from unitok_tokenizers.text_bytes import byte_letters

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
RESERVED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


def read_tiktoken(folder: Path) -> TextTokenizer:
    """emu3.tiktoken and emu3_vision_tokens.txt as a tokenizer of the `tokenizers` library.

    Ids are those of tiktoken: it merges the pair of lowest rank first, as byte-level BPE does with
    its merges in the order of ranks.

    Raises:
        FileNotFoundError: There are no such files.
        ValueError: They cannot be read.
    """
    files = folder / "emu3.tiktoken", folder / "emu3_vision_tokens.txt"
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; the folder is not complete")
    ranks = read_ranks(files[0])
    visual = [line.strip() for line in read_text(files[1]).splitlines()]
    tokenizer = Tokenizer(byte_bpe(ranks))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    specials = [*RESERVED, *(name for name in visual if name)]
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "tokenizer.json"
        tokenizer.save(str(file), pretty=False)
        return TextTokenizer.load(file)


def read_ranks(file: Path) -> dict[bytes, int]:
    """Tokens and their ranks, which are their ids; all bytes are among them."""
    content = read_file(file)
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            if line:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise ValueError(f"{file} is not a file of tiktoken: see its line {number}") from None
    complete = sorted(ranks.values()) == list(range(len(ranks)))
    if not complete or not all(bytes([b]) in ranks for b in range(256)):
        raise ValueError(f"{file} is cut off: ranks or single bytes are missing")
    return ranks


def byte_bpe(ranks: Mapping[bytes, int]) -> models.BPE:
    """Ranks -> the vocabulary and merges that give the same tokens."""
    letters = byte_letters()
    spelt = {token: "".join(letters[byte] for byte in token) for token in ranks}
    by_rank = sorted(ranks, key=ranks.__getitem__)
    pairs = (pair for token in by_rank if (pair := split_token(token, ranks)))
    merges = [(spelt[left], spelt[right]) for left, right in pairs]
    # tiktoken takes a whole word that is a token as it is, however its parts would merge.
    vocabulary = {spelt[token]: rank for token, rank in ranks.items()}
    return models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True)


def split_token(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens that are merged into this one; None for a byte, or if none ever are."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, math.inf) for left, right in pairwise(parts)]
        at = joined.index(min(joined))
        if joined[at] == math.inf:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None
