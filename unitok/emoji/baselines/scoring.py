"""What a trained baseline gets right, what it gets wrong, and how long a picture takes."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.baselines.protocols import ImageTextScorer, Runner
from unitok.checkpoints.folders import read_json
from unitok.emoji.baselines.progress import with_bar
from unitok.emoji.evaluation import EmojiSuite
from unitok.emoji.held_out import SEED
from unitok.emoji.matching import EmojiMatchingSuite
from unitok.evaluation.matching import Match, ScorerRunner
from unitok.evaluation.run import Judged, run_items
from unitok.evaluation.suite import Item, Suite, SuiteOptions, picture_of
from unitok.requests import Draw
from unitok.saving import write_whole

SCORES, FAILURES = "scores.json", "failures"
ALONE, TOGETHER = 10, 50  # pictures that are timed alone, and in a batch
TIMED = 20  # scenes of each kind that are enough for both
SECONDS = ("seconds_alone", "seconds_in_batch")
SHOWN = 24  # failures that are kept


@dataclass(frozen=True)
class Failure:
    """What was got wrong.

    Attributes:
        kind: Of the scene.
        asked: The prompt, or the true caption.
        found: What is wrong, in words.
        image: The drawing, or the picture that was shown.
    """

    kind: str
    asked: str
    found: str
    image: Image.Image


@dataclass(frozen=True)
class Scored:
    """Scores by name, and failures."""

    scores: dict[str, float]
    failures: list[Failure]


def score_runner(
    runner: Runner, count: int, takes: tuple[type, ...] = (Draw,), seed: int = SEED
) -> Scored:
    """Ask what `unitok eval emoji` asks, and time drawings.

    Args:
        runner: The model; it draws.
        count: Held-out scenes of each kind.
        takes: The kinds of requests that it can be asked.
        seed: Of the scenes.
    """
    suite = EmojiSuite(SuiteOptions(limit=count, seed=seed))
    return _score(runner, suite, [i for i in suite.items() if isinstance(i.request, takes)])


def score_matching(scorer: ImageTextScorer, count: int, seed: int = SEED) -> Scored:
    """Ask what `unitok eval emoji-matching` asks, and time it."""
    suite = EmojiMatchingSuite(SuiteOptions(limit=count, seed=seed))
    return _score(ScorerRunner(scorer), suite, suite.items())


def _score(runner: Runner, suite: Suite, items: Sequence[Item]) -> Scored:
    judged = list(with_bar(run_items(runner, suite, items), len(items), "scoring"))
    place = {item.key: index for index, item in enumerate(items)}
    judged.sort(key=lambda one: place[one.item.key])
    scores = suite.summary([one.judgement for one in judged]).scores | seconds(runner, items)
    wrong = [failure for one in judged if not one.judgement.ok and (failure := failed(one))]
    return Scored(scores, wrong)


def seconds(runner: Runner, items: Sequence[Item]) -> dict[str, float]:
    """How long a drawing or a match takes, alone and in a batch of all kinds."""
    asked = [item.request for item in items if isinstance(item.request, Draw | Match)]
    alone = [seconds_of(lambda one=one: list(runner.run([one]))) for one in asked[:ALONE]]
    batch = asked[:: max(1, len(asked) // TOGETHER)]
    together = seconds_of(lambda: list(runner.run(batch)))
    return dict(zip(SECONDS, (statistics.median(alone), together / len(batch)), strict=True))


def failed(wrong: Judged) -> Failure | None:
    """A drawing, or a picture to which a wrong caption was given; None for another failure."""
    item, said = wrong.item, wrong.judgement.said
    _, _, kind = item.group.partition("_")
    if isinstance(item.request, Match):
        return Failure(kind, item.wanted, f"chosen: {said}", item.request.image)
    drawn = picture_of(wrong.result)
    return drawn and Failure(kind, item.wanted, said, drawn)


def seconds_of(work: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def write_scores(folder: Path, scored: Scored, about: Mapping[str, Any]) -> None:
    """Write scores.json, and failures/ with some of them, of all kinds.

    Args:
        folder: The run's.
        scored: What was found.
        about: What scores.json says of the run besides.
    """
    shown = spread(scored.failures, SHOWN)
    (folder / FAILURES).mkdir(exist_ok=True)
    for old in (folder / FAILURES).glob("*.png"):
        old.unlink()
    listed = []
    for number, failure in enumerate(shown):
        name = f"{FAILURES}/{number:02}.png"
        failure.image.save(folder / name)
        said = {"kind": failure.kind, "asked": failure.asked, "found": failure.found}
        listed.append(said | {"picture": name})
    scores = {name: round(value, 4) for name, value in scored.scores.items()}
    record = {**about, "scores": scores, "failures": listed}
    _write_record(folder, record)


def replace_seconds(folder: Path, found: Scored, threads: int) -> None:
    """Write other times into a run's scores.json, and by how many threads they were measured."""
    before = read_json(folder / SCORES)
    measured = {name: round(found.scores[name], 4) for name in SECONDS}
    record = {**before, "scores": {**before["scores"], **measured}, "threads": threads}
    _write_record(folder, record)


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    data = json.dumps(record, indent=2) + "\n"
    write_whole(data.encode(), folder / SCORES)


def spread(failures: Sequence[Failure], most: int) -> list[Failure]:
    """Some failures: the first of each kind, then the second, and so on."""
    kinds = dict.fromkeys(failure.kind for failure in failures)
    queues = [[f for f in failures if f.kind == kind] for kind in kinds]
    longest = max(map(len, queues), default=0)
    mixed = [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
    return mixed[:most]
