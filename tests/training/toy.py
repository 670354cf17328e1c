"""A tiny data set and a short recipe for runs of a tiny model."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.training.recipe import Recipe
from unitok.training.recipe_file import parse_recipe

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200)}


def conversation(colour: str, picture: str, way: str) -> dict[str, Any]:
    """A picture to read or to paint, or a question without one."""
    image = {"type": "image", "image": picture}
    if way == "read":
        question = [image, {"type": "text", "text": "what is this?"}]
        return {"messages": [said("user", question), said("assistant", f"a {colour} apple")]}
    if way == "paint":
        return {"messages": [said("user", f"a {colour} apple"), said("assistant", [image])]}
    return {"messages": [said("user", "what is this?"), said("assistant", f"a {colour} cat")]}


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def write_data(folder: Path, ways: tuple[str, ...] = ("read", "paint", "talk")) -> Path:
    """JSON lines of one-coloured pictures, in each of the ways."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, colour in COLOURS.items():
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
        lines += [json.dumps(conversation(name, f"{name}.png", way)) for way in ways]
    path = folder / "train.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def toy_table(model: Path, data: Path, out: Path, **sections: Any) -> dict[str, Any]:
    """The table of a short recipe, in which sections or keys may be replaced."""
    return {
        "model": str(model),
        "out": str(out),
        "steps": 6,
        "device": "cpu",
        "log_every": 1,
        "data": [{"path": str(data)}],
        "batch": {"conversations": 4, "max_tokens": 300},
        "optimiser": {"learning_rate": 1e-3, "warmup": 2},
        "checkpoint": {"every": 3},
        **sections,
    }


def toy_recipe(model: Path, data: Path, out: Path, **sections: Any) -> Recipe:
    """A short recipe; see `toy_table`."""
    return parse_recipe(toy_table(model, data, out, **sections), "toy")
