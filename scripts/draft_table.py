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

import unitok
from unitok import Draw
from unitok.drafts import SHIPPED, name_of, write_table
from unitok.emoji import captions
from unitok.emoji.sampler import SceneSampler
from unitok.results import DrawResult
from unitok_engine import DraftTable, GridPlan
from unitok_engine.draft_table import MOST_VOTES

SEED = 14
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
    with unitok.load(device="cpu", dtype="float32", drafts=False) as model:
        path = args.write / f"{name_of(model.family.model)}.safetensors"
        counts: Counts = defaultdict(Counter)
        for first in range(0, args.pictures, AT_ONCE):
            requests = training_requests(first, min(args.pictures, first + AT_ONCE))
            for result in model.run(requests):
                count(result, model.prepare.job(requests[0]).request.plan, counts)
            print(f"{first + len(requests)} pictures, {len(counts)} pairs", flush=True)
    table = table_of(counts)
    write_table(table, path)
    print(f"{path}: {len(table)} pairs of neighbours, {path.stat().st_size:,} bytes")


def training_requests(start: int, stop: int) -> list[Draw]:
    """Drawings of training prompts, at the model's own temperature and guidance."""
    requests = []
    for seed in range(start, stop):
        scene = SceneSampler(SEED + seed, "train").sample()
        requests.append(Draw(captions.prompt(scene, random.Random(seed)), seed=seed, logprobs=True))
    return requests


def count(result: object, plan: object, counts: Counts) -> None:
    """Count a picture's tokens by what lies to the left of them and above."""
    assert isinstance(result, DrawResult) and result.token_ids and isinstance(plan, GridPlan)
    cells, columns = plan.image_ids(result.token_ids[0]), plan.columns
    for cell, token in enumerate(cells):
        left = cells[cell - 1] if cell % columns else None
        above = cells[cell - columns] if cell >= columns else None
        counts[left, above][token] += 1


def table_of(counts: Counts) -> DraftTable:
    """The most frequent token of each pair, with as many votes as it leads by."""
    table = DraftTable()
    for (left, above), tokens in sorted(counts.items(), key=lambda item: str(item[0])):
        (token, most), *others = tokens.most_common(2)
        for _ in range(votes(most, [n for _, n in others])):
            table.learn(left, above, token)
    return table


def votes(most: int, others: Sequence[int]) -> int:
    """How many votes a token gets that was counted so often, and the next one so often."""
    return max(1, min(most - sum(others), MOST_VOTES))


if __name__ == "__main__":
    main()
