"""A linear probe tells classes apart by an encoder's features."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unitok.baselines.linear_probe import (
    LabelledPictures,
    best_decay,
    check_classes,
    fit,
    held_out,
    linear_probe,
    regress,
)
from unitok.baselines.opening import load
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import make_scene
from unitok.emoji.scenes import COLOURS, Scene
from unitok.emoji.sprites import NAMES
from unitok.pictures import PictureLike, open_picture


class MeanColour:
    """An encoder that sees three numbers: the mean of each channel."""

    name, width = "mean colour", 3

    def features(self, images: Sequence[PictureLike]) -> Tensor:
        return torch.stack(
            [torch.tensor(np.asarray(open_picture(i))).float().mean((0, 1)) for i in images]
        )


def single_scenes(names: Sequence[str], each: int) -> dict[str, list[Scene]]:
    """Different scenes of one object each, on any background, by the object's name."""
    rng, found = random.Random(0), {name: dict[Scene, None]() for name in names}
    for name, scenes in found.items():
        while len(scenes) < each:
            scenes[make_scene(rng, "colour", name, rng.choice(COLOURS))] = None
    return {name: list(scenes) for name, scenes in found.items()}


def pictures_of(scenes: dict[str, list[Scene]], part: slice) -> LabelledPictures:
    labelled = [(scene, name) for name, found in scenes.items() for scene in found[part]]
    rendered = render([scene for scene, _ in labelled])
    return LabelledPictures([to_pil(r) for r in rendered], [name for _, name in labelled])


def test_the_features_of_lite0_tell_objects_apart_on_backgrounds_of_all_colours():
    scenes = single_scenes(NAMES[:8], 12)
    train, test = pictures_of(scenes, slice(8)), pictures_of(scenes, slice(8, None))
    found = linear_probe(load("lite0", "encoder", device="cpu"), train, test)
    assert found.chance == 1 / 8 and len(found.predicted) == len(test.labels) == 32
    assert found.accuracy >= 0.8
    again = linear_probe(MeanColour(), train, test)
    assert again.accuracy < 0.6, "the mean colour, which is mostly the background, says less"


def test_a_folder_for_each_class_is_probed(tmp_path: Path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for label, red in (("dark", 60), ("light", 180)):
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(6):
                value = red + int(rng.integers(-40, 40))
                Image.new("RGB", (8, 8), (value, 0, 0)).save(tmp_path / part / label / f"{i}.png")
    train, test = (LabelledPictures.read(tmp_path / part) for part in ("train", "test"))
    assert train.labels == ["dark"] * 6 + ["light"] * 6
    assert train.images[0] == tmp_path / "train" / "dark" / "0.png"
    found = linear_probe(MeanColour(), train, test, progress=True)
    assert (found.accuracy, found.chance, found.probe.classes) == (1.0, 0.5, ("dark", "light"))
    assert found.predicted == tuple(test.labels)


def blobs(each: int, seed: int = 0) -> tuple[Tensor, list[str]]:
    """Features [3 * each, 6] of three classes that overlap a little, of sizes that differ much."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.tensor([[2.0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0], [0, 0, 2, 0, 0, 0]])
    points = [m + torch.randn(each, 6, generator=generator) for m in middles]
    sizes = torch.tensor([1.0, 100, 0.01, 1, 1, 1000])
    return torch.cat(points) * sizes + 5, [n for n in "abc" for _ in range(each)]


def test_the_regression_ends_where_the_gradient_is_zero():
    features, labels = blobs(30)
    inputs = ((features - features.mean(0)) / features.std(0)).double()
    targets = torch.tensor(["abc".index(label) for label in labels])
    for decay in (1e-3, 0.1):
        weight, bias = regress(inputs, targets, 3, decay)
        error = (inputs @ weight + bias).softmax(1) - torch.eye(3).double()[targets]
        assert (inputs.T @ error / len(inputs) + decay * weight).abs().max() < 1e-5
        assert error.mean(0).abs().max() < 1e-5


def test_features_of_any_size_are_told_apart_in_the_same_way_each_time():
    features, labels = blobs(30)
    others, wanted = blobs(100, seed=1)
    probe, again = fit(features, labels), fit(features, labels)
    assert torch.equal(probe.weight, again.weight) and torch.equal(probe.bias, again.bias)
    right = sum(p == w for p, w in zip(probe.predict(others), wanted, strict=True))
    assert right > 0.8 * len(wanted)


def test_a_feature_that_never_changes_tells_nothing():
    features, labels = blobs(10)
    constant = torch.cat([features, torch.full((30, 1), 7.0)], dim=1)
    probe = fit(constant, labels, [0.1])
    assert probe.weight[-1].abs().max() == 0 and probe.bias.isfinite().all()
    torch.testing.assert_close(probe.weight[:-1], fit(features, labels, [0.1]).weight)


def test_the_decay_is_chosen_on_pictures_that_are_held_out():
    generator = torch.Generator().manual_seed(0)
    # One feature tells the class, and two hundred are noise, which no decay would learn by heart.
    targets = torch.arange(40) % 2
    inputs = torch.randn(40, 200, generator=generator).double()
    inputs[:, 0] = 3.0 * (2 * targets - 1) + inputs[:, 0] / 3
    held = held_out(targets, 0)
    assert held.sum() == 8 and targets[held].sum() == 4
    assert not torch.equal(held, held_out(targets, 1))
    assert best_decay(inputs, targets, (1e-9, 0.1), 0) == 0.1
    assert best_decay(inputs[:2], targets[:2], (1e-9, 0.1), 0) == 0.1, "nothing can be held out"


def test_labels_that_cannot_be_learned_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="the class cat alone; it takes two"):
        check_classes(["cat", "cat"], ["cat"])
    with pytest.raises(ValueError, match="no picture of bee, emu"):
        check_classes(["cat", "dog"], ["emu", "bee", "cat"])
    with pytest.raises(ValueError, match="there are 1 pictures and 2 labels"):
        LabelledPictures(["a.png"], ["cat", "dog"])
    with pytest.raises(ValueError, match="there are no pictures"):
        LabelledPictures([], [])
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        LabelledPictures.read(tmp_path / "none")
    with pytest.raises(ValueError, match="has no sub-folder; it takes one for each class"):
        LabelledPictures.read(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "note.txt").touch()
    with pytest.raises(ValueError, match="cat has no picture"):
        LabelledPictures.read(tmp_path)
