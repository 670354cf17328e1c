"""Check that drafts change no token and no score: held-out prompts with and without them.

    python scripts/check_drafts.py                           # 500 prompts at T 0, 0.6 and 1
    python scripts/check_drafts.py --first 100 --prompts 50  # some of them

Each prompt is drawn alone without drafts. With drafts, it is drawn alone and in a crowd of other
drawings, of all temperatures, and of captions. Token ids must be equal, and log-probabilities to
the bit. The exit code is 1 if any differ. It takes minutes.
"""

import argparse
import random
import sys
from collections.abc import Iterable, Sequence
from typing import cast

import unitok
from benchmarks.cache import own_cache
from unitok import Caption, Draw, DrawResult, Model
from unitok.emoji import captions
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler

TEMPERATURES = (0.0, 0.6, 1.0)
AT_ONCE = 10  # prompts whose drawings, one at each temperature, form a crowd
CAPTIONS = 6  # beside them
SEED = 514


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=500, help="how many are drawn")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    return parser.parse_args()


def main() -> None:
    """Draw and compare."""
    args = parse()
    alone = crowd = drawings = steps = 0
    with own_cache(), load(drafts=False) as plain, load(drafts=True) as drafting:
        for first in range(args.first, args.first + args.prompts, AT_ONCE):
            last = min(first + AT_ONCE, args.first + args.prompts)
            requests = [request for i in range(first, last) for request in requests_of(i)]
            expected = one_by_one(plain, requests)
            found = one_by_one(drafting, requests)
            alone += same(found, expected)
            crowd += same(crowded(drafting, requests, first), expected)
            drawings += len(requests)
            steps += sum(result.steps for result in found)
            print(
                f"to prompt {last}: the same {alone} alone and {crowd} in a crowd of {drawings} "
                f"drawings; {steps / drawings:.1f} steps a drawing alone",
                flush=True,
            )
    sys.exit(0 if alone == crowd == drawings else 1)


def load(drafts: bool) -> Model:
    """The embedded model where drafts are exact."""
    return unitok.load(device="cpu", dtype="float32", drafts=drafts)


def requests_of(index: int) -> list[Draw]:
    """A held-out prompt at each temperature."""
    scene = SceneSampler(SEED + index, "heldout").sample()
    prompt = captions.prompt(scene, random.Random(index))
    return [Draw(prompt, seed=index, temperature=t, logprobs=True) for t in TEMPERATURES]


def one_by_one(model: Model, requests: Iterable[Draw]) -> list[DrawResult]:
    """Each drawing alone."""
    results = [result for request in requests for result in model.run([request])]
    return cast(list[DrawResult], results)


def crowded(model: Model, requests: Sequence[Draw], seed: int) -> list[DrawResult]:
    """All drawings at once, and captions among them."""
    scenes = [to_pil(pixels) for pixels in render(SceneSampler(seed, "heldout").batch(CAPTIONS))]
    results = model.run([*requests, *(Caption(scene, max_tokens=30) for scene in scenes)])
    by_place = sorted(results, key=lambda result: result.index)
    return cast(list[DrawResult], by_place[: len(requests)])


def same(found: Sequence[DrawResult], expected: Sequence[DrawResult]) -> int:
    """How many drawings have the same tokens and, to the bit, the same scores."""
    pairs = zip(found, expected, strict=True)
    return sum(a.token_ids == b.token_ids and a.logprobs == b.logprobs for a, b in pairs)


if __name__ == "__main__":
    main()
