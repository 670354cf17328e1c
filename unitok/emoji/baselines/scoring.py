"""What a trained baseline gets right, what it gets wrong, and how long a picture takes."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from unitok.baselines.protocols import Runner
from unitok.emoji.baselines.matching import (
    Choice,
    Matched,
    Matcher,
    choices,
    match,
    matching_scores,
)
from unitok.emoji.baselines.progress import with_bar
from unitok.emoji.evaluation import SEED, EmojiSuite, emoji_scores
from unitok.emoji.rendering import render, to_pil
from unitok.evaluation.run import Judged, run_items
from unitok.evaluation.suite import Item, SuiteOptions, picture_of
from unitok.requests import Draw

SCORES, FAILURES = "scores.json", "failures"
ALONE, TOGETHER = 10, 50  # drawings that are timed alone, and in a batch
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
    """Ask what the emoji suite asks, as `unitok eval emoji` does, and time drawings.

    Args:
        runner: The model; it draws.
        count: Held-out scenes of each kind.
        takes: The kinds of requests that it can be asked.
        seed: Of the scenes.
    """
    suite = EmojiSuite(SuiteOptions(limit=count, seed=seed))
    items = [item for item in suite.items() if isinstance(item.request, takes)]
    judged = list(with_bar(run_items(runner, suite, items), len(items), "scoring"))
    scores = emoji_scores([one.judgement for one in judged])
    scores |= drawing_seconds(runner, items)
    wrong = [one for one in judged if picture_of(one.result) and not one.judgement.ok]
    return Scored(scores, [failed_drawing(one) for one in wrong])


def drawing_seconds(runner: Runner, items: Sequence[Item]) -> dict[str, float]:
    """How long a drawing takes, alone and in a batch."""
    asked = [item.request for item in items if isinstance(item.request, Draw)]
    alone = [seconds_of(lambda one=one: list(runner.run([one]))) for one in asked[:ALONE]]
    batch = asked[:: max(1, len(asked) // TOGETHER)]  # of all kinds
    together = seconds_of(lambda: list(runner.run(batch)))
    return {
        "seconds_alone": statistics.median(alone),
        "seconds_in_batch": together / len(batch),
    }


def failed_drawing(drawn: Judged) -> Failure:
    """A drawing that is not what was asked for."""
    kind = drawn.item.group.removeprefix("draw_")
    return Failure(kind, drawn.item.wanted, drawn.judgement.said, picture_of(drawn.result))


def score_matching(matcher: Matcher, count: int, seed: int = SEED) -> Scored:
    """Choose among ten captions of held-out pictures.

    Args:
        matcher: What chooses.
        count: Pictures of each kind.
        seed: Of the scenes.
    """
    asked = choices(count, seed)
    began = time.monotonic()
    matched = match(matcher, asked)
    together = time.monotonic() - began
    images = [to_pil(pixels) for pixels in render([choice.scene for choice in asked[:ALONE]])]
    alone = [
        seconds_of(lambda picture=image, choice=choice: _look(matcher, picture, choice))
        for choice, image in zip(asked, images, strict=False)
    ]
    scores = matching_scores(matched)
    scores["seconds_alone"] = statistics.median(alone)
    scores["seconds_in_batch"] = together / len(asked)
    return Scored(scores, [failed_match(one) for one in matched if not one.ok])


def _look(matcher: Matcher, image: Image.Image, choice: Choice) -> Tensor:
    return matcher.image_features([image]) @ matcher.text_features(choice.captions).T


def failed_match(matched: Matched) -> Failure:
    """A picture to which a wrong caption was given."""
    return Failure(matched.kind, matched.right, f"chosen: {matched.chosen}", matched.image)


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
    (folder / SCORES).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def spread(failures: Sequence[Failure], most: int) -> list[Failure]:
    """Some failures: the first of each kind, then the second, and so on."""
    kinds = dict.fromkeys(failure.kind for failure in failures)
    queues = [[f for f in failures if f.kind == kind] for kind in kinds]
    longest = max(map(len, queues), default=0)
    mixed = [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
    return mixed[:most]
