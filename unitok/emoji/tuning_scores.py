"""How the embedded model scores before and after it was tuned, on the same held-out scenes.

What is asked is that of `unitok eval emoji`, every question a second time with the question before
the picture, and prompts that are drawn with several seeds, of which different layouts are counted.
"""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from unitok.api import Model
from unitok.emoji import captions
from unitok.emoji.checker import Found, find
from unitok.emoji.evaluation import EmojiSuite, judge
from unitok.emoji.held_out import held_out_scenes
from unitok.evaluation.matching import Match
from unitok.evaluation.suite import Item, SuiteOptions
from unitok.requests import AnyRequest, Caption, Draw, Reply
from unitok.results import DrawResult, Result
from unitok.strict_json import parse_json

SEEDS = (53_117, 97_411)  # of scenes that were never looked at while anything was chosen
PROMPTS = 300  # of a kind and seed
LAYOUT_PROMPTS = 20  # of a kind and seed, each drawn `LAYOUT_SEEDS` times
LAYOUT_SEEDS = 8
RESAMPLES = 10_000
QUESTION_FIRST = "question_first"
LAYOUTS = "layouts"
BEGINNINGS = (b'{"model"', b'{"key"')  # of a file: what it is of, which an older one leaves out


@dataclass(frozen=True)
class Score:
    """What one thing that was asked is worth.

    Attributes:
        key: Its name, the same for every model.
        group: What it is counted with, such as "draw_count".
        value: 1 for right and 0 for wrong; of a prompt that is drawn with several seeds, how many
            layouts differ.
    """

    key: str
    group: str
    value: float


@dataclass(frozen=True)
class _Asked:
    key: str
    group: str
    request: AnyRequest
    value: Callable[[Result], float]


def score_model(
    model: Model,
    path: Path,
    identity: str,
    prompts: int = PROMPTS,
    seeds: Sequence[int] = SEEDS,
) -> Iterator[Score]:
    """Score a model, and append each score to a file. What the file has already is not asked again.

    Args:
        model: A model of the emoji world.
        path: JSON lines, of which the first says what they are of.
        identity: Of the model and its adapter; see `identity_of_load`.
        prompts: Drawings and scenes of each kind, and questions of each kind, for each seed.
        seeds: Of the scenes.

    Yields:
        Each new score.

    Raises:
        RuntimeError: A request failed.
        OSError: The file cannot be written.
        ValueError: The file is none of scores, or it has those of another model.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {score.key for score in _begun(path, identity, prompts)}
    left = [asked for asked in everything(prompts, seeds) if asked.key not in known]
    with path.open("a", encoding="utf-8") as file:
        for result in model.run(asked.request for asked in left):
            asked = left[result.index]
            if result.error is not None:
                raise RuntimeError(f"{asked.key}: {result.error}")
            score = Score(asked.key, asked.group, asked.value(result))
            file.write(json.dumps(asdict(score)) + "\n")
            file.flush()
            yield score


def _begun(path: Path, identity: str, prompts: int) -> list[Score]:
    """The scores that a file has of a model. A last line that was cut off is removed.

    A file that is not there, or is empty, gets its first line. It also has the number of prompts,
    as another number gives the same keys to other requests.

    Raises:
        ValueError: The file is none of scores, or of another model. It stays as it is.
    """
    first = f"{json.dumps({'model': identity, 'prompts': prompts})}\n".encode()
    data = path.read_bytes() if path.exists() else b""
    if first.startswith(data):
        path.write_bytes(first)
        return []
    scores = read_scores(path)
    if not any(data.startswith(beginning[: len(data)]) for beginning in BEGINNINGS):
        raise ValueError(f"{path} is no file of scores: give another one")
    if not data.startswith(first):
        raise ValueError(
            f"{path} does not say that it is of this model and as many prompts: give another file"
        )
    os.truncate(path, data.rfind(b"\n") + 1)
    return scores


def everything(prompts: int, seeds: Sequence[int]) -> list[_Asked]:
    """All that is asked, for each seed."""
    return [asked for seed in seeds for asked in _of_seed(prompts, seed)]


def _of_seed(prompts: int, seed: int) -> Iterator[_Asked]:
    for item in EmojiSuite(SuiteOptions(limit=prompts, seed=seed)).items():
        request = item.request
        assert not isinstance(request, Match)  # of which this suite has none
        yield _judged(item, f"{seed}-{item.key}", item.group, request)
        if isinstance(request, Caption):
            key, group = f"{seed}-{QUESTION_FIRST}-{item.key}", f"{QUESTION_FIRST}_{item.group}"
            yield _judged(item, key, group, question_first(request))
    rng = random.Random(seed + 2)
    for number, scene in enumerate(held_out_scenes(min(prompts, LAYOUT_PROMPTS), seed)):
        request = Draw(captions.prompt(scene, rng), seed=tuple(range(LAYOUT_SEEDS)), n=LAYOUT_SEEDS)
        yield _Asked(f"{seed}-{LAYOUTS}-{number:05}", LAYOUTS, request, layouts_of)


def _judged(item: Item, key: str, group: str, request: AnyRequest) -> _Asked:
    return _Asked(key, group, request, lambda result: float(bool(judge(item, result).ok)))


def question_first(asked: Caption) -> Reply:
    """The same question in the order in which clients of OpenAI's API send it."""
    question = captions.DESCRIBE_QUESTIONS[0] if asked.question is None else asked.question
    parts = [{"type": "text", "text": question}, {"type": "image", "image": asked.image}]
    return Reply([{"role": "user", "content": parts}])


