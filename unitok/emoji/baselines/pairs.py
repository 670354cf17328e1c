"""Pictures with true texts, half of them beside scenes that differ in one thing.

Among random scenes, few captions are nearly true of a picture. So half of a batch differs from the
other half in one object, the background, the number, or the relation. In the manner of NegCLIP
(https://arxiv.org/abs/2210.01936), but with pictures of the negatives too.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unitok.emoji import captions
from unitok.emoji.baselines.states import (
    plain_generator,
    plain_state,
    set_plain_generator,
    set_plain_state,
)
from unitok.emoji.captions import Claim, claim
from unitok.emoji.rendering import render
from unitok.emoji.sampler import SceneSampler, make_scene
from unitok.emoji.scenes import BACKGROUNDS, COUNTS, Scene
from unitok.emoji.split import is_heldout
from unitok.emoji.sprites import NAMES

NOISE = 0.06  # the largest standard deviation of noise on a picture


@dataclass(frozen=True)
class PairBatch:
    """Pictures, and a text of each.

    Attributes:
        pixels: [B, 3, 64, 64] in [0, 1].
        texts: B of them.
        true: [B, B], bool: whether a text (column) is true of a picture (row).
    """

    pixels: Tensor
    texts: list[str]
    true: Tensor


class PairUpdates:
    """Batches of pictures with texts of the training split; the state resumes exactly."""

    def __init__(self, batch: int, seed: int) -> None:
        """Start the streams.

        Args:
            batch: Pictures of an update, an even number.
            seed: Equal seeds give equal batches.
        """
        self.batch = batch
        self.scenes, self.random = SceneSampler(seed, "train"), random.Random(f"pairs {seed}")
        self.generator = torch.Generator().manual_seed(seed)

    def __next__(self) -> list[PairBatch]:
        """The batch of the next update."""
        scenes = self.scenes.batch(self.batch // 2)
        scenes += [near_miss(scene, self.random) for scene in scenes]
        texts = [self.text(scene) for scene in scenes]
        return [PairBatch(self.pixels(scenes), texts, truths(scenes, texts))]

    def text(self, scene: Scene) -> str:
        """Half of the time the caption, which says all, else a prompt."""
        if self.random.random() < 0.5:
            return captions.caption(scene)
        return captions.prompt(scene, self.random)

    def pixels(self, scenes: list[Scene]) -> Tensor:
        """Pictures with a little noise: drawings to be judged are not perfect either."""
        pictures = render(scenes)
        strength = NOISE * torch.rand(len(scenes), 1, 1, 1, generator=self.generator)
        noise = torch.randn(pictures.shape, generator=self.generator)
        return (pictures + strength * noise).clamp(0, 1)

    def state_dict(self) -> dict[str, Any]:
        """Where all random streams stand, in plain values."""
        return {
            "scenes": self.scenes.state_dict(),
            "random": plain_state(self.random),
            "generator": plain_generator(self.generator),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.scenes.load_state_dict(state["scenes"])
        set_plain_state(self.random, state["random"])
        set_plain_generator(self.generator, state["generator"])


def truths(scenes: Sequence[Scene], texts: Sequence[str]) -> Tensor:
    """Whether each text is true of each scene, and complete: [scenes, texts], bool.

    Raises:
        ValueError: A text is not of the grammar.
    """
    said = [_parsed(text) for text in texts]
    known = [claim(scene) for scene in scenes]
    subjects = _numbered([(c.objects, c.background) for c in (*known, *said)])
    relations = _numbered([c.relation for c in (*known, *said)])
    n = len(scenes)
    unstated = torch.tensor([c.relation is None for c in said])
    related = unstated | (relations[:n, None] == relations[n:])
    return (subjects[:n, None] == subjects[n:]) & related


def _parsed(text: str) -> Claim:
    said = captions.parse(text)
    if said is None:
        raise ValueError(f"the grammar cannot read {text!r}")
    return said


def _numbered(keys: Sequence[Any]) -> Tensor:
    """Equal numbers for equal keys."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([numbers[key] for key in keys])


def near_miss(scene: Scene, rng: random.Random) -> Scene:
    """A scene of the training split that differs in one thing, so that captions tell them apart."""
    changes = _OF_TWO if scene.relation() is not None else _OF_ONE
    while True:
        other = rng.choice(changes)(scene, rng)
        if not is_heldout(other) and claim(other) != claim(scene):
            return other


def _other_object(scene: Scene, rng: random.Random) -> Scene:
    old = rng.choice(sorted(scene.counts))
    new = rng.choice([name for name in NAMES if name not in scene.counts])
    return _renamed(scene, {old: new})


def _other_background(scene: Scene, rng: random.Random) -> Scene:
    return replace(scene, background=rng.choice(list(BACKGROUNDS)))


def _other_count(scene: Scene, rng: random.Random) -> Scene:
    name, count = scene.items[0].name, rng.choice((1, *COUNTS))
    if count == 1:
        return replace(scene, items=(rng.choice(scene.items),))
    return replace(make_scene(rng, "count", name, count), background=scene.background)


def _swapped(scene: Scene, rng: random.Random) -> Scene:
    first, second = scene.items
    return _renamed(
        replace(scene, kind="position"), {first.name: second.name, second.name: first.name}
    )


def _turned(scene: Scene, rng: random.Random) -> Scene:
    """Left of becomes above, and above left of."""
    items = tuple(replace(item, row=item.column, column=item.row) for item in scene.items)
    return replace(scene, kind="position", items=items)


def _renamed(scene: Scene, names: dict[str, str]) -> Scene:
    items = (replace(item, name=names.get(item.name, item.name)) for item in scene.items)
    return replace(scene, items=tuple(items))


Change = Callable[[Scene, random.Random], Scene]
_OF_ONE: tuple[Change, ...] = (_other_object, _other_background, _other_count)
_OF_TWO: tuple[Change, ...] = (_other_object, _other_background, _swapped, _turned)
