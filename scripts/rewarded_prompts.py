"""Write what the embedded model is asked, and learns beside, in reinforcement learning.

    python scripts/rewarded_prompts.py --out runs/embedded_grpo
    unitok train recipes/embedded_grpo.toml

All scenes are of the training split: no combination that the scores are of is among them.
"""

import argparse
from pathlib import Path

from unitok.emoji.rewarded_prompts import write_rewarded_prompts


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/embedded_grpo"))
    parser.add_argument("--drawings", type=int, default=4000, help="prompts of drawings")
    parser.add_argument("--questions", type=int, default=2000, help="questions about places")
    parser.add_argument("--kept", type=int, default=2000, help="pictures that are learned beside")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_rewarded_prompts(args.out, args.drawings, args.questions, args.kept, args.seed)


if __name__ == "__main__":
    main()
