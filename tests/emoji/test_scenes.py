import json
from collections import Counter

import pytest
import torch

from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import (
    BACKGROUNDS,
    CANVAS,
    COLOURS,
    KINDS,
    WHITE,
    Item,
    Scene,
    canonical,
    stands,
)
from unitok.emoji.sprites import LARGE, SMALL, sprites


def colour(name):
    return torch.tensor(BACKGROUNDS[name])[:, None, None] / 255


def scenes_of(kind, n=300):
    return SceneSampler(0, "any").batch(n, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_items_lie_on_the_canvas_and_never_overlap(kind):
    for scene in scenes_of(kind):
        tiles = [
            (row, column)
            for item in scene.items
            for row in range(item.row, item.row + item.size)
            for column in range(item.column, item.column + item.size)
        ]
        assert len(tiles) == len(set(tiles))
        assert all(0 <= row < 8 and 0 <= column < 8 for row, column in tiles)


def test_each_size_is_seen_at_sixteen_places():
    items = [scene.items[0] for scene in scenes_of("single", 2000)]
    for size in (LARGE, SMALL):
        assert len({(i.row, i.column) for i in items if i.size == size}) == 16


def test_single_objects_lie_on_white_and_coloured_ones_on_a_colour():
    assert {scene.background for scene in scenes_of("single")} == {WHITE}
    assert {scene.background for scene in scenes_of("colour")} == set(COLOURS)


@pytest.mark.parametrize("kind", ["two", "position"])
def test_two_objects_are_different_and_stand_in_a_relation(kind):
    for scene in scenes_of(kind):
        assert len(scene.counts) == 2
        relation = scene.relation()
        assert relation is not None
        first, word, second = relation
        place = {item.name: item for item in scene.items}
        assert stands(place[first], word, place[second])


def test_counts_are_two_to_four_of_a_kind():
    counts = Counter(tuple(scene.counts.values()) for scene in scenes_of("count"))
    assert set(counts) == {(2,), (3,), (4,)}
    assert all(scene.relation() is None for scene in scenes_of("count"))


@pytest.mark.parametrize("kind", ["two", "position", "count"])
def test_half_of_the_backgrounds_are_white(kind):
    share = sum(scene.background == WHITE for scene in scenes_of(kind, 1000)) / 1000
    assert 0.4 < share < 0.6


def test_kinds_come_in_their_shares():
    kinds = Counter(scene.kind for scene in SceneSampler(0, "train").batch(5000))
    assert all(abs(kinds[kind] / 5000 - share) < 0.03 for kind, share in KINDS.items())


def test_each_relation_is_the_opposite_of_another():
    here, there = Item("cat", SMALL, 0, 1), Item("dog", SMALL, 1, 4)
    assert stands(here, "left of", there) and stands(there, "right of", here)
    assert not stands(here, "right of", there) and not stands(here, "above", there)
    upper, lower = Item("cat", SMALL, 0, 1), Item("dog", SMALL, 5, 0)
    assert stands(upper, "above", lower) and stands(lower, "below", upper)
    assert canonical("dog", "right of", "cat") == ("cat", "left of", "dog")
    assert canonical("dog", "below", "cat") == ("cat", "above", "dog")


def test_the_same_seed_gives_the_same_scenes_and_another_seed_others():
    first, again, other = (SceneSampler(seed, "train").batch(50) for seed in (1, 1, 2))
    assert first == again != other


def test_a_sampler_goes_on_where_its_saved_state_stood():
    sampler = SceneSampler(3, "train")
    sampler.batch(17)
    state = json.loads(json.dumps(sampler.state_dict()))
    expected = sampler.batch(20)
    resumed = SceneSampler(99, "train")
    resumed.load_state_dict(state)
    assert resumed.batch(20) == expected


def test_unknown_kinds_and_splits_are_errors():
    with pytest.raises(ValueError, match="no kind"):
        SceneSampler(0, "any").sample("crowd")
    with pytest.raises(ValueError, match="no split"):
        SceneSampler(0, "test")  # pyright: ignore[reportArgumentType]


def test_a_batch_renders_as_each_scene_alone():
    scenes = SceneSampler(4, "any").batch(40)
    together = render(scenes)
    assert together.shape == (40, 3, CANVAS, CANVAS) and together.dtype == torch.float32
    assert together.is_contiguous() and together.min() >= 0 and together.max() <= 1
    for scene, picture in zip(scenes, together, strict=True):
        assert torch.equal(render([scene])[0], picture)


def test_no_scenes_give_an_empty_batch():
    assert render([]).shape == (0, 3, CANVAS, CANVAS)


def test_free_tiles_show_the_background_alone():
    picture = render([Scene("colour", "blue", (Item("cat", LARGE, 3, 2),))])[0]
    outside = torch.ones(CANVAS, CANVAS, dtype=torch.bool)
    outside[24:64, 16:56] = False
    assert torch.equal(picture[:, outside], colour("blue")[:, 0].expand(-1, int(outside.sum())))


def test_a_blended_sprite_is_composited_onto_the_background():
    picture = render([Scene("colour", "pink", (Item("apple", SMALL, 1, 4),))], style="blended")[0]
    sprite = sprites(SMALL)[0]
    expected = sprite[:3] + (1 - sprite[3:]) * colour("pink")
    torch.testing.assert_close(picture[:, 8:32, 32:56], expected)


@pytest.mark.parametrize(("style", "corner"), [("card", "blue"), ("square", "white")])
def test_only_a_rounded_card_shows_the_background_in_its_corners(style, corner):
    picture = render([Scene("colour", "blue", (Item("balloon", LARGE, 1, 1),))], style=style)[0]
    torch.testing.assert_close(picture[:, 8, 8], colour(corner)[:, 0, 0])
    torch.testing.assert_close(picture[:, 8, 28], colour("white")[:, 0, 0])


def test_styles_differ_only_inside_the_items_tiles_and_agree_on_white():
    scene = Scene("single", WHITE, (Item("dog", SMALL, 0, 5),))
    blended, card, square = (render([scene], style=s) for s in ("blended", "card", "square"))
    torch.testing.assert_close(blended, card)
    torch.testing.assert_close(card, square)


def test_a_backing_colours_the_square_under_each_item():
    items = Item("cat", SMALL, 0, 0), Item("dog", SMALL, 4, 4)
    backing = torch.rand(1, 4, 3, generator=torch.Generator().manual_seed(0))
    picture = render([Scene("two", WHITE, items)], backing=backing)[0]
    torch.testing.assert_close(picture[:, 0, 0], backing[0, 0])
    torch.testing.assert_close(picture[:, 32, 32], backing[0, 1])
    torch.testing.assert_close(picture[:, 0, 40], torch.ones(3))


def test_a_picture_becomes_an_image_of_the_same_colours():
    image = to_pil(render([Scene("colour", "green", (Item("cat", LARGE, 3, 3),))])[0])
    assert image.size == (64, 64) and image.getpixel((0, 0)) == BACKGROUNDS["green"]
