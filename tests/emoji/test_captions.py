import random
from itertools import pairwise

import pytest

from unitok.emoji.captions import (
    OPPOSITE,
    PREFIXES,
    QUESTION_KINDS,
    RELATION_PHRASES,
    Claim,
    article,
    caption,
    claim,
    corpus,
    equivalent,
    parse,
    places,
    prompt,
    question_kinds,
    questions,
    vocabulary_words,
    words,
)
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import WHITE, Item, Scene
from unitok.emoji.split import heldout, pair
from unitok.emoji.sprites import LARGE, SMALL

SCENES = SceneSampler(0, "any").batch(1500)
CAT_LEFT_OF_HOUSE = Scene(
    "position", "pink", (Item("house", SMALL, 1, 4), Item("cat", SMALL, 0, 0))
)
TWO_APPLES = Scene("count", "blue", (Item("apple", SMALL, 0, 0), Item("apple", SMALL, 4, 4)))


def asked(scene, kind, n=200, seed=0):
    rng = random.Random(seed)
    return {questions(scene, rng, kind) for _ in range(n)}


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (Scene("single", WHITE, (Item("apple", LARGE, 0, 0),)), "an apple"),
        (Scene("colour", "blue", (Item("key", LARGE, 0, 0),)), "a key on a blue background"),
        (TWO_APPLES, "two apples on a blue background"),
        (CAT_LEFT_OF_HOUSE, "a cat left of a house on a pink background"),
        (
            Scene("two", WHITE, (Item("cat", SMALL, 4, 0), Item("dog", SMALL, 0, 1))),
            "a dog above a cat",
        ),
    ],
)
def test_a_scene_has_one_canonical_caption(scene, text):
    assert caption(scene) == text


def test_every_caption_reads_back_as_all_that_is_true():
    for scene in SCENES:
        assert parse(caption(scene)) == claim(scene)
        assert equivalent(caption(scene), scene)


def test_every_prompt_reads_back_as_a_true_claim():
    rng = random.Random(1)
    for scene in SCENES:
        said = parse(prompt(scene, rng))
        assert said is not None
        assert (said.objects, said.background) == (claim(scene).objects, scene.background)
        assert said.relation == (scene.relation() if scene.kind == "position" else None)


def test_prompts_use_every_phrasing():
    rng = random.Random(2)
    said = [prompt(CAT_LEFT_OF_HOUSE, rng) for _ in range(500)]
    for phrase in (*RELATION_PHRASES["left of"], *RELATION_PHRASES["right of"], *PREFIXES):
        assert any(phrase in text for text in said), phrase
    assert {text.split(" pink ")[0].rsplit("house", 1)[1] for text in said if "left" in text} == {
        " on a",
        ",",
        " in front of a",
    }


def test_white_is_seldom_mentioned_in_a_prompt():
    rng = random.Random(3)
    scene = Scene("single", WHITE, (Item("pig", SMALL, 0, 0),))
    share = sum("white" in prompt(scene, rng) for _ in range(1000)) / 1000
    assert 0.1 < share < 0.3


@pytest.mark.parametrize(
    "text",
    [
        "a cat left of a house on a pink background",
        "a house right of a cat, pink background",
        "draw a house to the right of a cat in front of a pink background",
        "A cat and a house on a pink background.",
    ],
)
def test_true_and_complete_captions_are_equivalent(text):
    assert equivalent(text, CAT_LEFT_OF_HOUSE)


@pytest.mark.parametrize(
    "text",
    [
        "a cat left of a house",
        "a cat right of a house on a pink background",
        "a cat above a house on a pink background",
        "a cat on a pink background",
        "two cats and a house on a pink background",
        "a dog left of a house on a pink background",
        "a cat left of a house on a pink background and more",
        "",
    ],
)
def test_untrue_and_incomplete_captions_are_not_equivalent(text):
    assert not equivalent(text, CAT_LEFT_OF_HOUSE)


def test_another_scenes_caption_is_equivalent_only_if_it_claims_the_same():
    for scene, other in pairwise(SCENES):
        assert equivalent(caption(other), scene) == (claim(other) == claim(scene))


@pytest.mark.parametrize(
    "text",
    [
        "a unicorn",
        "five cats",
        "two cat",
        "a cats",
        "a cat and a cat",
        "cat",
        "a cat on a red roof",
    ],
)
def test_other_texts_are_no_claims(text):
    assert parse(text) is None


def test_a_claim_without_a_background_means_white():
    assert parse("a picture of three stars") == Claim((("star", 3),), WHITE, None)


def test_questions_have_true_answers():
    assert asked(TWO_APPLES, "colour") == {
        ("what colour is the background?", "blue"),
        ("what color is the background?", "blue"),
    }
    numbers = asked(TWO_APPLES, "number")
    assert ("how many apples are there?", "two") in numbers
    assert {answer for question, answer in numbers if "apples" not in question} == {"zero"}
    assert asked(CAT_LEFT_OF_HOUSE, "place") == {
        ("what is left of the house?", "a cat"),
        ("what is to the left of the house?", "a cat"),
        ("what is right of the cat?", "a house"),
        ("what is to the right of the cat?", "a house"),
        ("where is the cat?", "left of the house"),
        ("where is the house?", "right of the cat"),
    }
    for question, answer in asked(CAT_LEFT_OF_HOUSE, "presence"):
        shown = any(f" {article(name)}?" in question for name in ("cat", "house"))
        assert answer == ("yes" if shown else "no")
    assert {answer for _, answer in asked(TWO_APPLES, "describe")} == {caption(TWO_APPLES)}


def test_presence_is_yes_half_of_the_time():
    rng = random.Random(4)
    answers = [questions(scene, rng, "presence").answer for scene in SCENES]
    assert 0.45 < answers.count("yes") / len(answers) < 0.55


def test_a_scene_says_which_questions_it_can_answer():
    assert question_kinds(CAT_LEFT_OF_HOUSE) == QUESTION_KINDS
    assert "place" not in question_kinds(TWO_APPLES)
    with pytest.raises(ValueError, match="two different objects"):
        questions(TWO_APPLES, random.Random(0), "place")
    with pytest.raises(ValueError, match="two different objects"):
        places(TWO_APPLES, random.Random(0))
    with pytest.raises(ValueError, match="no question kind"):
        questions(TWO_APPLES, random.Random(0), "weather")


def test_opposites_are_mutual():
    assert all(OPPOSITE[OPPOSITE[word]] == word for word in OPPOSITE)


def test_the_vocabulary_is_exactly_what_the_corpus_uses():
    used = {word for line in corpus(40_000, seed=0) for word in words(line)}
    assert used == set(vocabulary_words())


def test_the_corpus_is_lower_case_repeatable_and_as_long_as_asked():
    lines = list(corpus(1001, seed=5))
    assert len(lines) == 1001 and lines == list(corpus(1001, seed=5)) != list(corpus(1001, seed=6))
    assert all(line == line.lower().strip() for line in lines)


def test_the_corpus_never_names_a_held_out_pair():
    for line in corpus(20_000, seed=7):
        said = parse(line)
        if said is not None and len(said.objects) == 2:
            assert not heldout(pair(*(name for name, _ in said.objects)))
