"""What batching saves in an evaluation: the emoji suite beside one request after another."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

from benchmarks.measure import median_ratio, medians, paired
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.api import Model
from unitok.baselines.protocols import Runner
from unitok.emoji.evaluation import PROMPTS, EmojiSuite
from unitok.evaluation.finishing import finish_run
from unitok.evaluation.journal import Identity
from unitok.evaluation.run import Run
from unitok.evaluation.suite import SuiteOptions
from unitok.requests import AnyRequest
from unitok.results import Result as ModelResult


class OneByOne:
    """A model that is asked one request after another.

    Attributes:
        name: The model's.
    """

    def __init__(self, model: Model) -> None:
        """Keep the model."""
        self._model, self.name = model, model.name

    def run(self, requests: Iterable[AnyRequest]) -> Iterator[ModelResult]:
        """Each result before the next request."""
        for index, request in enumerate(requests):
            for result in self._model.run([request]):
                yield dataclasses.replace(result, index=index)

    def close(self) -> None:
        """The model is not ours to close."""


def evaluation(setting: Setting) -> Iterator[Result]:
    """The emoji suite (drawings, captions and questions) of the embedded model, fp32, with its
    journal, pictures and report in a folder, as `unitok eval emoji` writes them: the median over
    pairs of the seconds with one request after another over those of batches, 10 prompts of each
    kind; and the seconds of 100 prompts of each kind. Every run has scenes of its own, so that none
    finds another's K/V."""
    model, seeds = setting.api, count(50_000)
    prompts = setting.either(10, 1)
    contenders = {
        "ours": lambda: run_suite(model, prompts, next(seeds)),
        "baseline": lambda: run_suite(OneByOne(model), prompts, next(seeds)),
    }
    seconds = paired(contenders, setting.rounds(3))
    total = medians(seconds)
    yield Result(
        f"emoji suite, {prompts} prompts a kind: faster than one after another",
        median_ratio(seconds, "baseline", "ours"), "x", 5.0, True,
        f"{total['ours']:.1f} s, one after another {total['baseline']:.1f} s",
    )  # fmt: skip
    prompts = setting.either(PROMPTS, 1)
    whole: dict[str, Callable[[], object]] = {
        "ours": lambda: run_suite(model, prompts, next(seeds))
    }
    took = medians(paired(whole, 1, warm_up=0))["ours"]
    yield Result(
        f"emoji suite, {prompts} prompts a kind", took, "s", 300.0, False,
        f"{14 * prompts} drawings, captions and answers",
    )  # fmt: skip


def run_suite(runner: Runner, prompts: int, seed: int) -> None:
    """Ask the emoji suite, and write all that a run writes."""
    suite = EmojiSuite(SuiteOptions(limit=prompts, seed=seed))
    identity = Identity(suite.name, runner.name, "", suite.settings, {})
    with tempfile.TemporaryDirectory() as folder:
        run = Run(suite, suite.items(), Path(folder), identity)
        for _ in run.outcomes(runner):
            pass
        finish_run(run, {})
