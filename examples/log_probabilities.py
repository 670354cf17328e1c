"""Use log-probabilities: choose the likeliest of several drawings, and see how sure a caption is.

    python examples/log_probabilities.py "two apples on a blue background" --samples 8

OUT gets the drawings, best first, and scores.json. A drawing's score is the mean log-probability of
its tokens by the prompt alone, before guidance and filters (`branch_logprobs`), so that scores at
different settings can be compared. A caption's perplexity is exp(-mean log-probability) of its
tokens: 1 is certain.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

import unitok


def ranked(drawing: unitok.DrawResult) -> list[tuple[float, Image.Image]]:
    """The mean log-probability of a token, and the picture, of each sample; the likeliest first."""
    assert drawing.branch_logprobs is not None
    scores = [fmean(of_tokens) for of_tokens in drawing.branch_logprobs]
    pairs = zip(scores, drawing.images, strict=True)
    return sorted(pairs, key=lambda pair: pair[0], reverse=True)


def perplexity(logprobs: Sequence[float]) -> float:
    """How many tokens the model hesitated between, on average."""
    return math.exp(-fmean(logprobs))


def describe(
    model: unitok.Model, scored: Sequence[tuple[float, Image.Image]], out: Path
) -> list[dict[str, Any]]:
    """Save pictures, caption them together, and note how likely and how certain each is."""
    captions = model.caption([image for _, image in scored], logprobs=True)
    records = []
    for place, ((logprob, image), caption) in enumerate(zip(scored, captions, strict=True)):
        image.save(out / f"{place}.png")
        assert caption.logprobs is not None
        records.append(
            {
                "file": f"{place}.png",
                "mean_logprob": logprob,
                "caption": caption.text,
                "perplexity": perplexity(caption.logprobs),
            }
        )
    return records


def main() -> None:
    """Read the command line, draw and score, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("prompt", help="what to draw")
    parser.add_argument(
        "--samples", type=int, default=4, help="how many drawings (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="higher is more varied (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same one draws the same (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/logprobs"),
        help="a folder for the results (default: %(default)s)",
    )
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    with unitok.load() as model:
        drawing = model.draw(
            args.prompt,
            n=args.samples,
            temperature=args.temperature,
            seed=args.seed,
            branch_logprobs=True,
        )
        records = describe(model, ranked(drawing), args.out)
    (args.out / "scores.json").write_text(json.dumps(records, indent=2), encoding="utf-8")
    for r in records:
        print(
            f"{r['file']}: {r['mean_logprob']:.3f} a token; {r['caption']} ({r['perplexity']:.3f})"
        )


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
