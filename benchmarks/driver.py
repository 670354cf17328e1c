"""What the driver costs, and what one caller notices of another."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks import requests
from benchmarks.measure import median_ratio, paired
from benchmarks.measure import medians as median_times
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.api import Model
from unitok.drafts import KeptTable, drafter_of
from unitok.driver import Driver
from unitok.handles import TokenJob
from unitok.image_decoder import ImageDecoder
from unitok.nn.model import UnifiedModel
from unitok.preparer import Preparer
from unitok.requests import Caption, Draw
from unitok_engine import Engine, EngineConfig

PROMPT = "two apples on a blue background"


class InPlace:
    """A drawing whose caller steps an engine of its own: no thread, no handle."""

    def __init__(self, model: Model) -> None:
        decoder = model.family.model
        config = EngineConfig(max_context=model.info().context)
        drafter = drafter_of(decoder, KeptTable.of(decoder).table)  # as the model has it
        self._engine = Engine(decoder, config, drafter=drafter)
        self._painter = ImageDecoder(model.device, background=False)
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


def driver(setting: Setting) -> Iterator[Result]:
    """What the thread that steps costs its callers, and what one caller notices of another. One
    drawing of the embedded model beside one whose caller steps an engine of its own (pairs). Time
    to submit a request while 8 guided drawings run at Janus-Pro-1B's shape. A caption that arrives
    when 600 drawings of another caller (one prompt, n = 600) fill every step, beside one that was
    admitted first; and how the crowd's time changes by it (the same seeds; medians)."""
    seconds = overhead(setting.api, setting.rounds(31))
    detail = ", ".join(
        f"{name} {1000 * time:.1f} ms" for name, time in median_times(seconds).items()
    )
    ratio = median_ratio(seconds, "driver", "in place")
    yield Result(
        "one drawing: time over that of stepping in place", ratio, "x", 1.03, False, detail
    )
    submits = sorted(submitting(setting.big, setting.either(200, 5)))
    detail = f"median of {len(submits)}; the longest {1000 * submits[-1]:.2f} ms"
    median, late = submits[len(submits) // 2], submits[int(0.99 * len(submits))]
    yield Result("submitting amid 1B steps", 1000 * median, "ms", 1.0, False, detail)
    yield Result("submitting amid 1B steps, 99 of 100", 1000 * late, "ms", 10.0, False)
    yield from crowded(setting, setting.either(600, 8))


def crowded(setting: Setting, count: int) -> Iterator[Result]:
    """A caption beside a crowd of so many drawings, and the crowd beside the caption."""
    model, scene = setting.api, Caption(setting.scene)
    runs: dict[str, Callable[[int], Crowded]] = {
        "alone": lambda seed: crowd_alone(model, count, seed),
        "first": lambda seed: caption_first(model, count, seed, scene),
        "beside": lambda seed: caption_beside(model, count, seed, scene),
    }
    kinds: dict[str, list[Crowded]] = {kind: [] for kind in runs}
    for seed in range(setting.rounds(4)):
        for kind in sorted(runs, reverse=bool(seed % 2)):
            kinds[kind].append(runs[kind](seed))
    alone, first, beside = (medians(found) for found in kinds.values())
    yield Result(
        f"a caption beside {count} drawings: steps to its first token", beside.steps, "", 3, False,
        "the most of all runs",
    )  # fmt: skip
    yield Result(
        f"a caption beside {count} drawings: time over that of one admitted first",
        beside.caption / first.caption, "x", 1.5, False,
        f"{beside.caption:.2f} s, admitted first {first.caption:.2f} s",
    )  # fmt: skip
    yield Result(
        f"{count} drawings with that caption beside them: time over that of the drawings alone",
        beside.crowd / alone.crowd, "x", 1.05, False,
        f"{beside.crowd:.1f} s, alone {alone.crowd:.1f} s",
    )  # fmt: skip
