"""The eight objects to fine-tune on: none of the world's, judged by the same checker."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unitok.emoji import captions
from unitok.emoji.checker import check
from unitok.emoji.evaluation import judge_all
from unitok.emoji.new_objects import (
    NewObjectSampler,
    NewObjectSuite,
    held_out_colour,
    held_out_count,
    is_held_out,
    write_data,
)
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.sprites import DATA, NAMES, NEW_NAMES, glyphs
from unitok.messages import parse_messages
from unitok.requests import Draw
from unitok.results import DrawResult, Result, TextResult


def test_the_new_objects_are_eight_that_the_world_has_not():
    assert len(NEW_NAMES) == 8 and not set(NEW_NAMES) & set(NAMES)
    assert not set(glyphs("new_objects").values()) & set(glyphs().values())
    assert {path.stem for path in (DATA / "new_sprites").iterdir()} == set(NEW_NAMES)
    assert not set(NEW_NAMES) & set(captions.vocabulary_words())


def test_the_embedded_models_own_scenes_stay_without_them():
    scenes = SceneSampler(0, "any").batch(500)
    assert not {name for scene in scenes for name in scene.counts} & set(NEW_NAMES)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_scenes_keep_to_their_split_and_the_checker_knows_them(split):
    sampler = NewObjectSampler(3, split)
    scenes = [sampler.sample(name) for name in NEW_NAMES for _ in range(6)]
    assert all(is_held_out(scene) == (split == "heldout") for scene in scenes)
    for scene, picture in zip(scenes, render(scenes), strict=True):
        assert check(picture, scene).ok, scene
        claim = captions.parse(captions.caption(scene))
        assert claim == captions.claim(scene)


def test_held_out_scenes_have_the_background_or_the_count_that_their_kind_says():
    sampler = NewObjectSampler(0, "heldout")
    for name in NEW_NAMES:
        assert sampler.sample(name, "colour").background == held_out_colour(name)
        assert sampler.sample(name, "count").counts == {name: held_out_count(name)}


def test_a_new_object_is_not_taken_for_another():
    scene = NewObjectSampler(0).sample("violin", "single")
    other = captions.parse("a guitar")
    assert other is not None and not check(render([scene])[0], other).ok


def test_the_data_hold_each_picture_twice_in_the_form_of_messages(tmp_path):
    write_data(tmp_path, per_name=3, old=5, seed=1)
    sets = {
        name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("new", "old", "held_out", "decoder")
    }
    assert {name: len(lines) for name, lines in sets.items()} == {
        "new": 2 * 8 * 3,
        "old": 2 * 5,
        "held_out": 2 * 2 * 64,
        "decoder": 8 * 3 + 5,
    }
    assert sets.pop("decoder") == (sets["new"] + sets["old"])[1::2]
    for name in ("new_painted", "new_read", "old_painted", "old_read"):
        half = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        assert half == sets[name[:3]][name.endswith("read") :: 2]
    lines = [line for each in sets.values() for line in each]
    seen: dict[str, set[str]] = {}
    for line in lines:
        parsed = parse_messages(line["messages"], tmp_path, last="assistant")
        (picture,) = parsed.pictures
        file = Path(str(picture.source))
        scene, _, kind = file.stem.rpartition("-")
        seen.setdefault(f"{file.parent.name} {scene}", set()).add(kind)
        image = picture.open()
        assert image.size == (64, 64)
        said = [p for turn in parsed.turns[:2] for p in turn.parts if isinstance(p, str)]
        claims = [claim for text in said if (claim := captions.parse(text)) is not None]
        assert len(claims) == 1
        assert kind == "painted" or check(image, claims[0]).ok
        assert isinstance(line["messages"][1]["content"], list) == (kind == "painted")
    assert len(seen) == 8 * 3 + 5 + 128
    assert all(kinds == {"painted", "read"} for kinds in seen.values())


def test_equal_seeds_write_equal_data(tmp_path):
    for folder in ("a", "b"):
        write_data(tmp_path / folder, per_name=1, old=2, seed=5)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


class Fake:
    """A model that draws and says what was asked `turn` requests later."""

    name = "fake"

    def __init__(self, turn: int) -> None:
        sampler = NewObjectSampler(20_000, "heldout")
        scenes = [sampler.sample(n, k) for n in NEW_NAMES for k in ("colour", "count")]
        self.scenes = [*scenes[turn:], *scenes[:turn]]

    def run(self, requests: Iterable[Any]) -> Iterator[Result]:
        for index, asked in enumerate(requests):
            scene = self.scenes[index % len(self.scenes)]
            if isinstance(asked, Draw):
                images = (to_pil(render([scene])[0]),)
                yield DrawResult(asked.prompt, images, 0, "complete", 1, 1, 0.0, asked, index)
            else:
                yield TextResult(captions.caption(scene), 0, "stop", 1, 1, 0.0, asked, index)

    def close(self) -> None:
        pass


def scored(turn: int) -> dict[str, float]:
    suite = NewObjectSuite(per_name=1)
    judged = judge_all(Fake(turn), suite, suite.items())
    return suite.summary([one.judgement for one in judged]).scores


def test_right_drawings_and_captions_score_one_and_those_of_another_request_zero():
    right = scored(turn=0)
    assert set(right) >= {"new_draw_colour", "new_draw_count", "new_draw_mean", "new_caption"}
    assert set(right.values()) == {1.0}
    assert set(scored(turn=2).values()) == {0.0}
