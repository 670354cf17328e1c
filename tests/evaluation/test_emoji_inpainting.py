"""The suite that paints things over: what it asks, and how it judges."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unitok
from unitok.emoji import captions, split
from unitok.emoji.evaluation import judge_all
from unitok.emoji.held_out import held_out_scenes
from unitok.emoji.inpainting import (
    EmojiInpaintingSuite,
    Inpainter,
    box_of,
    changed_outside,
    with_another,
    without,
)
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.scenes import Item as Thing
from unitok.emoji.scenes import Scene
from unitok.evaluation.registry import SUITES
from unitok.evaluation.suite import SuiteOptions
from unitok.requests import Edit
from unitok.results import DrawResult, Result

SMALL = SuiteOptions(limit=2)
PAIR = Scene("two", "green", (Thing("cat", 3, 0, 1), Thing("house", 3, 4, 5)))


def test_things_of_scenes_of_each_kind_are_replaced_and_of_several_one_is_removed():
    groups = {item.group for item in EmojiInpaintingSuite(SMALL).items()}
    assert groups == {f"replace_{k}" for k in ("single", "colour", "two", "position")} | {"remove"}


def test_the_box_is_the_place_of_a_thing_of_the_scene():
    for item, scene in zip(EmojiInpaintingSuite(SMALL).items(), held_out_scenes(2), strict=True):
        asked = item.request
        assert isinstance(asked, Edit) and asked.box in {box_of(thing) for thing in scene.items}
    assert box_of(PAIR.items[1]) == (40, 32, 64, 56)


def test_another_thing_or_one_less_is_asked_for():
    for item, scene in zip(EmojiInpaintingSuite(SMALL).items(), held_out_scenes(2), strict=True):
        claim = captions.parse(item.wanted)
        assert claim is not None and claim.background == scene.background
        counts = sum(count for _, count in claim.objects)
        assert counts == len(scene.items) - (item.group == "remove")
        if item.group != "remove":
            assert len(dict(claim.objects).keys() - scene.counts.keys()) == 1


def test_what_is_wanted_is_held_out_where_that_can_be():

    for seed in range(20):
        made = with_another(PAIR, PAIR.items[0], random.Random(seed))
        assert split.is_heldout(made)
        assert [i.name for i in made.items][1] == "house" and made.items[0].name != "cat"
        assert (made.items[0].row, made.items[0].column) == (0, 1)
    assert without(PAIR, PAIR.items[0]).items == PAIR.items[1:]


class Painter:
    """Shows what is wanted, or the given picture."""

    name = "painter"

    def __init__(self, pictures: dict[str, Image.Image]) -> None:
        self.pictures = pictures

    def run(self, requests: Iterable[Edit]) -> Iterator[Result]:
        for i, asked in enumerate(requests):
            image = self.pictures.get(asked.prompt, asked.image)
            assert isinstance(image, Image.Image)
            yield DrawResult(asked.prompt, (image,), 0, "complete", 1, 1, 0.0, asked, i)

    def close(self) -> None:
        pass


def test_a_picture_is_right_if_it_shows_what_is_wanted_as_a_whole():
    suite = EmojiInpaintingSuite(SMALL)
    items = suite.items()
    claims = [captions.parse(item.wanted) for item in items]
    assert None not in claims
    unchanged = [one.judgement for one in judge_all(Painter({}), suite, items)]
    assert not any(judgement.ok for judgement in unchanged)
    scene = Scene("single", "white", (Thing("dog", 3, 0, 1),))
    (pixels,) = render([scene])
    item = replace(items[0], wanted="a dog")
    right = Painter({item.request.prompt: to_pil(pixels)})  # type: ignore[union-attr]
    assert judge_all(right, suite, [item])[0].judgement.ok


def test_the_summary_has_all_that_are_replaced_together():
    suite = EmojiInpaintingSuite(SMALL)
    judged = [one.judgement for one in judge_all(Painter({}), suite, suite.items())]
    judged[0] = replace(judged[0], ok=True)
    scores = suite.summary(judged).scores
    assert scores["replace"] == 0.125 and scores["replace_single"] == 0.5
    assert scores["remove"] == 0.0
    assert suite.summary(judged).notes


def test_a_token_that_changes_outside_of_the_box_is_an_error(untrained_folder: Path):
    suite = EmojiInpaintingSuite(SuiteOptions(limit=1))
    items = suite.items()
    with unitok.load(untrained_folder) as model:
        runner = Inpainter(model)
        results = list(runner.run([item.request for item in items]))  # type: ignore[misc]
        assert [result.error for result in results] == [None] * len(items)
        (result,) = (r for r in results if r.index == 0)
        assert isinstance(result, DrawResult) and result.token_ids is not None
        assert changed_outside(model, result) == 0
        asked = result.request
        assert isinstance(asked, Edit) and asked.box is not None
        top = asked.box[1] // 8
        spoilt = np.array(result.token_ids[0]).reshape(8, 8)
        spoilt[(top + 7) % 8, :2] -= 1
        wrong = replace(result, token_ids=(tuple(spoilt.flatten().tolist()),))
        assert changed_outside(model, wrong) == 2

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "run", lambda requests: iter([wrong]))
            (told,) = runner.run([asked])
        assert told.error == "2 tokens changed outside"


def test_the_embedded_model_paints_most_things_over():
    suite = EmojiInpaintingSuite(SuiteOptions(limit=3))
    entry = SUITES["emoji-inpainting"]
    assert entry.runner is not None
    with unitok.load() as model:
        judged = judge_all(entry.runner(model), suite, suite.items())
    assert not any(one.judgement.error for one in judged)
    right = [one.judgement.ok for one in judged if one.item.group != "remove"]
    assert sum(map(bool, right)) >= 9, f"{right} of 12"
