"""Golden requests to the embedded model: scenes of its small world, asked about and drawn."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tests.unitok.golden.requests import (
    CAPTION_OPTIONS,
    DRAW_OPTIONS,
    EMBEDDED,
    TOLD,
    Ask,
    Case,
    pick,
)
from unitok.emoji import captions
from unitok.emoji.scenes import Scene, SceneSampler, Split, render, to_pil

# The model is so sure of its words that only great heat brings up others.
WAYS: dict[str, dict[str, Any]] = CAPTION_OPTIONS | {
    "hot": {"temperature": 5.0, **TOLD},
    "top-k": {"temperature": 8.0, "top_k": 5, "logprobs": True},
    "top-p": {"temperature": 4.0, "top_p": 0.8, **TOLD},
    "min-p": {"temperature": 7.0, "min_p": 0.05, "branch_logprobs": True},
    "greedy, stop": {"stop": (" on", " left", "e")},
    "warm, stop": {"temperature": 4.0, "stop": " a", **TOLD},
}
ROUNDS = 5  # of captions and of drawings, each in every way to sample
CONVERSATIONS = 12


@dataclass(frozen=True)
class SceneShown:
    """A random scene of emoji."""

    split: Split
    seed: int

    def scene(self) -> Scene:
        return SceneSampler(self.seed, self.split).sample()

    def picture(self) -> Image.Image:
        return to_pil(render([self.scene()])[0])


def embedded_cases() -> list[Case]:
    return [*caption_cases(), *drawing_cases(), *conversation_cases()]


def scene_shown(seed: int) -> SceneShown:
    return SceneShown("heldout" if seed % 2 else "train", seed)


def question(shown: SceneShown) -> str:
    return captions.questions(shown.scene(), random.Random(shown.seed)).question


def prompt(seed: int) -> str:
    return captions.prompt(scene_shown(seed).scene(), random.Random(seed))


def caption_cases() -> Iterator[Case]:
    ways = [*WAYS.items()] * ROUNDS
    for seed, (way, options) in enumerate(ways):
        shown, extra = scene_shown(seed), {"seed": seed, "max_tokens": pick((24, 3, 256), seed)}
        if seed % 7 == 3:
            extra["system"] = "a dog"
        words = question(shown) if pick((True, False, True), seed // len(WAYS)) else None
        ask = Ask("read", words, (shown,), options | extra, seed % 5 == 4)
        yield Case(f"embedded: caption {seed}, {way}", EMBEDDED, (ask,))


def drawing_cases() -> Iterator[Case]:
    ways = [*DRAW_OPTIONS.items()] * ROUNDS
    for seed, (way, options) in enumerate(ways, 1000):
        ask = Ask("draw", prompt(seed), (), options | {"seed": seed}, seed % 5 == 4)
        yield Case(f"embedded: drawing {seed}, {way}", EMBEDDED, (ask,))


def conversation_cases() -> Iterator[Case]:
    """Show a picture, ask, draw, ask about the drawing; some show two pictures or draw twice."""
    for seed in range(2000, 2000 + CONVERSATIONS):
        shown = scene_shown(seed), scene_shown(seed + 100)
        warm: dict[str, Any] = {"temperature": 0.7, "seed": seed, **TOLD}
        asks = [
            Ask("read", question(shown[0]), shown[: 1 + seed % 2], {"max_tokens": 20}),
            Ask("read", "what is this?", (), warm),
            Ask("draw", prompt(seed), (), {"seed": seed, **pick([*DRAW_OPTIONS.values()], seed)}),
            Ask("read", question(scene_shown(seed)), (), TOLD),
        ]
        if seed % 3 == 0:
            asks.append(Ask("draw", prompt(seed + 1), (), {"seed": seed, "guidance": 2.0}))
            asks.append(Ask("read", "what do you see?", (), warm | {"top_p": 0.9}))
        system = "a cat" if seed % 4 == 0 else None
        name = f"embedded: conversation {seed}"
        yield Case(name, EMBEDDED, tuple(asks), talk=True, system=system)
