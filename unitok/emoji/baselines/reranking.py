"""Many drawings of a prompt, of which a scorer keeps the best: errors over their number.

As DALL-E (https://arxiv.org/abs/2102.12092) was used with CLIP.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.emoji.baselines.matching import Matcher
from unitok.emoji.baselines.progress import in_steps
from unitok.emoji.baselines.scoring import Draw, draw_all, held_out_prompts
from unitok.emoji.evaluation import SEED, judge
from unitok.emoji.scenes import KINDS

COUNTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Judged:
    """The drawings of one prompt.

    Attributes:
        kind: Of the scene.
        right: Whether each is right [n], bool.
        match: How well each matches the prompt, as the scorer thinks [n].
    """

    kind: str
    right: Tensor
    match: Tensor


def judge_many(
    draw: Draw, matcher: Matcher, prompts: Sequence[tuple[str, str]], most: int = COUNTS[-1]
) -> list[Judged]:
    """Draw prompts `most` times, each time with another seed, and judge all drawings.

    Args:
        draw: Makes pictures of prompts, by their seeds.
        matcher: What says how well they match.
        prompts: Kinds and prompts.
        most: Drawings of a prompt.
    """
    texts = [prompt for _, prompt in prompts for _ in range(most)]
    images = draw_all(draw, texts, "drawing")
    found = []
    for number in in_steps(range(len(prompts)), "judging"):
        kind, prompt = prompts[number]
        drawn = images[number * most : (number + 1) * most]
        right = torch.tensor([judge(kind, prompt, image).ok for image in drawn])
        similarity = matcher.image_features(drawn) @ matcher.text_features([prompt]).T
        found.append(Judged(kind, right, similarity[:, 0]))
    return found


def errors(judged: Sequence[Judged], count: int) -> float:
    """The share of wrong drawings, if the best of each `count` is kept.

    The drawings of a prompt are divided into groups of `count`, so that all of them count.
    """
    kept = [right for one in judged for right in best_of_groups(one.right, one.match, count)]
    return 1 - sum(kept) / len(kept)


def best_of_groups(right: Tensor, match: Tensor, count: int) -> list[bool]:
    """Whether the best match of each group of `count` drawings is right."""
    best = match.view(-1, count).argmax(1, keepdim=True)
    return right.view(-1, count).gather(1, best)[:, 0].tolist()


def least_errors(judged: Sequence[Judged], count: int) -> float:
    """The share of groups of `count` drawings without a right one: what no scorer falls below."""
    right = torch.cat([one.right.view(-1, count).any(1) for one in judged])
    return 1 - right.float().mean().item()


def curve(judged: Sequence[Judged], counts: Sequence[int] = COUNTS) -> dict[str, dict[str, float]]:
    """Errors over the number of drawings: of all kinds, of each, and the least that there could be.

    Raises:
        ValueError: The drawings of a prompt cannot be divided into groups of one of the counts.
    """
    most = len(judged[0].right)
    if any(most % count for count in counts):
        raise ValueError(f"{most} drawings cannot be divided into groups of {list(counts)}")
    kinds = {kind: [one for one in judged if one.kind == kind] for kind in KINDS}
    groups = {"all": list(judged)} | {kind: found for kind, found in kinds.items() if found}
    found = {name: {str(n): errors(g, n) for n in counts} for name, g in groups.items()}
    return found | {"least": {str(n): least_errors(judged, n) for n in counts}}


def measure(
    draw: Draw, matcher: Matcher, prompts: int, seed: int = SEED
) -> dict[str, dict[str, float]]:
    """The curve on held-out prompts, so many of each kind."""
    return curve(judge_many(draw, matcher, held_out_prompts(prompts, seed)))
