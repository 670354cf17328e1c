"""Learn what the embedded model mostly paints, so that its first drafts are good ones.

    python scripts/draft_table.py                            # writes into unitok/assets/drafts
    python scripts/draft_table.py --pictures 100 --write out

It draws prompts of the training split and counts which token stands between each pair of tokens to
the left and above. The most frequent one goes into a file that is named by the model's weights,
which `unitok.load` reads. Drafts change no token, so the file changes none either.
"""

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import unitok
from unitok import Draw, DrawResult, Model
from unitok.drafts import SHIPPED, name_of, write_table
from unitok.emoji import captions
from unitok.emoji.sampler import SceneSampler
from unitok_engine import DraftTable, GridPlan
from unitok_engine.draft_table import MOST_VOTES

SEEDS = 14, 5  # of the scenes, and of how they are asked for
AT_ONCE = 64

Counts = dict[tuple[int | None, int | None], Counter[int]]


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=2000, help="how many are drawn")
    parser.add_argument("--write", type=Path, default=SHIPPED, metavar="FOLDER")
    return parser.parse_args()


def main() -> None:
    """Draw, count, and write the table."""
    args = parse()
    requests = training_requests(args.pictures)
    counts: Counts = defaultdict(Counter)
    with unitok.load(device="cpu", dtype="float32", drafts=False) as model:
        path = args.write / f"{name_of(model.family.model)}.safetensors"
        for first in range(0, len(requests), AT_ONCE):
            batch = requests[first : first + AT_ONCE]
            for result in model.run(batch):
                count(*cells_of(model, cast(DrawResult, result)), counts)
            print(f"{first + len(batch)} pictures, {len(counts)} pairs", flush=True)
    table = table_of(counts)
    write_table(table, path)
    print(f"{path}: {len(table)} pairs of neighbours, {path.stat().st_size:,} bytes")


def training_requests(pictures: int) -> list[Draw]:
    """Drawings of training prompts, at the model's own temperature and guidance."""
    scenes, chance = SceneSampler(SEEDS[0], "train"), random.Random(SEEDS[1])
    prompts = [captions.prompt(scenes.sample(), chance) for _ in range(pictures)]
    return [Draw(prompt, seed=seed, logprobs=True) for seed, prompt in enumerate(prompts)]


def cells_of(model: Model, result: DrawResult) -> tuple[list[int], int]:
    """A picture's tokens, row by row, and the number of its columns."""
    assert result.token_ids and isinstance(result.request, Draw)
    plan = model.prepare.job(result.request).request.plan
    assert isinstance(plan, GridPlan)
    return plan.image_ids(result.token_ids[0]), plan.columns


def count(cells: Sequence[int], columns: int, counts: Counts) -> None:
    """Count a picture's tokens by what lies to the left of them and above."""
    for cell, token in enumerate(cells):
        left = cells[cell - 1] if cell % columns else None
        above = cells[cell - columns] if cell >= columns else None
        counts[left, above][token] += 1


def table_of(counts: Counts) -> DraftTable:
    """The most frequent token of each pair, with as many votes as it leads by."""
    table = DraftTable()
    for (left, above), tokens in sorted(counts.items(), key=lambda item: str(item[0])):
        token, most = max(tokens.items(), key=lambda item: (item[1], -item[0]))
        for _ in range(max(1, min(2 * most - tokens.total(), MOST_VOTES))):
            table.learn(left, above, token)
    return table


if __name__ == "__main__":
    main()
