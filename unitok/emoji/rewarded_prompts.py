"""What the embedded model is asked in reinforcement learning: scenes of the training split alone.

Drawings are judged by the checker, and answers by the one true answer. Beside them stand
conversations about other scenes, so that the model keeps what it knows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unitok.emoji import captions
from unitok.emoji.new_objects import write_pictures
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import Scene

HARD_KINDS = ("position", "count", "two", "colour")  # of which drawings are not all right
PICTURES = "pictures/asked"


def write_rewarded_prompts(
    folder: Path, drawings: int = 4000, questions: int = 2000, kept: int = 2000, seed: int = 0
) -> None:
    """Write prompts.jsonl, what is rewarded, and data.jsonl, what is learned beside.

    Args:
        folder: Where to write; it is made if it does not exist.
        drawings: Prompts of drawings. No two are the same.
        questions: Questions about places, with their answers.
        kept: Pictures of the conversations that are learned beside.
        seed: Of the scenes and of the words.
    """
    rng = random.Random(f"rewarded prompts {seed}")
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    lines = [*drawing_lines(drawings, rng, seed), *question_lines(folder, questions, rng, seed)]
    _write(folder / "prompts.jsonl", lines)
    scenes = SceneSampler(seed + 3, "train").batch(kept)
    _write(folder / "data.jsonl", write_pictures(folder, "kept", scenes, rng))


def drawing_lines(count: int, rng: random.Random, seed: int) -> Iterator[dict[str, Any]]:
    """Prompts of drawings, of each of `HARD_KINDS` as many."""
    sampler, asked = SceneSampler(seed + 1, "train"), set[str]()
    while len(asked) < count:
        scene = sampler.sample(HARD_KINDS[len(asked) % len(HARD_KINDS)])
        prompt = captions.prompt(scene, rng)
        if prompt not in asked:
            asked.add(prompt)
            yield {"draw": prompt}


def question_lines(
    folder: Path, count: int, rng: random.Random, seed: int
) -> Iterator[dict[str, Any]]:
    """Questions about places, whose pictures are written into a folder."""
    sampler = SceneSampler(seed + 2, "train")
    scenes = [placed(sampler, rng) for _ in range(count)]
    for first in range(0, count, 100):
        some = scenes[first : first + 100]
        for index, (scene, pixels) in enumerate(zip(some, render(some), strict=True), first):
            path = f"{PICTURES}/{index:05}.png"
            to_pil(pixels).save(folder / path)
            asked = captions.questions(scene, rng, "place")
            yield {"caption": path, "question": asked.question, "answer": asked.answer}


def placed(sampler: SceneSampler, rng: random.Random) -> Scene:
    """A scene of two different objects."""
    return sampler.sample(rng.choice(("two", "position")))


def _write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
