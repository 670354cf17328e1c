"""Tiny models, prompts and rewards for tests of reinforcement learning."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from tests.unitok.tiny_chameleon import noise
from unitok.api import Model
from unitok.families import Family, open_folder
from unitok.requests import Caption, Draw, Reply
from unitok.results import DrawResult, Result
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
    lines: list[Any] = [{"draw": f"{count} apples"} for count in ("two", "three", "four")]
    lines += [{"caption": "a.png", "question": "what is this?", "answer": ["a cat", "a dog"]}]
    lines += [{"messages": said("describe the picture."), "answer": "yes"}]
    return write_prompts(folder / "prompts.jsonl", lines)


def opened(folder: Path) -> Family:
    return open_folder(folder, "cpu", torch.float32)


def rollout_model(family: Family) -> Model:
    return Model(family, EngineConfig(memory=8 * 2**20, max_context=family.max_context))


# --- a run ---------------------------------------------------------------------------------------


LOW = 160  # a quarter of the tiny model's text ids


def evenness(prompt: Prompt, result: Result) -> float:
    """The share of even tokens in a drawing, and of low ones in an answer: soon learned."""
    if isinstance(result, DrawResult):
        assert result.token_ids is not None
        return sum(id % 2 == 0 for id in result.token_ids[0]) / len(result.token_ids[0])
    ids = result.token_ids or ()
    return sum(id < LOW for id in ids) / max(1, len(ids))


REWARDS = {**BUILT_IN, "evenness": RewardEntry(lambda setting: evenness)}


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
        "reward": [{"name": "evenness"}],
        "grpo": {"passes": 2, "minibatches": 2, "kl": 0.05},
        "batch": {"conversations": 2, "max_tokens": 300},
        "optimiser": {"learning_rate": 1e-3, "warmup": 1},
        "checkpoint": {"every": 2},
        **sections,
    }


def grpo_recipe(model: Path, prompts: Path, out: Path, **sections: Any) -> Recipe:
    """A short recipe; see `grpo_table`."""
    return parse_recipe(grpo_table(model, prompts, out, **sections), "toy")
