"""GenEval: the file's form, the layout for the official scorer, and its rules."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.evaluation.suites import judge_drawings, write_lines
from unitok.baselines.protocols import Detection
from unitok.evaluation.public.geneval import GenevalSuite
from unitok.evaluation.public.geneval_rules import COLOURS, GenevalJudge, parse_wanted, places
from unitok.evaluation.suite import SuiteOptions

BENCH: dict[str, Any] = {
    "tag": "single_object",
    "include": [{"class": "bench", "count": 1}],
    "prompt": "a photo of a bench",
}
COUNT: dict[str, Any] = {
    "tag": "counting",
    "include": [{"class": "dog", "count": 2}],
    "exclude": [{"class": "dog", "count": 3}],
    "prompt": "a photo of two dogs",
}
RED: dict[str, Any] = {
    "tag": "colors",
    "include": [{"class": "car", "count": 1, "color": "red"}],
    "prompt": "a photo of a red car",
}
LEFT: dict[str, Any] = {
    "tag": "position",
    "include": [
        {"class": "dog", "count": 1},
        {"class": "car", "count": 1, "position": ["left of", 0]},
    ],
    "prompt": "a photo of a car left of a dog",
}


class Finds:
    """A detector that finds what it is told, if it is sure enough."""

    name = "made detections"

    def __init__(self, *found: Detection) -> None:
        self.found = list(found)

    def detect(
        self, image: Image.Image, labels: Sequence[str], threshold: float
    ) -> list[Detection]:
        return [d for d in self.found if d.label in labels and d.score > threshold]


class SeesColours:
    """A CLIP whose features are the nearest of the pure colours, and the colour that is named."""

    name = "made CLIP"
    pure = torch.tensor([[255.0, 0, 0], [0, 0, 255.0]])

    def image_features(self, images: Sequence[Any]) -> Tensor:
        found = torch.zeros(len(images), len(COLOURS))
        for i, image in enumerate(images):
            red = image.getpixel((image.width // 2, image.height // 2))[0] > 100
            found[i, COLOURS.index("red" if red else "blue")] = 1
        return found

    def text_features(self, texts: Sequence[str]) -> Tensor:
        found = torch.zeros(len(texts), len(COLOURS))
        for i, text in enumerate(texts):
            found[i, [c in text.replace("-", " ").split() for c in COLOURS].index(True)] = 1
        return found


def dog(left: float, score: float = 0.95) -> Detection:
    return Detection("dog", (left, 40, left + 20, 60), score)


def car(left: float, top: float = 40) -> Detection:
    return Detection("car", (left, top, left + 20, top + 20), 0.5)


def faults(record: dict[str, Any], *found: Detection, colour: str = "red") -> list[str]:
    judge = GenevalJudge(Finds(*found), SeesColours())  # type: ignore[arg-type]
    return judge.faults(Image.new("RGB", (100, 100), colour), parse_wanted(record, "line 1"))


def test_counts_are_exact_and_need_sure_detections():
    assert faults(COUNT, dog(0), dog(30)) == []
    assert faults(COUNT, dog(0), dog(30, 0.5)) == ["expected 2 dog, found 1"]
    assert faults(COUNT, dog(0), dog(30), dog(60)) == ["expected fewer dog than 3, found 3"]
    assert faults(BENCH, dog(0)) == ["expected 1 bench, found 0"]


def test_colours_are_those_of_the_crops():
    assert faults(RED, car(0)) == []
    assert faults(RED, car(0), colour="blue") == ["expected red car, found blue"]


def test_places_need_a_distance_of_a_tenth_of_the_sides():
    assert faults(LEFT, dog(70), car(10)) == []
    assert faults(LEFT, dog(10), car(70)) == ["expected car left of the other"]
    assert faults(LEFT, car(70)) == ["expected 1 dog, found 0", "expected car left of the other"]
    box = (0.0, 0.0, 20.0, 20.0)
    # 3 apart along x and sides of 40 together: less than a tenth of them.
    assert places((3, 0, 23, 20), box) == set()
    # 20 apart: 16 are left of the distance of 20.
    assert places((20, 0, 40, 20), box) == {"right of"}
    assert places((0, -20, 20, 0), box) == {"above"}
    # 20 and 20: 16 of 28.3 on both sides.
    assert places((-20, 20, 0, 40), box) == {"left of", "below"}
    # 10 and 30: 6 and 26 of 31.6.
    assert places((10, 30, 30, 50), box) == {"below"}


def made_suite(tmp_path: Path, *records: object, limit: int | None = None) -> GenevalSuite:
    data = write_lines(tmp_path / "evaluation_metadata.jsonl", *records)
    return GenevalSuite(SuiteOptions(data, limit))


def test_four_drawings_of_each_prompt_are_laid_out_for_the_official_scorer(tmp_path: Path):
    suite = made_suite(tmp_path, BENCH, LEFT)
    items = suite.items()
    assert [i.key for i in items[3:6]] == ["00000_0003", "00001_0000", "00001_0001"]
    assert [i.request.seed for i in items[:5]] == [42, 43, 44, 45, 42]  # type: ignore[union-attr]
    images = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(8)]
    judged = judge_drawings(suite, images, tmp_path / "run")
    assert {j.ok for j in judged} == {None}
    suite.export(judged, tmp_path / "run")
    place = tmp_path / "run" / "geneval" / "00001"
    assert json.loads((place / "metadata.jsonl").read_text()) == LEFT
    names = sorted(p.name for p in (place / "samples").iterdir())
    assert names == ["0000.png", "0001.png", "0002.png", "0003.png"]
    with Image.open(place / "samples" / "0002.png") as image:
        assert image.getpixel((0, 0)) == (6, 0, 0)
    assert suite.summary(judged).notes == [
        "Nothing is judged here: run GenEval's scorer on geneval."
    ]


def test_with_a_detector_the_scores_have_names_of_their_own(tmp_path: Path):
    suite = made_suite(tmp_path, RED, LEFT)
    suite.rules = GenevalJudge(Finds(car(10), dog(70)), SeesColours())  # type: ignore[arg-type]
    colours = ["red", "red", "blue", "blue", *["red"] * 4]
    images = [Image.new("RGB", (100, 100), colour) for colour in colours]
    judged = judge_drawings(suite, images, tmp_path / "run")
    assert judged[2].said == "expected red car, found blue"
    summary = suite.summary(judged)
    assert summary.scores == {
        "geneval_by_detector": 0.75,
        "colors_by_detector": 0.5,
        "position_by_detector": 1,
    }
    assert "Published scores are of Mask2Former" in summary.notes[0]


def test_a_detector_needs_a_scorer(tmp_path: Path):
    data = write_lines(tmp_path / "evaluation_metadata.jsonl", BENCH)
    with pytest.raises(ValueError, match="give both --detector and --scorer"):
        GenevalSuite(SuiteOptions(data, detector="folder"))


def test_a_limit_takes_the_first_prompts_of_each_task(tmp_path: Path):
    another = BENCH | {"prompt": "a photo of one bench"}
    suite = made_suite(tmp_path, BENCH, another, LEFT, limit=4)
    assert {i.key[:5] for i in suite.items()} == {"00000", "00002"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (BENCH, "the line .* is at .*line 1 already"),
        (LEFT | {"include": LEFT["include"][1:]}, "position must be such as"),
        (
            RED | {"include": [{"class": "car", "count": 1, "color": "beige"}]},
            "color must be one of",
        ),
        (RED | {"include": []}, "include is empty"),
        (RED | {"include": [{"class": "car", "count": 0}]}, "count must be a whole number"),
        ({"tag": "x", "include": BENCH["include"]}, "prompt must be text"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, record: object, message: str):
    with pytest.raises(ValueError, match=rf"evaluation_metadata\.jsonl, line 2: {message}"):
        made_suite(tmp_path, BENCH, record)
