"""The suites of the emoji world: the same scenes as ever, judged by what was asked."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import unitok
from unitok.emoji import captions
from unitok.emoji.evaluation import EmojiSuite, judge_all, reconstruction_suite
from unitok.emoji.held_out import held_out_scenes
from unitok.emoji.presence import EmojiPresenceSuite, absent, alike
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.evaluation.folders import compare_folders
from unitok.evaluation.reconstruction import Reconstructor
from unitok.evaluation.suite import SuiteOptions
from unitok.requests import Caption, Draw
from unitok.results import DrawResult, Result, TextResult

SMALL = SuiteOptions(limit=3)


class Perfect:
    """Draws each scene as it was meant, four times as large, and answers as wanted."""

    name = "perfect"

    def __init__(self, suite: Any) -> None:
        self.wanted = [item.wanted for item in suite.items()]
        self.pictures = {
            prompt: to_pil(pixels).resize((256, 256), Image.Resampling.NEAREST)
            for prompt, pixels in prompts_and_pixels(3)
        }

    def run(self, requests: Iterable[Any]) -> Iterator[Result]:
        for i, asked in enumerate(requests):
            if isinstance(asked, Draw):
                images = (self.pictures[asked.prompt],)
                yield DrawResult(asked.prompt, images, 0, "complete", 1, 1, 0.0, asked, i)
            else:
                yield TextResult(self.wanted[i], 0, "stop", 1, 1, 0.0, asked, i)

    def close(self) -> None:
        pass


def prompts_and_pixels(count: int) -> list[tuple[str, torch.Tensor]]:
    scenes, rng = held_out_scenes(count), random.Random(20_000)
    prompts = [captions.prompt(scene, rng) for scene in scenes]
    return list(zip(prompts, render(scenes), strict=True))


def test_the_items_are_those_of_earlier_reports():
    items = EmojiSuite(SMALL).items()
    drawn = [i.request for i in items if isinstance(i.request, Draw)]
    assert [(d.prompt, d.seed) for d in drawn] == [
        (prompt, i) for i, (prompt, _) in enumerate(prompts_and_pixels(3))
    ]
    scenes = held_out_scenes(3)
    read = [i for i in items if i.group.startswith("caption_")]
    assert [i.wanted for i in read] == [captions.caption(scene) for scene in scenes]
    rng, asked = random.Random(20_001), [s for s in scenes if s.relation() is not None]
    rng.shuffle(asked)
    placed = [i for i in items if i.group == "question_place"]
    assert [(i.request.question, i.wanted) for i in placed if isinstance(i.request, Caption)] == [
        tuple(captions.questions(scene, rng, "place")) for scene in asked[:3]
    ]


def test_a_perfect_model_is_always_right_at_any_size_of_pictures():
    suite = EmojiSuite(SMALL)
    judged = [one.judgement for one in judge_all(Perfect(suite), suite, suite.items())]
    assert set(suite.summary(judged).scores.values()) == {1.0}


def test_a_caption_says_all_that_a_scene_claims():
    for scene in SceneSampler(1, "any").batch(200):
        assert captions.parse(captions.caption(scene)) == captions.claim(scene)


def test_captions_are_judged_up_to_how_they_say_it():
    truth = "a cat left of a house on a blue background"
    assert captions.says_the_same("a house right of a cat on a blue background", truth)
    assert not captions.says_the_same("a house left of a cat on a blue background", truth)
    assert not captions.says_the_same("a cat left of a house", truth)


def test_presence_asks_for_what_is_there_and_for_what_is_not():
    suite = EmojiPresenceSuite(SMALL)
    items, scenes = suite.items(), held_out_scenes(3)
    assert len(items) == 4 * len(scenes)
    for number, item in enumerate(items):
        names = scenes[number // 4].counts
        assert isinstance(item.request, Caption) and item.request.question is not None
        named = next(name for name in alike("cat") if f" {name}?" in item.request.question)
        assert (named in names) == (item.wanted == "yes")


def test_what_looks_alike_is_asked_for_in_the_harder_group():
    scene = next(s for s in held_out_scenes(3) if len(s.counts) == 1)
    (name,) = scene.counts
    assert alike(name)[0] == name
    assert absent(scene, "alike", random.Random(0)) == alike(name)[1]


def test_the_scenes_for_the_image_tokenizer_are_the_same():
    pictures = [picture for _, picture in reconstruction_suite(SMALL).pictures]
    expected = [to_pil(pixels) for pixels in render(held_out_scenes(3))]
    assert [p.tobytes() for p in pictures if isinstance(p, Image.Image)] == [
        p.tobytes() for p in expected
    ]


def test_rfid_is_the_fid_of_what_came_back_beside_what_went_in(untrained_folder: Path, tmp_path):
    suite = reconstruction_suite(SuiteOptions(limit=1, extractor="lite0"))
    with unitok.load(untrained_folder) as model:
        judged = judge_all(Reconstructor(model), suite, suite.items())
    scores = suite.summary([one.judgement for one in judged]).scores
    for place, folder in enumerate(("after", "before")):
        (tmp_path / folder).mkdir()
        for number, one in enumerate(judged):
            assert isinstance(one.result, DrawResult)
            one.result.images[place].save(tmp_path / folder / f"{number}.png")
    expected = compare_folders(tmp_path / "before", tmp_path / "after", "lite0")
    assert scores["rfid_lite0"] == pytest.approx(expected.scores["fid_lite0"], abs=1e-3)
    assert scores["rfid_lite0"] > 1 and set(scores) == {"psnr", "ssim", "rfid_lite0"}
