"""Shares, intervals, words and similarities, beside numbers from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unitok.evaluation.intervals import mean_interval, wilson
from unitok.evaluation.presence import presence_scores, presence_table
from unitok.evaluation.similarity import ssim
from unitok.evaluation.suite import Judgement
from unitok.evaluation.tallies import shares, tallies
from unitok.evaluation.words import best_f1, is_accepted, normalised


def judged(key: str, group: str, ok: bool | None, said: str = "", wanted: str = "") -> Judgement:
    return Judgement(key, group, ok, said=said, wanted=wanted)


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [
        (7, 10, 0.3968, 0.8922),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (95, 100, 0.8882, 0.9785),
    ],
)
def test_the_interval_of_a_share_is_wilsons(right: int, of: int, low: float, high: float):
    assert wilson(right, of) == pytest.approx((low, high), abs=1e-4)


def test_nothing_says_nothing_of_a_share():
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_interval_of_a_mean_is_by_the_normal_distribution():
    # The mean is 2.5, the variance 5/3, so the half width is 1.959964 * sqrt(5/12).
    assert mean_interval([1, 2, 3, 4]) == pytest.approx((2.5 - 1.26515, 2.5 + 1.26515), abs=1e-4)
    assert mean_interval([3.0]) == (3.0, 3.0)


def test_groups_are_counted_in_their_order():
    found = tallies([judged("1", "b", True), judged("2", "a", None), judged("3", "b", False)])
    assert [(t.group, t.count, t.judged, t.share) for t in found] == [
        ("b", 2, 2, 0.5),
        ("a", 1, 0, None),
    ]
    assert shares([judged("1", "b", True), judged("2", "a", None)]) == {"b": 1.0}


def test_words_are_compared_without_case_articles_and_punctuation():
    assert normalised("The two Cats, on a sofa!") == ["2", "cats", "on", "sofa"]
    assert is_accepted("Two.", ["2"]) and is_accepted("a Cat", ["cat", "kitten"])
    assert not is_accepted("cats", ["cat", "kitten"])


def test_the_first_word_decides_between_yes_and_no():
    assert is_accepted("Yes, there is a dog.", ["yes"])
    assert not is_accepted("No, yes is wrong.", ["yes"])
    assert not is_accepted("There is one.", ["yes"])
    assert not is_accepted("yes indeed", ["yes", "it is"])  # not a question of yes and no alone


def test_f1_is_that_of_the_nearest_answer():
    # "red cat" and "red dog" share one word of two and two.
    assert best_f1("a red cat", ["the red dog", "bird"]) == 0.5
    assert best_f1("", ["cat"]) == 0.0


def ssim_by_windows(one: np.ndarray, other: np.ndarray) -> float:
    """The structural similarity of channels [3, H, W], window by window, as the paper has it."""
    bell = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    weights = np.outer(bell, bell) / np.outer(bell, bell).sum()
    found = []
    for x, y in zip(one, other, strict=True):
        for row in range(x.shape[0] - 10):
            for column in range(x.shape[1] - 10):
                a, b = (z[row : row + 11, column : column + 11] for z in (x, y))
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                spread = (weights * ((a - mean_a) ** 2 + (b - mean_b) ** 2)).sum()
                alike = (2 * mean_a * mean_b + 0.0001) * (2 * both + 0.0009)
                found.append(alike / ((mean_a**2 + mean_b**2 + 0.0001) * (spread + 0.0009)))
    return float(np.mean(found))


@pytest.mark.parametrize("size", [11, 16])
def test_ssim_is_the_mean_over_windows(size: int):
    random = torch.Generator().manual_seed(size)
    one = torch.rand(2, 3, size, size + 3, generator=random)
    other = (one + 0.2 * torch.rand(one.shape, generator=random)).clamp(0, 1)
    pairs = zip(one.double().numpy(), other.double().numpy(), strict=True)
    expected = [ssim_by_windows(a, b) for a, b in pairs]
    assert ssim(one, other).tolist() == pytest.approx(expected, abs=1e-9)
    assert ssim(one, one).tolist() == pytest.approx([1, 1])


def test_ssim_needs_room_for_its_window():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30))


def test_presence_is_scored_as_by_pope():
    # Three of four yes are right: precision 3/4. Three of five present are found: recall 3/5.
    said = ["yes", "yes", "yes", "no", "no", "yes", "no", "no", "no", "maybe"]
    true = ["yes"] * 5 + ["no"] * 5
    all_judged = [
        judged(str(i), "random", s == t, s, t)
        for i, (s, t) in enumerate(zip(said, true, strict=True))
    ]
    assert presence_scores(all_judged) == {
        "accuracy": 0.6,
        "precision": 0.75,
        "recall": 0.6,
        "f1": 0.6667,
        "yes": 0.4,
    }
    rows = presence_table(all_judged).rows
    assert [row[0] for row in rows] == ["random", "all"]
    assert rows[0][-2:] == (1, 10)
