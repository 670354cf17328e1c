"""Many drawings of a prompt, of which a scorer keeps the best: errors over their number.

As DALL-E (https://arxiv.org/abs/2102.12092) was used with CLIP.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unitok.baselines.protocols import ImageTextScorer, Runner
from unitok.emoji.baselines.progress import with_bar
from unitok.emoji.evaluation import EmojiSuite
from unitok.emoji.held_out import SEED
from unitok.emoji.scenes import KINDS
from unitok.evaluation.run import Judged, run_items
from unitok.evaluation.suite import Item, SuiteOptions, picture_of
from unitok.requests import Draw

COUNTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Candidates:
    """The drawings of one prompt.

    Attributes:
        kind: Of the scene.
        right: Whether each is right [n], bool.
        match: How well each matches the prompt, as the scorer thinks [n].
    """

    kind: str
    right: Tensor
    match: Tensor


def draw_many(
    runner: Runner, scorer: ImageTextScorer, prompts: int, most: int, seed: int = SEED
) -> list[Candidates]:
    """Draw the prompts of the emoji suite `most` times, each with its own seed, and judge all.

    Args:
        runner: What draws.
        scorer: What says how well drawings match.
        prompts: How many of each kind.
        most: Drawings of a prompt.
        seed: Of the scenes.
    """
    suite = EmojiSuite(SuiteOptions(limit=prompts, seed=seed))
    asked = [item for item in suite.items() if isinstance(item.request, Draw)]
    items = [again(item, number, most) for item in asked for number in range(most)]
    place = {item.key: index for index, item in enumerate(items)}
    judged = with_bar(run_items(runner, suite, items), len(items), "drawing")
    in_order = sorted(judged, key=lambda one: place[one.item.key])
    groups = [in_order[i : i + most] for i in range(0, len(in_order), most)]
    return [candidates(group, scorer) for group in groups]


def again(item: Item, number: int, most: int) -> Item:
    """A drawing of the same prompt with another seed."""
    assert isinstance(item.request, Draw)
    assert isinstance(item.request.seed, int)
    request = replace(item.request, seed=item.request.seed * most + number)
    return replace(item, key=f"{item.key}-{number}", request=request)


def candidates(drawn: Sequence[Judged], scorer: ImageTextScorer) -> Candidates:
    """The drawings of one prompt with what the scorer thinks of them.

    Raises:
        ValueError: A drawing failed.
    """
    item = drawn[0].item
    if failed := [one.judgement.error for one in drawn if one.judgement.error is not None]:
        raise ValueError(f"{item.wanted!r} was not drawn: {failed[0]}")
    images = [picture_of(one.result) for one in drawn]
    similarity = scorer.image_features(images) @ scorer.text_features([item.wanted]).T
    right = torch.tensor([bool(one.judgement.ok) for one in drawn])
    return Candidates(item.group.removeprefix("draw_"), right, similarity[:, 0])


def errors(judged: Sequence[Candidates], count: int) -> float:
    """The share of wrong drawings, if the best of each `count` is kept.

    The drawings of a prompt are divided into groups of `count`, so that all of them count.
    """
    kept = [right for one in judged for right in best_of_groups(one.right, one.match, count)]
    return 1 - sum(kept) / len(kept)


def best_of_groups(right: Tensor, match: Tensor, count: int) -> list[bool]:
    """Whether the best match of each group of `count` drawings is right."""
    best = match.view(-1, count).argmax(1, keepdim=True)
    return right.view(-1, count).gather(1, best)[:, 0].tolist()


def least_errors(judged: Sequence[Candidates], count: int) -> float:
    """The share of groups of `count` drawings without a right one: what no scorer falls below."""
    right = torch.cat([one.right.view(-1, count).any(1) for one in judged])
    return 1 - right.float().mean().item()


def curve(
    judged: Sequence[Candidates], counts: Sequence[int] = COUNTS
) -> dict[str, dict[str, float]]:
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
    runner: Runner, scorer: ImageTextScorer, prompts: int, most: int = COUNTS[-1], seed: int = SEED
) -> dict[str, dict[str, float]]:
    """The curve on held-out prompts, so many of each kind, up to `most` drawings of each."""
    judged = draw_many(runner, scorer, prompts, most, seed)
    return curve(judged, [count for count in COUNTS if count <= most])
