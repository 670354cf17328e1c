"""Scenes of three and four things: what they show, what texts say, and what stays held out."""

import random
import re

from unitok.emoji import captions, split
from unitok.emoji.checker import find
from unitok.emoji.crowds import WITH_RELATION, crowd, crowd_prompt
from unitok.emoji.rendering import render
from unitok.emoji.scenes import Scene, canonical, stands
from unitok.emoji.sprites import NAMES

SAID = re.compile(r"(?:an?|one) (\w+) (?:to the )?(left of|right of|above|below) an? (\w+)")


def crowds(count: int, seed: int = 0) -> list[tuple[Scene, str]]:
    rng = random.Random(seed)
    return [(scene, crowd_prompt(scene, rng)) for scene in (crowd(rng) for _ in range(count))]


def test_a_crowd_has_several_things_and_each_stands_in_a_quadrant_of_its_own():
    made = [scene for scene, _ in crowds(500)]
    for scene in made:
        assert 3 <= len(scene.items) <= 4 and 2 <= len(scene.counts) <= 4
        places = {(item.row // 4, item.column // 4) for item in scene.items}
        assert len(places) == len(scene.items)
    assert {name for scene in made for name in scene.counts} == set(NAMES)
    assert {len(scene.counts) for scene in made} == {2, 3, 4}


def test_what_is_painted_is_what_was_made():
    for scene, _ in crowds(20):
        found = find(render([scene])[0])
        assert (found.background, set(found.items)) == (scene.background, set(scene.items))


def test_no_crowd_shows_what_is_held_out_though_no_text_may_say_so():
    for scene, _ in crowds(2000):
        assert not split.is_heldout(scene)
        for one in scene.items:
            for other in scene.items:
                for word in ("left of", "above"):
                    if one.name != other.name and stands(one, word, other):
                        assert not split.heldout(split.related(one.name, word, other.name))


def test_prompts_say_what_is_there_and_many_how_two_things_stand():
    stated = 0
    made = crowds(1000)
    for scene, prompt in made:
        relation = SAID.search(prompt)
        if relation is None:
            claim = captions.parse(prompt)
            assert claim is not None
            assert dict(claim.objects) == dict(scene.counts)
            assert claim.background == scene.background
            continue
        stated += 1
        first, word, second = canonical(*relation.groups())
        place = {item.name: item for item in scene.items}
        assert scene.counts[first] == scene.counts[second] == 1
        assert stands(place[first], word, place[second])
        words = captions.words(prompt)
        for name, count in scene.counts.items():
            assert (name if count == 1 else captions.plural(name)) in words
    assert 0.4 * WITH_RELATION < stated / len(made) < WITH_RELATION, "not all have single things"


def test_a_seed_gives_the_same_crowds():
    assert crowds(50, seed=3) == crowds(50, seed=3) != crowds(50, seed=4)
