"""What can be trained: how, how it is saved, and how it is scored."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import unitok
from unitok.baselines.opening import load as load_baseline
from unitok.emoji.baselines import clip, diffusion, lit, ours
from unitok.emoji.baselines.budget import Budget
from unitok.emoji.baselines.clip import ClipRun
from unitok.emoji.baselines.contrast import TowerScorer
from unitok.emoji.baselines.diffusion import DiffusionRun
from unitok.emoji.baselines.lit import Lit, LitRun
from unitok.emoji.baselines.scoring import Scored, score_matching, score_runner
from unitok.emoji.pretraining import PretrainRun
from unitok.requests import Caption, Draw
from unitok.training.trainer import Trainer


@dataclass(frozen=True)
class Recipe:
    """A kind of baseline.

    Attributes:
        make_trainer: Of a seed and a budget.
        save: Writes what a trainer has trained to a folder.
        score: Opens that folder, and scores it on so many held-out scenes of each kind.
        given: What it does not learn, in words.
        pace: How many updates two cores that do nothing else made in a core-minute, by
            `scripts/train_baseline.py pace`; docs/baselines.md names the cores.
    """

    make_trainer: Callable[[int, Budget], Trainer[Any]]
    save: Callable[[Trainer[Any], Path], None]
    score: Callable[[Path, int], Scored]
    given: str
    pace: float = 1.0


def score_clip(folder: Path, count: int) -> Scored:
    """Matching by a CLIP."""
    return score_matching(load_baseline(folder, "scorer", device="cpu"), count)


def score_lit(folder: Path, count: int) -> Scored:
    """Matching by locked towers."""
    return score_matching(TowerScorer("LiT", Lit.open(folder)), count)


def score_diffusion(folder: Path, count: int) -> Scored:
    """Drawings by a diffusion pipeline."""
    with closing(load_baseline(folder, "generator", device="cpu", **diffusion.SAMPLING)) as runner:
        return score_runner(runner, count)


def score_ours(folder: Path, count: int) -> Scored:
    """Drawings, captions and answers by a model of the embedded kind."""
    with unitok.load(folder, device="cpu") as model:
        return score_runner(model, count, (Draw, Caption))


RECIPES: dict[str, Recipe] = {
    "clip": Recipe(
        lambda seed, budget: clip.make_trainer(ClipRun(seed=seed), budget),
        clip.save,
        score_clip,
        "nothing",
        pace=46,
    ),
    "lit": Recipe(
        lambda seed, budget: lit.make_trainer(LitRun(seed=seed), budget),
        lit.save,
        score_lit,
        "EfficientNet-Lite0, MiniLM",
        pace=8,
    ),
    "diffusion": Recipe(
        lambda seed, budget: diffusion.make_trainer(DiffusionRun(seed=seed), budget),
        diffusion.save,
        score_diffusion,
        "MiniLM",
        pace=35,
    ),
    "ours": Recipe(
        lambda seed, budget: ours.make_trainer(PretrainRun(seed=seed), budget),
        ours.save,
        score_ours,
        "image tokenizer",
        pace=21,
    ),
}


def measure_pace(recipe: Recipe, updates: int, clock: Callable[[], float]) -> float:
    """How many updates a recipe makes in a minute here.

    Args:
        recipe: What is trained, and thrown away.
        updates: How many are timed, behind two that are not.
        clock: Seconds since any moment.

    Returns:
        Updates in 60 of these seconds.
    """
    trainer = recipe.make_trainer(0, Budget(updates, clock))
    for _ in range(2):
        trainer.step()
    began = clock()
    for _ in range(updates):
        trainer.step()
    return 60 * updates / (clock() - began)


def parameters(trainer: Trainer[Any]) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in trainer.trained)


def use_threads(count: int) -> None:
    """Let torch compute with so many threads."""
    torch.set_num_threads(count)
