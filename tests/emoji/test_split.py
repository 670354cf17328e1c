import pytest

from unitok.emoji import split
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import COLOURS, COUNTS, KINDS, WHITE, Item, Scene
from unitok.emoji.sprites import NAMES, SMALL

PAIRS = [(a, b) for a in NAMES for b in NAMES if a != b]
EVERY = {
    "colour": {split.on_colour(name, colour) for name in NAMES for colour in COLOURS},
    "two": {split.pair(a, b) for a, b in PAIRS},
    "count": {split.counted(name, count) for name in NAMES for count in COUNTS},
    "position": {split.related(a, word, b) for a, b in PAIRS for word in ("left of", "above")},
}


@pytest.mark.parametrize("kind", EVERY)
def test_about_a_tenth_of_the_combinations_is_held_out(kind):
    share = sum(map(split.heldout, EVERY[kind])) / len(EVERY[kind])
    assert 0.06 <= share <= 0.14


def test_the_split_never_moves():
    """A trained model's held-out scores mean something only while these stay as they were."""
    held = {c for c in EVERY["count"] if split.heldout(c)}
    assert held == {
        *("2 clock", "2 tree", "3 cat", "3 donut", "3 star", "4 apple", "4 banana", "4 boat"),
        *("4 car", "4 chicken", "4 dog", "4 lemon", "4 mushroom", "4 star"),
    }


def test_no_held_out_combination_is_ever_sampled_for_training():
    sampler = SceneSampler(0, "train")
    seen = {c for scene in sampler.batch(30_000) for c in split.combinations(scene)}
    assert not [c for c in seen if split.heldout(c)]
    for kind, every in EVERY.items():
        allowed = {c for c in every if not split.heldout(c)}
        assert len(seen & allowed) > 0.9 * len(allowed), kind


@pytest.mark.parametrize("kind", EVERY)
def test_held_out_scenes_hold_out_what_their_kind_is_about(kind):
    for scene in SceneSampler(0, "heldout").batch(300, kind):
        about = [c for c in split.combinations(scene) if c in EVERY[kind]]
        assert any(map(split.heldout, about))


def test_every_held_out_combination_is_reached():
    sampler = SceneSampler(0, "heldout")
    for kind, every in EVERY.items():
        wanted = {c for c in every if split.heldout(c)}
        seen = {c for scene in sampler.batch(4000, kind) for c in split.combinations(scene)}
        assert wanted <= seen


def test_a_scene_contains_its_colours_pair_and_relation():
    items = Item("house", SMALL, 1, 0), Item("cat", SMALL, 0, 4)
    assert set(split.combinations(Scene("two", "blue", items))) == {
        "house on blue",
        "cat on blue",
        "cat and house",
        "house left of cat",
    }


def test_a_count_on_white_is_one_combination():
    items = tuple(Item("key", SMALL, row, 0) for row in (0, 4))
    assert split.combinations(Scene("count", WHITE, items)) == ("2 key",)


def test_single_objects_on_white_are_never_held_out():
    assert not any(map(split.is_heldout, SceneSampler(0, "heldout").batch(200, "single")))


@pytest.mark.parametrize("kind", KINDS)
def test_training_scenes_of_every_kind_pass_the_split(kind):
    assert not any(map(split.is_heldout, SceneSampler(5, "train").batch(500, kind)))
