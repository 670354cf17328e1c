"""One thing of a held-out scene is painted over, and a checker looks at the whole picture.

The place of the thing is the box. The prompt says what the scene is to show afterwards: another
thing there or, of several equal things, one less.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from unitok.api import Model
from unitok.emoji import captions, split
from unitok.emoji.evaluation import check_drawing
from unitok.emoji.held_out import HeldOutSuite, rendered
from unitok.emoji.rendering import to_pil
from unitok.emoji.scenes import GRID, Scene
from unitok.emoji.scenes import Item as Thing
from unitok.emoji.sprites import NAMES, TILE
from unitok.evaluation.metrics import rate
from unitok.evaluation.suite import Item, Judgement, Summary, judgement
from unitok.evaluation.tallies import shares
from unitok.families.common.inpainting import encoded
from unitok.pictures import open_picture
from unitok.requests import Edit
from unitok.results import DrawResult, Result

REPLACE, REMOVE = "replace", "remove"


class EmojiInpaintingSuite(HeldOutSuite):
    """Things that are replaced and removed. It is a `Suite`."""

    name = "emoji-inpainting"

    def items(self) -> list[Item]:
        """An edit of each scene, the i-th with seed i."""
        rng, pairs = random.Random(f"edit {self.seed}"), rendered(self.scenes)
        return [edit_item(i, scene, pixels, rng) for i, (scene, pixels) in enumerate(pairs)]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Check the whole picture."""
        assert isinstance(result, DrawResult)
        verdict = check_drawing(item.wanted, result.image)
        return judgement(item, verdict.ok, verdict.reason)

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The share of right pictures, of each group and of all that are replaced."""
        replaced = [bool(j.ok) for j in judged if j.group.startswith(REPLACE)]
        scores = {REPLACE: round(rate(replaced), 4)} if replaced else {}
        return Summary(scores | shares(judged), notes=[HOW_JUDGED])


HOW_JUDGED = (
    "A picture is right if a checker that matches sprites finds exactly what the prompt says, both "
    "in the part that was painted and in the rest. If an image token changes that had to stay, the "
    "edit counts as failed."
)


def edit_item(number: int, scene: Scene, pixels: Any, rng: random.Random) -> Item:
    """An edit of a scene: a thing is replaced or, where several are counted, removed."""
    thing = rng.choice(scene.items)
    removes = scene.kind == "count"
    wanted = without(scene, thing) if removes else with_another(scene, thing, rng)
    group = REMOVE if removes else f"{REPLACE}_{scene.kind}"
    prompt = captions.prompt(wanted, rng)
    # Log-probabilities are asked for as the tokens come with them.
    asked = Edit(to_pil(pixels), prompt, box=box_of(thing), seed=number, branch_logprobs=True)
    return Item(f"{group}-{number:05}", group, asked, prompt)


def box_of(thing: Thing) -> tuple[int, int, int, int]:
    """The place of a thing, in pixels: left, top, right and bottom."""
    left, top, side = thing.column * TILE, thing.row * TILE, thing.size * TILE
    return left, top, left + side, top + side


def without(scene: Scene, thing: Thing) -> Scene:
    """A scene with a thing less."""
    return replace(scene, items=tuple(item for item in scene.items if item != thing))


def with_another(scene: Scene, thing: Thing, rng: random.Random) -> Scene:
    """A scene with another thing in the place of one, held out again where that can be."""
    names = [name for name in NAMES if name not in scene.counts]
    made = [_renamed(scene, thing, name) for name in names]
    return rng.choice([one for one in made if split.is_heldout(one)] or made)


def _renamed(scene: Scene, thing: Thing, name: str) -> Scene:
    items = (replace(item, name=name) if item == thing else item for item in scene.items)
    return replace(scene, items=tuple(items))


class Inpainter:
    """Has a model paint edits with a box, and looks whether all other image tokens stay.

    It is a `Runner`.

    Attributes:
        name: The model's.
    """

    def __init__(self, model: Model) -> None:
        """Keep the model."""
        self._model, self.name = model, model.name

    def run(self, requests: Iterable[Edit]) -> Iterator[Result]:
        """The results. One in which a token changed that had to stay has an error."""
        for result in self._model.run(requests):
            made = cast("DrawResult", result)
            changed = 0 if made.error else changed_outside(self._model, made)
            yield replace(made, error=f"{changed} tokens changed outside") if changed else made

    def close(self) -> None:
        """Close the model."""
        self._model.close()


def changed_outside(model: Model, result: DrawResult) -> int:
    """How many image tokens of a scene's edit differ from the scene's outside of the box."""
    asked = cast("Edit", result.request)
    assert asked.box is not None and result.token_ids is not None
    left, top, right, bottom = (side // TILE for side in asked.box)
    pixels = model.family.picture_pixels(open_picture(asked.image))
    pairs = zip(encoded(model.family, pixels), result.token_ids[0], strict=True)
    return sum(
        old != new
        for cell, (old, new) in enumerate(pairs)
        if not (top <= cell // GRID < bottom and left <= cell % GRID < right)
    )
