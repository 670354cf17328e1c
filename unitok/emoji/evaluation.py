"""How well a model reads and draws the emoji world, on combinations it never saw.

In the manner of GenEval (https://arxiv.org/abs/2310.11513): a checker finds what was drawn.
Everything goes through the API that users call.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unitok.api import Model
from unitok.emoji import captions
from unitok.emoji.checker import check
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import KINDS, Scene
from unitok.evaluation.grid import picture_grid
from unitok.evaluation.metrics import answers, drawings, rate, reconstruction_psnr
from unitok.requests import Caption, Draw

SEED = 20_000  # of the held-out scenes, unless another is asked for; training uses others
GRID_COLUMNS = 10


@dataclass(frozen=True)
class JudgedDrawing:
    """One drawing and what the checker found.

    Attributes:
        kind: The kind of the scene that was asked for.
        prompt: What was asked for.
        image: What was drawn.
        ok: Whether it shows what was asked for, and nothing else.
        reason: Why not, in words.
    """

    kind: str
    prompt: str
    image: Image.Image
    ok: bool
    reason: str


@dataclass(frozen=True)
class Report:
    """Scores of a model.

    Attributes:
        scores: Shares in [0, 1] by name; image_tokenizer_psnr is in dB.
        grid: A picture of drawings.
        drawn: All drawings.
    """

    scores: dict[str, float]
    grid: Image.Image
    drawn: tuple[JudgedDrawing, ...]


def report(model: Model, prompts: int = 100, seed: int = SEED) -> Report:
    """Score drawings, captions, answers and reconstructions of held-out scenes.

    Args:
        model: A model of the emoji world.
        prompts: Drawings and scenes of each kind, and questions of each kind.
        seed: Of the scenes.
    """
    drawn = draw_held_out(model, prompts, seed)
    scores = drawing_scores(drawn)
    scores["draw_mean"] = rate(list(scores.values()))
    scenes = held_out_scenes(prompts, seed)
    scores["caption"] = caption_score(model, scenes)
    scores |= {
        f"question_{kind}": answer_score(model, kind, prompts, seed)
        for kind in captions.QUESTION_KINDS
    }
    scores["image_tokenizer_psnr"] = reconstruction_psnr(model, render(scenes))
    scores = {name: round(value, 4) for name, value in scores.items()}
    return Report(scores, drawing_grid(drawn), tuple(drawn))


def held_out_scenes(count: int, seed: int = SEED) -> list[Scene]:
    """`count` scenes of each kind."""
    sampler = SceneSampler(seed, "heldout")
    return [scene for kind in KINDS for scene in sampler.batch(count, kind)]


def draw_held_out(
    model: Model, prompts: int, seed: int = SEED, **sampling: Any
) -> list[JudgedDrawing]:
    """Draw held-out prompts, the i-th with seed i, and check what was drawn.

    Args:
        model: A model of the emoji world.
        prompts: How many of each kind.
        seed: Of the scenes.
        **sampling: Options of `Draw`, such as temperature and guidance.
    """
    rng, scenes = random.Random(seed), held_out_scenes(prompts, seed)
    asked = [(scene.kind, captions.prompt(scene, rng)) for scene in scenes]
    requests = [Draw(prompt, seed=i, **sampling) for i, (_, prompt) in enumerate(asked)]
    results = drawings(model, requests)
    return [
        judge(*kind_and_prompt, r.image) for kind_and_prompt, r in zip(asked, results, strict=True)
    ]


def judge(kind: str, prompt: str, image: Image.Image) -> JudgedDrawing:
    """Check one drawing.

    Raises:
        ValueError: The prompt is not of the emoji world's grammar.
    """
    claim = captions.parse(prompt)
    if claim is None:
        raise ValueError(f"the checker cannot read the prompt {prompt!r}")
    verdict = check(image, claim)
    return JudgedDrawing(kind, prompt, image, verdict.ok, verdict.reason)


def drawing_scores(drawn: Sequence[JudgedDrawing]) -> dict[str, float]:
    """The share of right drawings of each kind, as draw_KIND."""
    return {f"draw_{kind}": rate([d.ok for d in drawn if d.kind == kind]) for kind in KINDS}


def caption_score(model: Model, scenes: Sequence[Scene]) -> float:
    """The share of scenes whose caption is true and complete."""
    texts = answers(model, [Caption(to_pil(pixels)) for pixels in render(scenes)])
    return rate([captions.equivalent(t, s) for t, s in zip(texts, scenes, strict=True)])


def answer_score(model: Model, kind: str, count: int, seed: int = SEED) -> float:
    """The share of questions of one kind answered right, on held-out scenes."""
    rng = random.Random(seed + 1)
    scenes = held_out_scenes(count, seed)
    scenes = [s for s in scenes if kind in captions.question_kinds(s)]
    rng.shuffle(scenes)
    scenes = scenes[:count]
    asked = [captions.questions(scene, rng, kind) for scene in scenes]
    requests = [
        Caption(to_pil(p), question=q.question) for p, q in zip(render(scenes), asked, strict=True)
    ]
    texts = answers(model, requests)
    return rate([text == q.answer for text, q in zip(texts, asked, strict=True)])


def drawing_grid(drawn: Sequence[JudgedDrawing]) -> Image.Image:
    """A row of drawings for each kind, each with a bar that shows whether it is right."""
    rows = [[(d.image, d.ok) for d in drawn if d.kind == kind] for kind in KINDS]
    return picture_grid([row[:GRID_COLUMNS] for row in rows])


SWEEP = [(t, g) for g in (1.0, 1.5, 2.0, 3.0) for t in (0.0, 0.4, 0.7, 1.0)]


def sweep(model: Model, prompts: int, seed: int = SEED) -> None:
    """Print how well a model draws at many temperatures and guidance scales."""
    for temperature, guidance in SWEEP:
        drawn = draw_held_out(model, prompts, seed, temperature=temperature, guidance=guidance)
        scores = drawing_scores(drawn)
        parts = " ".join(f"{name.removeprefix('draw_')} {s:.2f}" for name, s in scores.items())
        mean = rate(list(scores.values()))
        print(
            f"temperature {temperature} guidance {guidance}: {parts}; mean {mean:.3f}", flush=True
        )
