"""Results, events and chats as a person meets them: frozen, short to read, shown in notebooks."""

import dataclasses
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import unitok
from tests.unitok.tiny import save_tiny
from unitok import Caption, Draw, DrawResult, Edit, Event, Picture, TextResult
from unitok.api import Model
from unitok.results import SHEET_MOST, failure, sheet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = save_tiny(tmp_path_factory.mktemp("results") / "tiny")
    return unitok.load(folder, device="cpu", memory="16MB")


def colours(count: int, size: tuple[int, int] = (64, 64)) -> tuple[Image.Image, ...]:
    """Pictures of one colour each."""
    return tuple(Image.new("RGB", size, (i * 40 % 256, i, 255 - i)) for i in range(count))


def drawing(count: int, size: tuple[int, int] = (64, 64), **changes) -> DrawResult:
    result = DrawResult("a dog", colours(count, size), 7, "complete", 9, 64 * count, 0.4321)
    return dataclasses.replace(result, **changes)


def text(said: str, **changes) -> TextResult:
    return dataclasses.replace(TextResult(said, 5, "stop", 70, 7, 1.234), **changes)


def opened(png: bytes | None) -> Image.Image:
    assert png is not None
    image = Image.open(BytesIO(png))
    assert image.format == "PNG"
    return image


# --- in words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (text("two apples"), "<TextResult 'two apples': stop, 7 tokens, 1.23 s, seed 5>"),
        (
            text("two", completion_tokens=1, finish_reason="length"),
            "<TextResult 'two': length, 1 token, 1.23 s, seed 5>",
        ),
        (
            text("x" * 61),
            f"<TextResult '{'x' * 57}...': stop, 7 tokens, 1.23 s, seed 5>",
        ),
        (text("x" * 60), f"<TextResult '{'x' * 60}': stop, 7 tokens, 1.23 s, seed 5>"),
        (text("a\nb"), "<TextResult 'a\\nb': stop, 7 tokens, 1.23 s, seed 5>"),
        (
            drawing(1),
            "<DrawResult 'a dog': 1 picture of 64 x 64 pixels, complete, 64 tokens, 0.43 s, "
            "seed 7>",
        ),
        (
            drawing(20, (72, 48)),
            "<DrawResult 'a dog': 20 pictures of 72 x 48 pixels, complete, 1,280 tokens, 0.43 s, "
            "seed 7>",
        ),
    ],
)
def test_a_result_is_told_in_one_line(result: TextResult | DrawResult, shown: str):
    assert repr(result) == str(result) == shown


def test_a_failure_says_why():
    error = ValueError("the question\nis empty " + "and so on " * 20)
    shown = repr(failure(Caption("a.png"), 3, error))
    assert shown.startswith("<TextResult '': error (the question is empty and so on ")
    assert shown.endswith("...), 0 tokens, 0.00 s, seed 0>") and len(shown) < 140
    shown = repr(failure(Draw("a dog", seed=4), 3, ValueError("no")))
    assert shown == "<DrawResult 'a dog': 0 pictures, error (no), 0 tokens, 0.00 s, seed 4>"


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (Event("text", " apples", 3, 256), "<Event text: ' apples', 3 of 256>"),
        (Event("text", "y" * 90, 3, 256), f"<Event text: '{'y' * 57}...', 3 of 256>"),
        (Event("tokens", done=16, total=64), "<Event tokens: 16 of 64>"),
        (
            Event("image", sample=2, image=Image.new("RGB", (8, 4))),
            "<Event image: number 2, 8 x 4 pixels>",
        ),
        (Event("result", result=text("two")), f"<Event result: {text('two')!r}>"),
    ],
)
def test_an_event_is_told_in_one_line(event: Event, shown: str):
    assert repr(event) == shown


