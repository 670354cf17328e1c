"""Train the text tokenizer of the default model: byte-level BPE over the emoji world's grammar.

python scripts/train_text_tokenizer.py --out unitok/assets/default/tokenizer.json \
    --vocab-size 640 --lines 200000 --seed 0

It writes tokenizer.json, and beside it the tokenizer_config.json that transformers needs.
"""

import argparse
import sys
from pathlib import Path

from unitok.emoji.text_tokenizer import save, train


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("unitok/assets/default/tokenizer.json")
    parser.add_argument("--out", type=Path, default=default, help="the tokenizer.json to write")
    parser.add_argument("--vocab-size", type=int, default=640, help="ids in all")
    parser.add_argument("--lines", type=int, default=200_000, help="lines of the corpus")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train and save."""
    args = parse()
    try:
        tokenizer = train(args.vocab_size, args.lines, args.seed)
        save(tokenizer, args.out)
    except (ValueError, OSError) as error:
        sys.exit(f"train_text_tokenizer: {error}")
    print(f"{args.out}: {tokenizer.get_vocab_size()} ids")


if __name__ == "__main__":
    main()
