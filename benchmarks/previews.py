"""What previews cost: drawings that are streamed with them, and the same without."""

import asyncio
import random
from collections.abc import Iterator, Sequence

from benchmarks.measure import median_ratio, medians, paired
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.api import Model
from unitok.emoji.captions import prompt
from unitok.emoji.sampler import SceneSampler
from unitok.requests import Draw


class Streams:
    """Drawings of held-out scenes that begin together, and whose events are read as they come.

    Attributes:
        shown: How many previews there were so far.
        drawn: How many pictures.
    """

    def __init__(self, model: Model, at_once: int, preview: bool) -> None:
        self._model, self._at_once, self._preview = model, at_once, preview
        self._scenes, self._random = SceneSampler(5, "heldout"), random.Random(5)
        self.shown = self.drawn = 0

    def __call__(self) -> None:
        """Draw the next scenes."""
        asyncio.run(self._draw(list(self._next())))

    async def _draw(self, asked: Sequence[Draw]) -> None:
        await asyncio.gather(*map(self._read, asked))

    async def _read(self, asked: Draw) -> None:
        async for event in self._model.astream(asked):
            self.shown += event.kind == "preview"
            self.drawn += event.kind == "image"

    def _next(self) -> Iterator[Draw]:
        for _ in range(self._at_once):
            scene = self._scenes.sample()
            yield Draw(prompt(scene, self._random), seed=self.drawn, preview=self._preview)


def previews(setting: Setting) -> Iterator[Result]:
    """Drawings of held-out prompts by the embedded model, fp32, as users open it, streamed to a
    caller who takes every event: the median over pairs of the seconds with previews, by the default
    budget, over those of the same drawings without."""
    for at_once, rounds in ((1, 61), (16, 15)):
        sides = {
            name: Streams(setting.api, at_once, preview=name == "with")
            for name in ("with", "without")
        }
        seconds = paired(sides, setting.rounds(rounds), warm_up=2)
        total, side = medians(seconds), sides["with"]
        yield Result(
            f"embedded model, {at_once} at once: time with previews over that without",
            median_ratio(seconds, "with", "without"), "x", 1.10, False,
            f"{1000 * total['with']:.0f} ms, without {1000 * total['without']:.0f} ms; "
            f"{side.shown / side.drawn:.2f} previews a picture",
        )  # fmt: skip
