"""What batching saves in an evaluation: the emoji suite beside one request after another."""

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

import unitok
from benchmarks.measure import median_ratio, medians, paired
from benchmarks.report import Result
from benchmarks.setting import Setting
from unitok.api import Model
from unitok.baselines.protocols import Runner
from unitok.emoji.evaluation import EmojiSuite
from unitok.emoji.held_out import PROMPTS
from unitok.evaluation.finishing import finish_run
from unitok.evaluation.journal import Identity
from unitok.evaluation.report import Finished
from unitok.evaluation.run import Run
from unitok.evaluation.suite import SuiteOptions
from unitok.requests import AnyRequest
from unitok.results import Result as ModelResult

FASTER = 5.0  # x
SECONDS = 300.0
WARM_UP = 1  # prompts of each kind


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


class SuiteRuns:
    """Runs of the emoji suite by one contender. Those of all contenders have the same scenes.

    Attributes:
        found: Whether each result is right, and what it says, by the run's seed and the item's key.
    """

    def __init__(self, runner: Runner, prompts: int) -> None:
        """Run nothing yet.

        Args:
            runner: Who is asked.
            prompts: Prompts of each kind.
        """
        self._runner, self._prompts = runner, prompts
        self._seeds = count(50_000)
        self.found: dict[tuple[int, str], tuple[bool | None, str]] = {}

    def warm_up(self) -> None:
        """Run a small suite."""
        run_suite(self._runner, WARM_UP, seed=49_999)

    def __call__(self) -> None:
        """Run the suite of scenes that were not there before: nobody finds their K/V."""
        seed = next(self._seeds)
        judged = run_suite(self._runner, self._prompts, seed).judged
        self.found |= {(seed, one.key): (one.ok, one.said) for one in judged}


def evaluation(setting: Setting) -> Iterator[Result]:
    """The emoji suite (drawings, captions and questions) of the embedded model, fp32, with its
    journal, pictures and report in a folder, as `unitok eval emoji` writes them: the median over
    pairs of the seconds with one request after another and without drafts over those of batches
    with drafts, which are the default; and the seconds of these. Both sides of a pair ask the same
    of models of their own, and each pair has other scenes, so that none finds another's K/V."""
    prompts = setting.either(PROMPTS, 1)
    with unitok.load(device="cpu", dtype="float32", drafts=False) as plain:
        ours = SuiteRuns(setting.api, prompts)
        baseline = SuiteRuns(OneByOne(plain), prompts)
        ours.warm_up()
        baseline.warm_up()
        seconds = paired({"ours": ours, "baseline": baseline}, setting.rounds(3), warm_up=0)
    took = medians(seconds)
    same = sum(ours.found[place] == found for place, found in baseline.found.items())
    yield Result(
        f"emoji suite, {prompts} prompts a kind: faster than one after another without drafts",
        median_ratio(seconds, "baseline", "ours"), "x", FASTER, True,
        f"{took['ours']:.1f} s, one after another {took['baseline']:.1f} s; "
        f"the same in {same} of {len(ours.found)} results",
    )  # fmt: skip
    yield Result(
        f"emoji suite, {prompts} prompts a kind", took["ours"], "s", SECONDS, False,
        f"{14 * prompts} drawings, captions and answers",
    )  # fmt: skip


def run_suite(runner: Runner, prompts: int, seed: int) -> Finished:
    """Ask the emoji suite, and write all that a run writes."""
    suite = EmojiSuite(SuiteOptions(limit=prompts, seed=seed))
    identity = Identity(suite.name, runner.name, "", suite.settings, {})
    with tempfile.TemporaryDirectory() as folder:
        run = Run(suite, suite.items(), Path(folder), identity)
        for _ in run.outcomes(runner):
            pass
        return finish_run(run, {})
