"""Which of several texts is true of a picture, asked of models that score texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.parity.tiny_scorers import clip_folder
from unitok.emoji import captions
from unitok.emoji.evaluation import judge_all
from unitok.emoji.matching import CHOICES, EmojiMatchingSuite
from unitok.evaluation.matching import Match, ScorerRunner
from unitok.evaluation.suite import Judgement, SuiteOptions
from unitok.requests import Draw

SMALL = SuiteOptions(limit=8)


class Scorer:
    """Scores texts by a table: picture and text -> number."""

    name = "table"

    def __init__(self, table: dict[tuple[bytes, str], float]) -> None:
        self.table, self.calls = table, 0

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Tensor:
        self.calls += 1
        if any(image.size == (1, 1) for image in images):
            raise ValueError("too small")
        rows = [[self.table.get((i.tobytes(), t), 0.0) for t in texts] for i in images]
        return torch.tensor(rows)


def matched(table: dict[tuple[bytes, str], float]) -> list[Judgement]:
    suite = EmojiMatchingSuite(SMALL)
    runner: Any = ScorerRunner(Scorer(table))  # type: ignore[arg-type]
    return [one.judgement for one in judge_all(runner, suite, suite.items())]


def test_a_model_that_knows_is_right_and_one_that_does_not_is_right_by_chance():
    suite = EmojiMatchingSuite(SMALL)
    true = {(i.request.image.tobytes(), i.wanted): 1.0 for i in suite.items()}  # type: ignore[union-attr]
    scores = suite.summary(matched(true)).scores
    assert set(scores) == {
        "matching",
        *(f"matching_{kind}" for kind in ("single", "colour", "two", "count", "position")),
    }
    assert set(scores.values()) == {1.0}
    # The true caption stands anywhere, so a model to which all are alike is right in one of ten.
    assert suite.summary(matched({})).scores["matching"] < 0.3


def test_one_caption_of_ten_is_true_and_the_others_are_like_it():
    items = EmojiMatchingSuite(SMALL).items()
    shared = 0
    for item in items:
        assert isinstance(item.request, Match)
        assert len(set(item.request.texts)) == CHOICES
        claims = [captions.parse(text) for text in item.request.texts]
        (true,) = (claim for claim in claims if claim == captions.parse(item.wanted))
        assert true is not None
        names = {name for name, _ in true.objects}
        shared += sum(bool(names & {n for n, _ in c.objects}) for c in claims if c) - 1
    assert shared / len(items) > 3


def test_results_are_in_order_and_one_that_fails_fails_alone():
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    scorer = Scorer({(red.tobytes(), "red"): 1.0, (blue.tobytes(), "blue"): 1.0})
    texts = ("red", "blue", "green")
    asked: list[Any] = [Match(red, texts), Match(Image.new("RGB", (1, 1)), texts)]
    asked += [Match(blue, texts[1:]), Draw("a cat")]
    results = {r.index: r for r in ScorerRunner(scorer).run(asked)}  # type: ignore[arg-type]
    assert [getattr(results[i], "text", None) for i in range(4)] == ["red", "", "blue", None]
    assert results[1].error is not None and "too small" in results[1].error
    assert results[3].error is not None and "Match" in results[3].error
    scorer.calls = 0
    list(ScorerRunner(scorer).run([Match(red, texts)] * 40))  # type: ignore[arg-type]
    assert scorer.calls == 2


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return clip_folder(tmp_path / "clip")


def test_a_clip_is_evaluated_on_the_command_line(evaluate, clip: Path):
    words = ["emoji-matching", "--limit", "1", "--model", str(clip), "--json", "--out", "m"]
    done = evaluate(*words, model=False)
    scores = json.loads(done.stdout)
    assert done.exit_code == 0 and scores["items"] == 5 and scores["failed"] == 0
    assert scores["facts"]["role"] == "scorer" and 0 <= scores["scores"]["matching"] <= 1
    assert "Which of 10 texts is true?" in Path("m/report.html").read_text(encoding="utf-8")
    refused = evaluate("emoji", "--limit", "1", "--model", str(clip), model=False)
    assert refused.exit_code == 2 and "asks nothing that a scorer does" in refused.stderr
