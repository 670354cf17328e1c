import functools
import io
from collections.abc import Callable
from time import process_time

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

from unitok.emoji.captions import claim, parse
from unitok.emoji.checker import Found, check, find, judge
from unitok.emoji.rendering import STYLE, render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import BACKGROUNDS, WHITE, Item, Scene
from unitok.emoji.sprites import LARGE, NAMES, SIZES, SMALL

SCENES = SceneSampler(11, "any").batch(500)
PICTURES = render(SCENES)


def said(text):
    claimed = parse(text)
    assert claimed is not None, text
    return claimed


def noisy(picture):
    generator = torch.Generator().manual_seed(int(picture.sum()))
    return (picture + 0.05 * torch.randn(picture.shape, generator=generator)).clamp(0, 1)


def blurred(picture):
    return to_pil(picture).filter(ImageFilter.GaussianBlur(0.7))


def jpeg(picture):
    file = io.BytesIO()
    to_pil(picture).save(file, "JPEG", quality=75)
    return Image.open(file)


def places(items):
    return sorted((item.row, item.column, item.size, item.name) for item in items)


@functools.cache
def seen(damage: Callable) -> list[Found]:
    """What is found in the damaged pictures."""
    return [find(damage(picture)) for picture in PICTURES]


@pytest.mark.parametrize("damage", [torch.clone, noisy, blurred, jpeg])
def test_true_pictures_are_right_at_least_99_times_in_100(damage):
    right = sum(judge(found, scene).ok for found, scene in zip(seen(damage), SCENES, strict=True))
    assert right >= 0.99 * len(SCENES)


@pytest.mark.parametrize("damage", [torch.clone, noisy, blurred, jpeg])
def test_pictures_pass_for_another_caption_at_most_twice_in_100(damage):
    others = SceneSampler(12, "any").batch(len(SCENES))
    passed = [
        judge(found, other).ok
        for found, scene, other in zip(seen(damage), SCENES, others, strict=True)
        if claim(other) != claim(scene)
    ]
    assert len(passed) > 400 and sum(passed) <= 0.02 * len(passed)


def test_captions_that_differ_in_one_thing_do_not_pass():
    items = Item("cat", SMALL, 0, 0), Item("house", SMALL, 1, 4)
    picture = noisy(render([Scene("position", "pink", items)])[0])
    for text in (
        "a cat left of a house on a pink background",
        "a house to the right of a cat, pink background",
        "a cat and a house on a pink background",
    ):
        assert check(picture, said(text)).ok, text
    for text, reason in (
        ("a cat right of a house on a pink background", "not true"),
        ("a cat above a house on a pink background", "not true"),
        ("a cat left of a house on a purple background", "background"),
        ("a cat left of a house", "background"),
        ("a dog left of a house on a pink background", "shows"),
        ("two cats on a pink background", "shows"),
        ("a cat on a pink background", "shows"),
    ):
        verdict = check(picture, said(text))
        assert not verdict.ok and reason in verdict.reason, text


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_object_is_found_at_any_tile(size, background):
    across = 8 - size + 1
    for index, name in enumerate(NAMES):
        item = Item(name, size, index % across, index * 3 % across)
        found = find(noisy(render([Scene("x", background, (item,))])[0]))
        assert (found.background, found.items, found.unexplained) == (background, (item,), 0)


def test_exact_places_of_all_items_are_found():
    for picture, scene in zip(PICTURES[:200], SCENES, strict=False):
        assert places(find(picture).items) == places(scene.items)


@pytest.mark.parametrize("style", ["blended", "square"])
def test_other_styles_are_found_when_asked_for(style):
    for picture, scene in zip(render(SCENES[:100], style=style), SCENES, strict=False):
        assert check(picture, scene, style=style).ok


def test_garbage_is_rejected():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(20, 3, 64, 64, generator=generator)
    blocks = F.interpolate(torch.rand(20, 3, 8, 8, generator=generator), scale_factor=8)
    for picture in torch.cat([noise, blocks]):
        found = find(picture)
        assert not found.items and found.unexplained > 0.5
        assert "nothing known" in check(picture, SCENES[0]).reason


def test_a_plain_background_shows_nothing():
    found = find(render([Scene("x", "green", ())])[0])
    assert (found.background, found.items, found.unexplained) == ("green", (), 0)


def test_half_an_object_beside_the_right_one_is_not_passed():
    cat, dog = Item("cat", SMALL, 0, 0), Item("dog", SMALL, 4, 4)
    picture = render([Scene("x", WHITE, (cat, dog))])[0]
    picture[:, 32:56, 44:] = 1
    assert not check(picture, Scene("x", WHITE, (cat,))).ok
    assert not check(picture, Scene("x", WHITE, (cat, dog))).ok


def test_a_card_without_an_object_is_not_passed():
    cat, dog = Item("cat", SMALL, 0, 0), Item("dog", SMALL, 4, 4)
    picture = render([Scene("x", "blue", (cat, dog))])[0]
    picture[:, 32:56, 32:56] = 1
    assert not check(picture, Scene("x", "blue", (cat,))).ok


def test_a_blend_of_two_pictures_is_neither():
    for i in range(50):
        blend = (PICTURES[i] + PICTURES[i + 1]) / 2
        if claim(SCENES[i]) != claim(SCENES[i + 1]):
            assert not check(blend, SCENES[i]).ok


def test_a_diagonal_pair_stands_both_beside_and_above():
    items = Item("cat", SMALL, 0, 0), Item("dog", SMALL, 4, 4)
    picture = render([Scene("x", WHITE, items)])[0]
    assert check(picture, said("a cat left of a dog")).ok
    assert check(picture, said("a cat above a dog")).ok
    assert not check(picture, said("a cat below a dog")).ok


def test_images_and_tensors_are_read_alike_and_other_sizes_are_errors():
    assert find(to_pil(PICTURES[0])) == find(PICTURES[0])
    with pytest.raises(ValueError, match="64"):
        find(torch.zeros(3, 32, 32))


def test_a_picture_takes_less_than_20_milliseconds():
    find(PICTURES[0])
    start = process_time()
    for picture in PICTURES[:50]:
        find(picture, STYLE)
    assert (process_time() - start) / 50 < 0.02


def test_large_objects_are_not_taken_for_small_ones():
    scene = Scene("x", "yellow", (Item("lemon", LARGE, 2, 1),))
    assert find(render([scene])[0]).items == scene.items
