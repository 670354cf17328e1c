"""What a trained baseline gets right, what it gets wrong, and how long a picture takes."""

import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from unitok.emoji import captions
from unitok.emoji.baselines.matching import (
    Choice,
    Matched,
    Matcher,
    choices,
    match,
    matching_scores,
)
from unitok.emoji.baselines.progress import in_steps
from unitok.emoji.evaluation import SEED, JudgedDrawing, drawing_scores, held_out_scenes, judge
from unitok.emoji.rendering import render, to_pil
from unitok.evaluation.metrics import rate

Draw = Callable[[Sequence[str], Sequence[int]], list[Image.Image]]
SCORES, FAILURES = "scores.json", "failures"
AT_ONCE = 100  # drawings
ALONE = 10  # pictures that are timed alone
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


def score_drawings(draw: Draw, prompts: int, seed: int = SEED) -> Scored:
    """Draw held-out prompts, the i-th with seed i, and check what was drawn.

    Args:
        draw: Makes pictures of prompts, by their seeds.
        prompts: How many of each kind.
        seed: Of the scenes.
    """
    asked = held_out_prompts(prompts, seed)
    texts = [prompt for _, prompt in asked]
    draw(texts[:1], [0])  # so that no time holds what is done once
    alone = [seconds_of(lambda i=i: draw(texts[i : i + 1], [i])) for i in range(len(texts))[:ALONE]]
    began = time.monotonic()
    images = draw_all(draw, texts, "drawing")
    together = time.monotonic() - began
    judged = [judge(*one, image) for one, image in zip(asked, images, strict=True)]
    scores = drawing_scores(judged)
    scores["draw_mean"] = rate(list(scores.values()))
    scores["seconds_alone"] = statistics.median(alone)
    scores["seconds_in_batch"] = together / len(texts)
    return Scored(scores, [failed_drawing(drawn) for drawn in judged if not drawn.ok])


def draw_all(draw: Draw, texts: Sequence[str], what: str) -> list[Image.Image]:
    """A picture of each text, the i-th with seed i, in parts, with a bar on stderr."""
    images: list[Image.Image] = []
    for start in in_steps(range(0, len(texts), AT_ONCE), what):
        part = range(start, min(start + AT_ONCE, len(texts)))
        images += draw([texts[i] for i in part], part)
    return images


def held_out_prompts(count: int, seed: int = SEED) -> list[tuple[str, str]]:
    """The kind and the prompt of held-out scenes, `count` of each kind."""
    rng = random.Random(seed)
    return [(scene.kind, captions.prompt(scene, rng)) for scene in held_out_scenes(count, seed)]


def failed_drawing(drawn: JudgedDrawing) -> Failure:
    """A drawing that is not what was asked for."""
    return Failure(drawn.kind, drawn.prompt, drawn.reason, drawn.image)


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
