"""Eight objects that the embedded model never saw, to fine-tune it on: scenes, data and scores.

They were chosen by `scripts/choose_new_objects.py`. Each has one background and one count that
training never shows, by a fixed hash; scores are of scenes with either.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from unitok.emoji import captions
from unitok.emoji.evaluation import HOW_JUDGED, SEED, caption_items, drawing_items, judge
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler, make_scene
from unitok.emoji.scenes import COLOURS, COUNTS, Scene
from unitok.emoji.sprites import NEW_NAMES
from unitok.evaluation.metrics import rate
from unitok.evaluation.suite import Item, Judgement, Summary
from unitok.evaluation.tallies import shares
from unitok.results import Result

KINDS = ("single", "colour", "count")


def held_out_colour(name: str) -> str:
    """The background that training never shows behind a new object."""
    return min(COLOURS, key=lambda colour: _hash(f"{name} on {colour}"))


def held_out_count(name: str) -> int:
    """How many of a new object training never shows."""
    return min(COUNTS, key=lambda count: _hash(f"{count} {name}"))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def is_held_out(scene: Scene) -> bool:
    """Whether a scene has a new object on its held-out background, or in its held-out count."""
    return any(
        scene.background == held_out_colour(name) or count == held_out_count(name)
        for name, count in scene.counts.items()
        if name in NEW_NAMES
    )


class NewObjectSampler:
    """Random scenes of one new object in one to four copies, on any background.

    Each scene is of the split; of "heldout" ones, those of kind "colour" have the held-out
    background and one object, and those of kind "count" the held-out count on any background.
    """

    def __init__(self, seed: int, split: Literal["train", "heldout"] = "train") -> None:
        """Start a stream of scenes."""
        self.held_out = split == "heldout"
        self._random = random.Random(f"new objects {split} {seed}")

    def sample(self, name: str, kind: str | None = None) -> Scene:
        """A scene of an object, of one of `KINDS` or of a random one that the split has."""
        kinds = KINDS[1:] if self.held_out else KINDS
        while True:
            scene = self._scene(name, kind or self._random.choice(kinds))
            if is_held_out(scene) == self.held_out:
                return scene

    def _scene(self, name: str, kind: str) -> Scene:
        match kind:
            case "single":
                return make_scene(self._random, kind, name)
            case "colour":
                colours = [held_out_colour(name)] if self.held_out else COLOURS
                return make_scene(self._random, kind, name, self._random.choice(colours))
            case _:
                counts = [held_out_count(name)] if self.held_out else COUNTS
                return make_scene(self._random, kind, name, self._random.choice(counts))


class NewObjectSuite:
    """Drawings and captions of held-out scenes of the new objects. It is a `Suite`."""

    name = "new_objects"

    def __init__(self, per_name: int, seed: int = SEED) -> None:
        """Keep what the scenes are made of.

        Args:
            per_name: Scenes of each object and kind.
            seed: Of the scenes.
        """
        self.per_name, self.seed = per_name, seed

    @property
    def settings(self) -> dict[str, Any]:
        """See `Suite`."""
        return {"per_name": self.per_name, "seed": self.seed}

    def items(self) -> list[Item]:
        """A drawing and a caption of each scene."""
        sampler, rng = NewObjectSampler(self.seed, "heldout"), random.Random(self.seed)
        scenes = [
            sampler.sample(name, kind)
            for name in NEW_NAMES
            for kind in KINDS[1:]
            for _ in range(self.per_name)
        ]
        return [*drawing_items(scenes, rng, "new_draw"), *caption_items(scenes, "new_caption")]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Check a drawing or a caption."""
        return judge(item, result)

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The share of each kind; each kind has as many scenes, so the means are of all."""
        scores = shares(judged)
        for start in ("new_draw", "new_caption"):
            members = [bool(j.ok) for j in judged if j.group.startswith(start)]
            scores["new_draw_mean" if start == "new_draw" else start] = round(rate(members), 4)
        return Summary(scores, notes=[HOW_JUDGED])

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """There is no format of others for it."""


def write_data(folder: Path, per_name: int = 200, old: int = 1600, seed: int = 0) -> None:
    """Write pictures and the conversations about them: FOLDER/train.jsonl and FOLDER/pictures/.

    Every picture is painted once and read once.

    Args:
        folder: Where to write; it is made if it does not exist.
        per_name: Pictures of each new object.
        old: Pictures of the objects that the model knows, so that it keeps them.
        seed: Of the scenes and of the words.
    """
    new, known = NewObjectSampler(seed), SceneSampler(seed + 1, "train")
    rng = random.Random(f"new objects {seed}")
    scenes = [new.sample(name) for name in NEW_NAMES for _ in range(per_name)]
    scenes += known.batch(old)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    for index, (scene, pixels) in enumerate(zip(scenes, render(scenes), strict=True)):
        path = Path("pictures") / f"{index:05}.png"
        to_pil(pixels).save(folder / path)
        lines += conversations(scene, str(path), rng)
    rng.shuffle(lines)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")


def conversations(scene: Scene, path: str, rng: random.Random) -> Sequence[dict[str, Any]]:
    """A line that paints a scene's picture, and one that reads it."""
    picture = {"type": "image", "path": path}
    question = captions.questions(scene, rng, captions.DESCRIBE)
    return (
        _exchange(captions.prompt(scene, rng), [picture]),
        _exchange([picture, {"type": "text", "text": question.question}], question.answer),
    )


def _exchange(asked: Any, answered: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        ]
    }