def test_a_chat_tells_how_far_it_is(model: Model):
    chat = model.chat()
    assert repr(chat) == "<unitok.Chat with 'tiny': 0 turns, 0 pictures>"
    chat.draw("a dog", seed=1)
    assert repr(chat) == "<unitok.Chat with 'tiny': 1 turn, 1 picture>"
    chat.send("what is this?", images=list(colours(2)), max_tokens=3)
    assert repr(chat) == "<unitok.Chat with 'tiny': 2 turns, 3 pictures>"


def test_equality_is_that_of_the_fields():
    assert text("two") == text("two") != text("three")
    assert hash(text("two")) == hash(text("two"))
    images = colours(1)
    assert drawing(1, images=images) == drawing(1, images=images)
    assert dataclasses.asdict(text("two"))["finish_reason"] == "stop"
    assert Event("tokens", done=1) != Event("tokens", done=2)


def test_requests_and_results_are_frozen(model: Model):
    result = model.draw("a dog")
    for frozen, name in ((Draw("a dog"), "prompt"), (Caption(""), "question"), (result, "seed")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frozen, name, "other")


# --- in a notebook -------------------------------------------------------------------------------


def test_one_picture_is_shown_as_it_is():
    shown = opened(drawing(1)._repr_png_())
    assert np.array_equal(np.array(shown), np.array(colours(1)[0]))


def test_a_drawn_picture_is_shown_with_what_it_remembers(model: Model):
    result = model.draw("a dog", seed=3)
    assert isinstance(result.image, Picture)
    for shown in (opened(result._repr_png_()), opened(result.image._repr_png_())):
        assert shown.info["prompt"] == "a dog"
        assert np.array_equal(np.array(shown), np.array(result.image))


def test_several_pictures_lie_side_by_side():
    images = colours(3)
    shown = np.array(opened(drawing(3)._repr_png_()))
    assert shown.shape == (64, 192, 3)
    for i, image in enumerate(images):
        assert np.array_equal(shown[:, 64 * i : 64 * (i + 1)], np.array(image))


def test_a_full_row_is_followed_by_the_next():
    shown = np.array(opened(drawing(18)._repr_png_()))
    assert shown.shape == (128, 1024, 3)
    images = colours(18)
    assert np.array_equal(shown[64:, 64:128], np.array(images[17]))
    assert (shown[64:, 128:] == 255).all(), "nothing is there"


@pytest.mark.parametrize(
    ("count", "size", "whole"),
    [
        (2, (384, 384), (768, 384)),
        (2, (720, 720), (1024, 512)),
        (5, (720, 720), (1024, 512)),
        (4, (720, 360), (1024, 128)),
        (3, (4000, 2), (1023, 1)),
        (1000, (64, 64), (1024, 448)),
    ],
)
def test_a_sheet_has_a_sensible_width(count: int, size: tuple[int, int], whole: tuple[int, int]):
    assert sheet(colours(1, size) * count).size == whole
    assert SHEET_MOST == 100


def test_no_picture_shows_none():
    assert drawing(0)._repr_png_() is None


def test_a_request_that_fails_keeps_its_seed():
    error = ValueError("no")
    assert failure(Caption("x.png", seed=7), 0, error).seed == 7
    assert failure(Caption("x.png"), 0, error).seed == 0
    assert failure(None, 0, error).seed == 0  # type: ignore[arg-type]


def test_the_events_of_a_text_end_with_its_result_once(model: Model):
    job = model.prepare.job(Caption(Image.new("RGB", (64, 64)), seed=1))
    assert job.new_events() == []
    job.fail("abort", "stopped")
    (event,) = job.new_events()
    assert event.kind == "result" and event.result is not None and event.result.error == "stopped"
    assert job.new_events() == []


def test_what_is_no_request_is_refused_by_its_type(model: Model):
    with pytest.raises(TypeError, match=r"a Caption, a Reply, a Draw or an Edit, not str"):
        model.prepare.job("a cat")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot edit pictures"):
        model.prepare.job(Edit(Image.new("RGB", (64, 64)), "make it red"))
