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
from unitok.emoji.evaluation import HOW_JUDGED, caption_items, drawing_items, judge
from unitok.emoji.held_out import SEED
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler, make_scene
from unitok.emoji.scenes import COLOURS, COUNTS, Scene
from unitok.emoji.sprites import NEW_NAMES
from unitok.evaluation.metrics import rate
from unitok.evaluation.suite import Item, Judgement, Summary
from unitok.evaluation.tallies import shares
from unitok.results import Result

KINDS = ("single", "colour", "count")
QUIZ = 2  # questions about a picture beside its caption


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


def write_data(folder: Path, per_name: int = 200, old: int = 8000, seed: int = 0) -> None:
    """Write pictures and the conversations about them: every scene is painted and read.

    What is painted has white cards behind its objects, as when the embedded model learned: its
    image tokenizer ignores what lies there, so no image token is left to chance.

    In the folder, new.jsonl has the new objects, old.jsonl those that the model knows, so that it
    keeps them, and held_out.jsonl scenes of both kinds that training never shows. The halves of the
    first two are in new_painted.jsonl, new_read.jsonl, old_painted.jsonl and old_read.jsonl.
    decoder.jsonl has the new objects and as many of the old, as they are read, for the image
    decoder.

    Args:
        folder: Where to write; it is made if it does not exist.
        per_name: Pictures of each new object.
        old: Pictures of the objects that the model knows.
        seed: Of the scenes and of the words.
    """
    new, known = NewObjectSampler(seed), SceneSampler(seed + 1, "train")
    new_held_out = NewObjectSampler(seed, "heldout")
    held_out = [new_held_out.sample(n, k) for n in NEW_NAMES for k in KINDS[1:] for _ in range(4)]
    held_out += SceneSampler(seed + 1, "heldout").batch(len(held_out))
    sets = {
        "new": [new.sample(name) for name in NEW_NAMES for _ in range(per_name)],
        "old": known.batch(old),
        "held_out": held_out,
    }
    lines = {
        name: _write_pictures(folder, name, scenes, random.Random(f"new objects {name} {seed}"))
        for name, scenes in sets.items()
    }
    for name in ("new", "old"):
        lines[f"{name}_painted"], lines[f"{name}_read"] = lines[name][::2], lines[name][1::2]
    lines["decoder"] = lines["new_read"] + lines["old_read"][: len(lines["new_read"])]
    for name, some in lines.items():
        text = "".join(json.dumps(line) + "\n" for line in some)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _write_pictures(
    folder: Path, name: str, scenes: Sequence[Scene], rng: random.Random
) -> list[dict[str, Any]]:
    """Write the pictures of scenes to pictures/NAME; the lines about them."""
    (folder / "pictures" / name).mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    for first in range(0, len(scenes), 100):
        some = scenes[first : first + 100]
        pictures = zip(render(some, style="square"), render(some), strict=True)
        for index, (scene, pair) in enumerate(zip(some, pictures, strict=True), first):
            painted, shown = (f"pictures/{name}/{index:05}-{k}.png" for k in ("painted", "read"))
            for path, pixels in zip((painted, shown), pair, strict=True):
                to_pil(pixels).save(folder / path)
            lines += conversations(scene, painted, shown, rng)
    return lines


def conversations(
    scene: Scene, painted: str, shown: str, rng: random.Random
) -> Sequence[dict[str, Any]]:
    """A line that paints a scene, and one that reads it: a caption and QUIZ questions."""
    kinds = [captions.DESCRIBE, *rng.choices(captions.question_kinds(scene), k=QUIZ)]
    asked = [captions.questions(scene, rng, kind) for kind in kinds]
    read = _exchange(
        [_picture(shown), {"type": "text", "text": asked[0].question}], asked[0].answer
    )
    for each in asked[1:]:
        read["messages"] += _exchange(each.question, each.answer)["messages"]
    return _exchange(captions.prompt(scene, rng), [_picture(painted)]), read


def _picture(path: str) -> dict[str, str]:
    return {"type": "image", "path": path}


def _exchange(asked: Any, answered: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        ]
    }