def layouts_of(result: Result) -> float:
    """How many different layouts the pictures of a prompt have."""
    assert isinstance(result, DrawResult)
    return float(len({_layout(find(image)) for image in result.images}))


def _layout(found: Found) -> tuple[str, frozenset[object]]:
    return found.background, frozenset(found.items)


def read_scores(path: Path) -> list[Score]:
    """The scores in a file, of whatever model. A last line that was cut off is left out.

    Raises:
        OSError: The file cannot be read.
        ValueError: A line is no score.
    """
    numbered = list(enumerate(path.read_text(encoding="utf-8").split("\n"), 1))[:-1]
    if numbered and numbered[0][1].encode().startswith(BEGINNINGS[0]):
        del numbered[0]
    return [_score_of(line, f"{path}:{number}") for number, line in numbered]


def _score_of(line: str, where: str) -> Score:
    try:
        return Score(**parse_json(line.encode()))
    except (ValueError, TypeError):
        raise ValueError(f"{where} is no score; remove the line") from None


# --- two models ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What tuning changed in some scores, by the same requests to both models.

    Attributes:
        name: Of the scores, such as "drawings".
        count: How many requests there are.
        before: The mean before.
        after: The mean after.
        low: The lower end of the paired bootstrap interval of the difference, at 95%.
        high: Its upper end.
        least: What the mean must be at least; None for no bar.
    """

    name: str
    count: int
    before: float
    after: float
    low: float
    high: float
    least: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the mean is as high as it must be."""
        return self.least is None or self.after >= self.least


BARS: Mapping[str, tuple[str, float]] = {
    "drawings": ("draw_*", 0.97),
    "captions": ("caption_*", 0.97),
    "questions": ("question_*", 0.95),
}
"""What the issue asks of groups together: their pattern, and the least mean."""
KIND_BAR = 0.94  # of each kind of drawing
PLACE_BAR = 0.88  # of questions about places
LAYOUT_BAR = 0.9  # of the layouts before


def changes(before: Sequence[Score], after: Sequence[Score], seed: int = 0) -> list[Change]:
    """What changed: of all drawings, captions and questions, and of each group.

    Args:
        before: Scores of a model.
        after: Scores of another one, of the same requests.
        seed: Of the bootstrap.

    Raises:
        ValueError: They are not of the same requests, or there are none of some kind.
    """
    pairs = paired(before, after)
    made = [
        _change(
            name,
            [p for group, ps in pairs.items() if _matches(group, pattern) for p in ps],
            seed,
            least,
        )
        for name, (pattern, least) in BARS.items()
    ]
    made += [_change(group, own, seed, _bar_of(group, own)) for group, own in pairs.items()]
    first = [p for group, ps in pairs.items() if group.startswith(f"{QUESTION_FIRST}_") for p in ps]
    return [*made, _change(QUESTION_FIRST, first, seed, None)]


def _matches(group: str, pattern: str) -> bool:
    return group.startswith(pattern.removesuffix("*")) and not group.startswith(QUESTION_FIRST)


def _bar_of(group: str, pairs: Sequence[tuple[float, float]]) -> float | None:
    if group.startswith("draw_"):
        return KIND_BAR
    if group == LAYOUTS:
        return LAYOUT_BAR * sum(before for before, _ in pairs) / len(pairs)
    return PLACE_BAR if group == "question_place" else None


def paired(before: Sequence[Score], after: Sequence[Score]) -> dict[str, list[tuple[float, float]]]:
    """The values of the same requests, by group.

    Raises:
        ValueError: One side has requests that the other has not.
    """
    others = {score.key: score.value for score in after}
    if others.keys() != {score.key for score in before}:
        raise ValueError("the files are not of the same requests: score both with the same options")
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for score in before:
        groups[score.group].append((score.value, others[score.key]))
    return dict(groups)


def _change(
    name: str, pairs: Sequence[tuple[float, float]], seed: int, least: float | None
) -> Change:
    if not pairs:
        raise ValueError(f"there are no scores of {name}: score has not come to its end")
    values = np.array(pairs, dtype=np.float64)
    before, after = values.mean(0)
    low, high = bootstrap_interval(values[:, 1] - values[:, 0], seed)
    return Change(name, len(pairs), float(before), float(after), low, high, least)


def bootstrap_interval(differences: np.ndarray, seed: int) -> tuple[float, float]:
    """The interval of the mean of paired differences at 95%, by the percentiles of resamples.

    Args:
        differences: Of each request, [n].
        seed: Of the resamples.
    """
    rng, count = np.random.default_rng(seed), len(differences)
    means = [differences[rng.integers(0, count, count)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def table_of(found: Sequence[Change]) -> str:
    """Changes as a Markdown table; shares are in percent, and the layouts are counted."""
    rows = [("", "n", "before", "after", "difference, 95%", "bar"), ("---", *["---:"] * 5)]
    for change in found:
        scale = 1 if change.name == LAYOUTS else 100
        numbers = [f"{scale * number:.1f}" for number in (change.before, change.after)]
        interval = f"{scale * change.low:+.1f} to {scale * change.high:+.1f}"
        reached = "reached" if change.ok else "missed"
        bar = "" if change.least is None else f"{scale * change.least:.1f} {reached}"
        rows.append((change.name, f"{change.count:,}", *numbers, interval, bar))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
