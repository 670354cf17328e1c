"""The text tokenizer of the default model: byte-level BPE over the emoji world's grammar.

Ids 0 to 15 are special and fixed. Then come the 256 bytes, the merges, and reserved tokens up to
the size that was asked for.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from unitok.emoji import captions

PAD = "<｜▁pad▁｜>"
BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
BEGIN_OF_IMAGE = "<begin_of_image>"
END_OF_IMAGE = "<end_of_image>"
IMAGE_PLACEHOLDER = "<image_placeholder>"
RESERVED = "<reserved_{}>"
SPECIAL_TOKENS = (  # the index is the id: append at the end, and move nothing
    PAD,
    BOS,
    EOS,
    BEGIN_OF_IMAGE,
    END_OF_IMAGE,
    IMAGE_PLACEHOLDER,
    "<|User|>",
    "<|Assistant|>",
    *(RESERVED.format(i) for i in range(8)),
)

# What stands between the turns of a conversation.
TEMPLATE_STRINGS = (": ", "\n\n")

# The "s" that ends a plural or a verb is a token of its own, so that "apples" shares "apple".
# Short words (is, has, yes) and those in -is, -us and -ss keep theirs.
FINAL_S = r"(?<=\p{L}{3})(?<![isu])s(?!\p{L})"


def lines(count: int, seed: int) -> Iterator[str]:
    """The training text: words of the grammar, and `count` lines of its corpus.

    Every word occurs at a line's start and after a space, often enough to be merged. Each line of
    the corpus occurs after a space too, as it does in a conversation.
    """
    for word in (*captions.vocabulary_words(), *TEMPLATE_STRINGS):
        yield from (word, " " + word) * 8
    for line in captions.corpus(count, seed):
        yield from (line, " " + line)


def train(vocab_size: int, line_count: int, seed: int) -> Tokenizer:
    """Train a tokenizer.

    Args:
        vocab_size: The number of its ids, exactly.
        line_count: Lines of the corpus it is trained on.
        seed: Of the corpus.

    Raises:
        ValueError: The ids are too few for each word of the grammar to be one token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(FINAL_S), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines(line_count, seed), trainer)
    _reserve_up_to(vocab_size, tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B:1",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    _check_words(tokenizer)
    return tokenizer


def _reserve_up_to(vocab_size: int, tokenizer: Tokenizer) -> None:
    missing = vocab_size - tokenizer.get_vocab_size()
    first = sum(token.startswith("<reserved_") for token in SPECIAL_TOKENS)
    tokenizer.add_special_tokens([RESERVED.format(first + i) for i in range(missing)])


def _check_words(tokenizer: Tokenizer) -> None:
    split = []
    for word in captions.vocabulary_words():
        for text in (word, " " + word):
            tokens = tokenizer.encode(text, add_special_tokens=False).tokens
            if len(tokens) > 1 + (tokens[-1] == "s"):
                split.append(text)
    if split:
        raise ValueError(
            f"{len(split)} words are not one token each, {split[0]!r} among them; "
            "raise the vocabulary size"
        )


def save(tokenizer: Tokenizer, out: Path) -> None:
    """Write tokenizer.json to `out`, and tokenizer_config.json beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "extra_special_tokens": {
            "image_token": IMAGE_PLACEHOLDER,
            "boi_token": BEGIN_OF_IMAGE,
            "eoi_token": END_OF_IMAGE,
        },
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    out.with_name("tokenizer_config.json").write_text(text, encoding="utf-8")
