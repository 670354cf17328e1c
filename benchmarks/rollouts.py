"""Rollouts of reinforcement learning beside transformers' static batches."""

import random
from collections.abc import Iterator, Sequence
from typing import cast

import torch

from benchmarks.measure import median_ratio, medians, paired
from benchmarks.peers.transformers_peer import JanusBatches
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.emoji import captions
from unitok.emoji.sampler import SceneSampler
from unitok.families import ImageOptions
from unitok.families.janus import Janus
from unitok.prompt import Message
from unitok.requests import Draw
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.rollout_model import open_rollout_model
from unitok.training.reinforcement.rollouts import RolloutCollector, RolloutOptions
from unitok_engine import Engine

GUIDANCE = 1.5


def rollouts(setting: Setting) -> Iterator[Result]:
    """A step's rollouts of the embedded model, fp32: 32 prompts, 8 drawings of each, guidance 1.5,
    temperature 1, from prompts to pixels: the median over pairs of transformers' seconds over ours.
    Ours have the log-probabilities of what was sampled from and of the conditional branch. Nothing
    is found of what was computed before. transformers opens the same folder, takes the prompts
    sorted by length and padded on the left, in static batches of the size from 16, 32, 64, 128 and
    256 that is fastest, and tells no log-probabilities."""
    count, samples = setting.either(32, 2), setting.either(8, 2)
    prompts = drawing_prompts(count)
    model = open_rollout_model(None, torch.device("cpu"), torch.float32)
    collect = RolloutCollector(model, RolloutOptions(samples=samples, guidance=GUIDANCE))
    ids = token_ids(setting.embedded.family, prompts, samples)

    def ours() -> None:
        model.driver.between_steps(cast(Engine, model.driver.engine).forget_prefixes)
        assert not any(group.failed for group in collect(prompts))

    peer = setting.janus
    sizes = [n for n in (16, 32, 64, 128, 256) if n <= len(ids)] or [len(ids)]
    trials = {str(n): lambda n=n: in_batches(peer, ids, n) for n in sizes}
    best = min(trials, key=medians(paired(trials, 1, warm_up=0)).__getitem__)
    seconds = paired({"ours": ours, "baseline": trials[best]}, setting.rounds(5))
    model.close()
    total = medians(seconds)
    yield Result(
        f"embedded model, rollouts of {count} prompts x {samples}: faster than transformers",
        median_ratio(seconds, "baseline", "ours"), "x", 1.8, True,
        f"{total['ours']:.1f} s, transformers {total['baseline']:.1f} s in batches of {best}",
    )  # fmt: skip


def drawing_prompts(count: int) -> list[Prompt]:
    """Prompts of drawings of several lengths."""
    chance = random.Random(0)
    texts = [captions.prompt(scene, chance) for scene in SceneSampler(0, "train").batch(count)]
    return [Prompt(f"{i} {text}", Draw(text)) for i, text in enumerate(texts)]


def token_ids(family: Janus, prompts: Sequence[Prompt], samples: int) -> list[tuple[int, ...]]:
    """The conditional branch of each sample, the shortest first."""
    options = ImageOptions(GUIDANCE)
    asked = [prompt.request for prompt in prompts]
    texts = [one.prompt for one in asked if isinstance(one, Draw)]
    specs = [family.generation_spec([Message("user", text)], options) for text in texts]
    branches = sorted((spec.branches[0].token_ids for spec in specs), key=len)
    return [ids for ids in branches for _ in range(samples)]


def in_batches(peer: JanusBatches, ids: Sequence[Sequence[int]], size: int) -> None:
    """All drawings, in static batches of a size."""
    for first in range(0, len(ids), size):
        peer.padded_drawings(ids[first : first + size], GUIDANCE)
