"""The default text tokenizer gives the ids and the text that transformers gives."""

import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from unitok.emoji import captions
from unitok_tokenizers.text import TextTokenizer

ASSETS = Path(__file__).resolve().parents[2] / "unitok" / "assets" / "default"
OURS = TextTokenizer.load(ASSETS)


@pytest.fixture(scope="module")
def theirs() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(ASSETS)


def fuzzed_lines(count: int, seed: int) -> list[str]:
    """Lines of the grammar with special strings, odd characters and noise thrown in."""
    rng = random.Random(seed)
    extras = ["<|User|>", "<begin_of_image>", "\n\n", "  ", "É", "雪", "👑", "İ", "'s", "7", "\t"]
    fuzzed = []
    for line in captions.corpus(count, seed):
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(line) + 1)
            line = line[:at] + rng.choice(extras) + line[at:]
        fuzzed.append(line.title() if rng.random() < 0.2 else line)
    return fuzzed


@pytest.mark.parametrize("add_special", [True, False])
def test_ids_are_those_of_transformers(theirs: PreTrainedTokenizerFast, add_special: bool):
    for line in fuzzed_lines(1000, seed=5):
        expected = theirs.encode(line, add_special_tokens=add_special)
        assert OURS.encode(line, add_special) == expected, line


@pytest.mark.parametrize("skip_special", [True, False])
def test_text_is_that_of_transformers(theirs: PreTrainedTokenizerFast, skip_special: bool):
    rng = random.Random(6)
    for _ in range(1000):
        ids = rng.choices(range(OURS.size), k=rng.randrange(1, 12))
        expected = theirs.decode(ids, skip_special_tokens=skip_special)
        assert OURS.decode(ids, skip_special) == expected, ids


def test_plain_text_is_what_transformers_gives_with_split_special_tokens(
    theirs: PreTrainedTokenizerFast,
):
    for line in fuzzed_lines(300, seed=7):
        expected = theirs.encode(line, add_special_tokens=False, split_special_tokens=True)
        assert OURS.encode_plain(line) == expected, line


def test_transformers_knows_the_special_tokens(theirs: PreTrainedTokenizerFast):
    assert len(theirs) == OURS.size
    for tokenizer in (theirs, AutoTokenizer.from_pretrained(ASSETS)):
        ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert ids == (0, 1, 2)
        names = ("boi_token", "eoi_token", "image_token")
        images = [tokenizer.convert_tokens_to_ids(str(getattr(tokenizer, n))) for n in names]
        assert images == [3, 4, 5]
