"""What the driver costs, and what one caller notices of another: see `comparisons.driver`."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import requests
from benchmarks.measure import paired
from unitok.api import Model
from unitok.driver import Driver
from unitok.handles import TokenJob
from unitok.jobs import Preparer
from unitok.model import UnifiedModel
from unitok.painting import Painter
from unitok.requests import Caption, Draw
from unitok_engine import Engine, EngineConfig

PROMPT = "two apples on a blue background"


class InPlace:
    """A drawing whose caller steps an engine of its own: no thread, no handle."""

    def __init__(self, model: Model) -> None:
        self._engine = Engine(model.family.model, EngineConfig(max_context=model.info().context))
        self._painter = Painter(model.device, background=False)
        self._prepare = Preparer(model.family, self._painter)

    def draw(self, prompt: str, seed: int) -> object:
        """Draw one picture from beginning to end."""
        job = self._prepare.job(Draw(prompt, seed=seed))
        self._engine.add(job.request)
        while not job.ended:
            for output in self._engine.step():
                job.feed(output)
        while job.result is None:
            self._painter.work()
        return job.result


def overhead(model: Model, rounds: int) -> dict[str, list[float]]:
    """Seconds of one drawing through the driver, and of one whose caller steps."""
    in_place = InPlace(model)
    seeds = iter(range(10**9))
    return paired(
        {
            "driver": lambda: model.draw(PROMPT, seed=next(seeds)),
            "in place": lambda: in_place.draw(PROMPT, seed=next(seeds)),
        },
        rounds,
        warm_up=2,
    )


def submitting(model: UnifiedModel, count: int) -> list[float]:
    """Seconds that `submit` takes, at `count` moments in the steps of 8 guided drawings."""
    config = EngineConfig(memory=0.3, max_running=64, max_context=1024)
    with_work = Driver(Engine(model, config))
    crowd = [
        with_work.submit(TokenJob(requests.guided(model, 64, 576, seed)), share="crowd")
        for seed in range(8)
    ]
    seconds = []
    for seed in range(count):
        job = TokenJob(requests.text(model, 16, 1, seed))
        time.sleep(0.002 + 0.013 * (seed % 7))  # another moment of a step each time
        start = time.perf_counter()
        handle = with_work.submit(job)
        seconds.append(time.perf_counter() - start)
        handle.cancel()
    assert not any(handle.done for handle in crowd), "the steps ended before the measurement"
    with_work.close()
    return seconds


@dataclass(frozen=True)
class Crowded:
    """A crowd of drawings, and a caption among them.

    Attributes:
        crowd: Seconds of all drawings.
        caption: Seconds of the caption.
        steps: Steps until the caption's first token.
    """

    crowd: float
    caption: float = 0.0
    steps: int = 0


def crowd_alone(model: Model, count: int, seed: int) -> Crowded:
    """Drawings of one prompt that have the model to themselves."""
    start = time.perf_counter()
    model.draw(PROMPT, n=count, seed=seed)
    return Crowded(time.perf_counter() - start)


def caption_first(model: Model, count: int, seed: int, scene: Caption) -> Crowded:
    """A caption that is admitted first, with the crowd behind it in the same steps."""
    caption = model.driver.submit(model.prepare.job(scene))
    began = time.perf_counter()
    crowd = model.driver.submit(model.prepare.job(Draw(PROMPT, n=count, seed=seed)))
    caption.result()
    took = time.perf_counter() - began
    crowd.result()
    return Crowded(time.perf_counter() - began, took)


def caption_beside(model: Model, count: int, seed: int, scene: Caption) -> Crowded:
    """A caption that arrives when the crowd fills every step already."""
    start, forwards = time.perf_counter(), model.stats().forwards
    crowd = model.driver.submit(model.prepare.job(Draw(PROMPT, n=count, seed=seed)))
    while model.stats().forwards < forwards + 3:
        time.sleep(0.001)
    began, before = time.perf_counter(), model.stats().forwards
    caption = model.driver.submit(model.prepare.job(scene), stream=True)
    tokens = iter(caption)
    next(tokens)
    steps = model.stats().forwards - before
    caption.result()
    took = time.perf_counter() - began
    crowd.result()
    return Crowded(time.perf_counter() - start, took, steps)


def medians(runs: Sequence[Crowded]) -> Crowded:
    """The median seconds of several runs, and the most steps of any."""
    return Crowded(
        statistics.median(run.crowd for run in runs),
        statistics.median(run.caption for run in runs),
        max(run.steps for run in runs),
    )
