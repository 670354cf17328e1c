"""`unitok demo`: what it judges, and what it shows."""

import pytest
from PIL import Image
from typer.testing import CliRunner

import unitok
from unitok.cli import app
from unitok.demo import (
    PROMPT_KINDS,
    SCENE_KINDS,
    Demo,
    Drawing,
    agree,
    demo_picture,
    judge_drawing,
    judge_reading,
    print_demo,
    run_demo,
)
from unitok.emoji import captions
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler


def text_result(text: str) -> unitok.TextResult:
    return unitok.TextResult(text, 0, "stop", 1, 1, 0.1)


def drawing(prompt: str, image: Image.Image, caption: str) -> Drawing:
    drawn = unitok.DrawResult(prompt, (image,), 0, "complete", 1, 64, 0.5)
    return judge_drawing(drawn, text_result(caption))


@pytest.fixture
def perfect() -> Demo:
    """The demo of a model that makes no mistake."""
    scenes = SceneSampler(1, "heldout").batch(6, "two")
    pictures = [to_pil(picture) for picture in render(scenes)]
    said = [captions.caption(scene) for scene in scenes]
    return Demo(
        tuple(drawing(text, image, text) for text, image in zip(said, pictures, strict=True)),
        tuple(judge_reading(s, text_result(t)) for s, t in zip(scenes, said, strict=True)),
        1.0,
    )


def test_a_perfect_model_passes_everything(perfect, capsys):
    assert all(d.ok and d.agrees for d in perfect.drawings)
    assert all(r.ok for r in perfect.readings)
    print_demo(perfect)
    out = capsys.readouterr().out
    assert (
        "Drawn as asked: 6 of 6. Captioned as asked: 6 of 6. New scenes captioned right: 6 of 6."
        in out
    )


def test_a_wrong_drawing_and_a_wrong_caption_do_not_pass():
    scene = SceneSampler(1, "heldout").sample("two")
    wrong = drawing("two cats", to_pil(render([scene])[0]), "[bold] two cats")
    assert not wrong.ok and not wrong.agrees
    assert not judge_reading(scene, text_result("two cats")).ok


@pytest.mark.parametrize(
    ("said", "wanted", "same"),
    [
        ("a cat left of a dog", "draw a cat and a dog", True),
        ("a cat left of a dog", "a dog right of a cat", True),
        ("a cat left of a dog", "a cat right of a dog", False),
        ("two cats", "three cats", False),
        ("a cat on a blue background", "a cat", False),
        ("no caption at all", "a cat", False),
    ],
)
def test_a_caption_agrees_with_a_prompt_that_says_the_same(said, wanted, same):
    claim = captions.parse(wanted)
    assert claim is not None
    assert agree(captions.parse(said), claim) is same


def test_the_picture_has_room_for_long_notes_and_other_sizes(perfect):
    long = drawing("two cats", Image.new("RGB", (384, 384), "red"), "cat" * 300)
    short, longer = demo_picture(perfect), demo_picture(Demo((long,) * 6, perfect.readings, 1.0))
    assert longer.width == short.width == 24 + 6 * (192 + 24)
    assert longer.height > short.height
    assert longer.getpixel((24 + 96, 24 + 26 + 12 + 96)) == (255, 0, 0)


def test_the_demo_of_an_untrained_model_runs_draws_and_reads(untrained_folder):
    shown = run_demo(unitok.load(untrained_folder))
    assert len(shown.drawings) == len(PROMPT_KINDS)
    assert len(shown.readings) == len(SCENE_KINDS)
    assert not any(r.ok for r in shown.readings)


def test_the_command_writes_the_picture_and_says_where(untrained_folder, tmp_path):
    words = ["demo", "--out", str(tmp_path / "new"), "--model", str(untrained_folder)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert done.stderr == ""
    path = tmp_path / "new" / "unitok-demo.png"
    assert str(path) in done.stdout
    with Image.open(path) as picture:
        assert picture.width > 1000
