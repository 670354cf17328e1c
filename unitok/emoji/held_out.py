"""What all suites of held-out scenes share: which scenes they are of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from unitok.emoji.rendering import render
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import KINDS, Scene
from unitok.evaluation.suite import Judgement, SuiteOptions

SEED = 20_000  # of the held-out scenes, unless another is asked for; training uses others
PROMPTS = 100  # drawings and scenes of each kind, and questions of each kind


def held_out_scenes(count: int, seed: int = SEED) -> list[Scene]:
    """`count` scenes of each kind."""
    sampler = SceneSampler(seed, "heldout")
    return [scene for kind in KINDS for scene in sampler.batch(count, kind)]


def rendered(scenes: Sequence[Scene]) -> list[tuple[Scene, Tensor]]:
    """Each scene with its picture, float32 [3, 64, 64] in [0, 1]."""
    return list(zip(scenes, render(scenes), strict=True))


class HeldOutSuite:
    """The part of a suite that says which scenes it is of. What it asks of them is its own.

    Attributes:
        count: How many scenes there are of each kind.
        seed: Of the scenes.
    """

    def __init__(self, options: SuiteOptions) -> None:
        """Keep the number of scenes of each kind, and their seed."""
        self.count = PROMPTS if options.limit is None else options.limit
        self.seed = SEED if options.seed is None else options.seed

    @property
    def settings(self) -> dict[str, Any]:
        """See `Suite`."""
        return {"limit": self.count, "seed": self.seed}

    @cached_property
    def scenes(self) -> list[Scene]:
        """The scenes."""
        return held_out_scenes(self.count, self.seed)

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """There is no format of others for it."""
