"""Tiny models, prompts and rewards for tests of reinforcement learning."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.unitok.tiny_chameleon import noise
from unitok.api import Model
from unitok.families import Family, open_folder
from unitok.requests import Caption, Draw, Reply
from unitok.results import DrawResult, Result, TextResult
from unitok.training.recipe import Recipe
from unitok.training.recipe_file import parse_recipe
from unitok.training.reinforcement.prompts import Prompt
from unitok.training.reinforcement.reward_names import BUILT_IN, RewardEntry
from unitok_engine import EngineConfig


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def mixed_prompts() -> list[Prompt]:
    """A drawing, a question about a picture and one without."""
    return [
        Prompt("p:1", Draw("two cats")),
        Prompt("p:2", Caption(noise(64, 64), "what is this?"), ("a dog",)),
        Prompt("p:3", Reply(said("describe the picture.")), ("yes",)),
    ]


def write_prompts(path: Path, lines: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def toy_prompts(folder: Path) -> Path:
    """A file of drawings, of questions about a picture, and of one without."""
    folder.mkdir(parents=True, exist_ok=True)
    noise(64, 64).save(folder / "a.png")
    lines: list[Any] = [{"draw": f"a {colour} apple"} for colour in ("red", "green", "blue")]
    lines += [{"caption": "a.png", "question": "what is this?", "answer": ["a cat", "a dog"]}]
    lines += [{"messages": said("describe the picture."), "answer": "yes"}]
    return write_prompts(folder / "prompts.jsonl", lines)


def opened(folder: Path) -> Family:
    return open_folder(folder, "cpu", torch.float32)


def rollout_model(family: Family) -> Model:
    return Model(family, EngineConfig(memory=8 * 2**20, max_context=family.max_context))


# --- a run ---------------------------------------------------------------------------------------


def warmth(prompt: Prompt, result: Result) -> float:
    """How much more red than blue a picture has; the share of one letter in an answer."""
    if isinstance(result, DrawResult):
        red, _, blue = result.image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))  # type: ignore[misc]
        return (red - blue) / 255
    assert isinstance(result, TextResult)
    return result.text.count("e") / 10


REWARDS = {**BUILT_IN, "warmth": RewardEntry(lambda setting: warmth)}


def grpo_table(model: Path, prompts: Path, out: Path, **sections: Any) -> dict[str, Any]:
    """The table of a short recipe, in which sections or keys may be replaced."""
    return {
        "model": str(model),
        "out": str(out),
        "steps": 4,
        "device": "cpu",
        "log_every": 1,
        "rollout": {
            "prompts": [str(prompts)],
            "groups": 3,
            "samples": 3,
            "guidance": 1.5,
            "max_tokens": 5,
            "memory": 8,
        },
        "reward": [{"name": "warmth"}],
        "grpo": {"passes": 2, "minibatches": 2, "kl": 0.05},
        "batch": {"conversations": 2, "max_tokens": 300},
        "optimiser": {"learning_rate": 1e-3, "warmup": 1},
        "checkpoint": {"every": 2},
        **sections,
    }


def grpo_recipe(model: Path, prompts: Path, out: Path, **sections: Any) -> Recipe:
    """A short recipe; see `grpo_table`."""
    return parse_recipe(grpo_table(model, prompts, out, **sections), "toy")
