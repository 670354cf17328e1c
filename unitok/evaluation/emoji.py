"""How well a model reads and paints the emoji world, on combinations it never saw.

In the manner of GenEval (https://arxiv.org/abs/2310.11513): a checker finds what was drawn. All
goes through the API that users call.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from unitok.api import Model
from unitok.emoji import captions
from unitok.emoji.checker import check
from unitok.emoji.scenes import KINDS, Scene, SceneSampler, render, to_pil
from unitok.requests import Caption, Draw
from unitok.results import DrawResult, TextResult
from unitok_tokenizers.losses import psnr

SEED = 20_000  # of the held-out scenes, unless asked otherwise; training uses others


@dataclass(frozen=True)
class Drawn:
    """One drawing and what the checker said of it."""

    kind: str
    prompt: str
    image: Image.Image
    ok: bool
    reason: str


@dataclass(frozen=True)
class Report:
    """Scores by name, in 0..1 (image_tokenizer_psnr in dB), and a picture of drawings."""

    scores: dict[str, float]
    grid: Image.Image
    drawn: tuple[Drawn, ...]


def report(model: Model, prompts: int = 100, seed: int = SEED) -> Report:
    """Drawings (`prompts` per kind), captions, answers and reconstructions of held-out scenes."""
    drawn = draw_held_out(model, prompts, seed)
    scores = {f"draw_{kind}": rate([d.ok for d in drawn if d.kind == kind]) for kind in KINDS}
    scores["draw_mean"] = sum(scores.values()) / len(scores)
    scenes = held_out_scenes(prompts, seed)
    scores["caption"] = caption_score(model, scenes)
    scores |= {
        f"question_{kind}": answer_score(model, kind, prompts, seed)
        for kind in captions.QUESTION_KINDS
    }
    scores["image_tokenizer_psnr"] = reconstruction_score(model, scenes)
    scores = {name: round(value, 4) for name, value in scores.items()}
    return Report(scores, picture_grid(drawn), tuple(drawn))


def rate(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


def held_out_scenes(count: int, seed: int = SEED) -> list[Scene]:
    """`count` scenes of each kind."""
    sampler = SceneSampler(seed, "heldout")
    return [scene for kind in KINDS for scene in sampler.batch(count, kind)]


def draw_held_out(model: Model, prompts: int, seed: int = SEED, **sampling: Any) -> list[Drawn]:
    """Draw held-out prompts; the i-th has seed i."""
    rng, scenes = random.Random(seed), held_out_scenes(prompts, seed)
    asked = [(scene.kind, captions.prompt(scene, rng)) for scene in scenes]
    requests = [Draw(prompt, seed=i, **sampling) for i, (_, prompt) in enumerate(asked)]
    drawn: list[Drawn | None] = [None] * len(asked)
    for result in model.run(requests):
        assert isinstance(result, DrawResult) and result.error is None, result.error
        kind, prompt = asked[result.index]
        claim = captions.parse(prompt)
        assert claim is not None, prompt
        verdict = check(result.image, claim)
        drawn[result.index] = Drawn(kind, prompt, result.image, verdict.ok, verdict.reason)
    return [d for d in drawn if d is not None]


def caption_score(model: Model, scenes: Sequence[Scene]) -> float:
    """Share of scenes whose caption is true and complete."""
    requests = [Caption(to_pil(p)) for p in render(scenes)]
    texts = said(model, requests)
    return rate([captions.equivalent(t, s) for t, s in zip(texts, scenes, strict=True)])


def said(model: Model, requests: Sequence[Caption]) -> list[str]:
    """The answers, in the order asked."""
    texts = [""] * len(requests)
    for result in model.run(requests):
        assert isinstance(result, TextResult) and result.error is None, result.error
        texts[result.index] = result.text
    return texts


def answer_score(model: Model, kind: str, count: int, seed: int = SEED) -> float:
    """Share of questions of one kind answered right, on held-out scenes."""
    rng = random.Random(seed + 1)
    scenes = held_out_scenes(count, seed)
    scenes = [s for s in scenes if kind in captions.question_kinds(s)]
    rng.shuffle(scenes)
    scenes = scenes[:count]
    asked = [captions.questions(scene, rng, kind) for scene in scenes]
    requests = [
        Caption(to_pil(p), question=q.question) for p, q in zip(render(scenes), asked, strict=True)
    ]
    texts = said(model, requests)
    return rate([text == q.answer for text, q in zip(texts, asked, strict=True)])


def reconstruction_score(model: Model, scenes: Sequence[Scene]) -> float:
    """Mean PSNR in dB of pictures that went through the image tokenizer and back."""
    pictures = render(scenes)
    tokenizer = model.family.model.image_tokenizer
    return float(psnr(tokenizer.decode(tokenizer.encode(pictures)).cpu(), pictures).mean())


def picture_grid(drawn: Sequence[Drawn], columns: int = 10, scale: int = 2) -> Image.Image:
    """A row of drawings per kind; a red bar under those the checker refused."""
    side = drawn[0].image.width * scale
    grid = Image.new("RGB", (columns * (side + 6), len(KINDS) * (side + 12)), "white")
    pen = ImageDraw.Draw(grid)
    for row, kind in enumerate(KINDS):
        for column, d in enumerate([d for d in drawn if d.kind == kind][:columns]):
            x, y = column * (side + 6) + 3, row * (side + 12) + 3
            grid.paste(d.image.resize((side, side), Image.Resampling.NEAREST), (x, y))
            pen.rectangle((x, y, x + side - 1, y + side - 1), outline="gray")
            pen.rectangle(
                (x, y + side + 2, x + side - 1, y + side + 5), fill="green" if d.ok else "red"
            )
    return grid
