"""The embedded model is as small and as good as docs/default_model.md says, on a sample."""

import pytest

import unitok
from unitok.emoji.evaluation import report
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import KINDS
from unitok.evaluation.metrics import rate
from unitok.loading import DEFAULT_FOLDER


@pytest.fixture(scope="module")
def model():
    return unitok.load(device="cpu")


@pytest.fixture(scope="module")
def scores(model):
    return report(model, prompts=8).scores


def test_it_takes_at_most_16_megabytes():
    assert sum(file.stat().st_size for file in DEFAULT_FOLDER.iterdir()) <= 16_000_000


def test_it_draws_combinations_it_never_saw(scores):
    assert scores["draw_mean"] >= 0.85
    assert all(scores[f"draw_{kind}"] >= 0.6 for kind in KINDS)


def test_it_reads_combinations_it_never_saw(scores):
    assert scores["caption"] >= 0.85
    assert rate([scores[f"question_{k}"] for k in ("number", "colour", "place", "presence")]) >= 0.8


def test_its_image_tokenizer_keeps_pictures(scores):
    assert scores["image_tokenizer_psnr"] >= 30


def test_its_codes_do_not_know_the_background(model):
    scenes = SceneSampler(3, "heldout").batch(64, "colour")
    tokenizer = model.family.model.image_tokenizer
    blended, on_cards = (tokenizer.encode(render(scenes, style=s)) for s in ("blended", "square"))
    assert (blended == on_cards).float().mean() >= 0.9


def test_a_conversation_draws_and_then_reads_what_it_drew(model):
    chat = model.chat()
    drawing = chat.draw("a cat on a pink background", seed=1)
    assert chat.send("what colour is the background?").text == "pink"
    assert model.caption(drawing.image).text == "a cat on a pink background"


def test_an_unknown_word_is_named(model):
    with pytest.warns(UserWarning, match="never saw the word 'zebra'"):
        model.draw("a zebra", seed=1)


def test_the_same_seed_gives_the_same_picture_alone_and_in_a_crowd(model):
    alone = model.draw("a cat left of a house", seed=5).image
    crowd = model.draw(["a cat left of a house", *["a dog", "two apples"] * 4], seed=5)
    assert alone.tobytes() == crowd[0].image.tobytes()
    assert model.caption(to_pil(render(SceneSampler(1).batch(1))[0])).text
