"""BLEU, CIDEr and ROUGE-L against pycocoevalcap and numbers worked by hand; words of captions
against what Stanford's PTBTokenizer made of the same captions."""

import math
import random

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from unitok.evaluation.caption_metrics import (
    Described,
    bleu,
    caption_scores,
    cider,
    common_length,
    rouge_l,
)
from unitok.evaluation.caption_words import caption_words

# What edu.stanford.nlp.process.PTBTokenizer of CoreNLP 3.4.1 makes of a caption, with
# `-preserveLines -lowerCase` and without punctuation.
RECORDED = {
    "A man riding a wave on top of a surfboard.": "a man riding a wave on top of a surfboard",
    "It's a dog's life, isn't it? They don't; can't, cannot, won't.": (
        "it 's a dog 's life is n't it they do n't ca n't can not wo n't"
    ),
    "The kids' toys are \"red\" and 'blue'. He's gonna wanna gimme.": (
        "the kids toys are red and blue he 's gon na wan na gim me"
    ),
    "Black-and-white photo (old) of 3/4 of a pizza & a $5 bill; 50% off #1": (
        "black-and-white photo -lrb- old -rrb- of 3/4 of a pizza & a $ 5 bill 50 % off # 1"
    ),
    "A bus at 3:30 p.m. on Main St. in the U.S.": "a bus at 3:30 p.m. on main st. in the u.s.",
    "two-story building... with a stop sign -- and more - or less": (
        "two-story building with a stop sign and more or less"
    ),
    "Dr. Smith’s “dog” — café 1,000 people 2.5 feet 6'2\" tall 5'": (
        "dr. smith 's dog café 1,000 people 2.5 feet 6 2 tall 5"
    ),
    "I've been at Mt. Hood, we're late; they'd say y'all.": (
        "i 've been at mt. hood we 're late they 'd say y' all"
    ),
    "a man ,eating . cheese,and bread.Then he left": "a man eating cheese and bread.then he left",
    "rock'n'roll at 5 o'clock with AT&T, b/w his/her 90° view!": (
        "rock 'n' roll at 5 o'clock with at&t b/w his/her 90 ° view"
    ),
    "He is ill. She sat. It is no. No. 5 of the Ill. state": (
        "he is ill she sat it is no no. 5 of the ill. state"
    ),
    "What?! Hello!!! hmm.... the '70s, 1970's, 10:30am [sic]": (
        "what ?! hello !!! hmm the '70s 1970 's 10:30 am -lsb- sic -rsb-"
    ),
}


@pytest.mark.parametrize("caption", RECORDED)
def test_words_are_those_of_the_tokenizer_that_coco_uses(caption: str):
    assert caption_words(caption) == RECORDED[caption].split()


def test_a_line_end_counts_as_a_blank_and_no_text_has_no_words():
    assert caption_words("a dog\nruns\tfast") == ["a", "dog", "runs", "fast"]
    assert caption_words(" . , ") == []


def made_set(pictures: int, seed: int) -> list[Described]:
    """Captions that share words with their references, which are one to five."""
    chance = random.Random(seed)
    words = [f"w{i}" for i in range(12)]

    def text() -> list[str]:
        return chance.choices(words, weights=range(12, 0, -1), k=chance.randint(3, 14))

    made = []
    for _ in range(pictures):
        references = [text() for _ in range(chance.randint(1, 5))]
        caption = list(chance.choice(references))
        for i in range(len(caption)):
            if chance.random() < 0.3:
                caption[i] = chance.choice([*words, "never"])
        made.append(Described(caption, references))
    return made


def theirs(captions: list[Described]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and captions in the form of pycocoevalcap."""
    references = {i: [" ".join(r) for r in d.references] for i, d in enumerate(captions)}
    return references, {i: [" ".join(d.caption)] for i, d in enumerate(captions)}


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_pycocoevalcap(seed: int):
    captions = made_set(60, seed)
    references, said = theirs(captions)
    assert bleu(captions) == pytest.approx(
        Bleu(4).compute_score(references, said, verbose=0)[0], abs=1e-4
    )
    mean, each = Cider().compute_score(references, said)
    assert cider(captions) == pytest.approx(each.tolist(), abs=1e-4)
    assert 0.5 < mean < 9.5
    rouge, each = Rouge().compute_score(references, said)
    assert [rouge_l(d) for d in captions] == pytest.approx(each.tolist(), abs=1e-4)
    scores = caption_scores(captions)
    assert (scores["cider"], scores["rouge_l"]) == pytest.approx((mean, rouge), abs=1e-4)


def test_scores_of_two_captions_worked_by_hand():
    captions = [
        Described("a red dog".split(), ["a red dog runs".split()]),
        Described("a cat".split(), ["a cat".split(), "the cat".split()]),
    ]
    # 5 of 5 words, 3 of 3 pairs, 1 of 1 triple, no four; 5 words beside 6.
    short = math.exp(1 - 6 / 5)
    assert bleu(captions) == pytest.approx([short, short, short, 0.0])
    # LCS 3: precision 1, recall 3/4.
    assert rouge_l(captions[0]) == pytest.approx(2.44 * 0.75 / (0.75 + 1.44))
    assert rouge_l(captions[1]) == 1
    # "a" is in the references of both pictures and weighs nothing; all else weighs log 2. Of the
    # first, 2 of 3 words, 2 of 3 pairs, 1 of 2 triples: cosines sqrt(2/3), sqrt(2/3), sqrt(1/2);
    # 2 pairs beside 3.
    first = (2 * math.sqrt(2 / 3) + math.sqrt(1 / 2)) / 4 * math.exp(-1 / 72)
    # Of the second: "cat" and "a cat" are the first reference. In the other, "cat" is 1 of 2 words.
    second = (2 / 4 + math.sqrt(1 / 2) / 4) / 2
    assert cider(captions) == pytest.approx([10 * first, 10 * second])


def test_a_set_of_one_picture_has_no_cider_and_an_empty_caption_has_no_score():
    assert cider([Described(["a", "dog"], [["a", "dog"]])]) == [0]
    empty = Described([], [["a", "dog"]])
    assert rouge_l(empty) == 0
    assert bleu([empty]) == [0, 0, 0, 0]
    assert common_length("abcbdab", "bdcaba") == 4


def test_no_captions_and_no_references_are_refused():
    with pytest.raises(ValueError, match="no captions"):
        caption_scores([])
    with pytest.raises(ValueError, match="no reference"):
        caption_scores([Described(["a"], [])])
