"""COCO captions: both forms of the data, the scores, and the results' form."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.suites import failed, judge_answers, save_pictures
from unitok.evaluation.caption_metrics import Described, caption_scores
from unitok.evaluation.public.coco_captions import CocoCaptionsSuite
from unitok.evaluation.suite import SuiteOptions

FIRST, SECOND = "COCO_val2014_000000000042.jpg", "COCO_val2014_000000000073.jpg"
COCO: dict[str, Any] = {
    "images": [{"id": 42, "file_name": FIRST}, {"id": 73}, {"id": 99, "file_name": "none.jpg"}],
    "annotations": [
        {"image_id": 73, "id": 1, "caption": "Two motorcycles, parked."},
        {"image_id": 42, "id": 2, "caption": "A shoe rack with some shoes."},
        {"image_id": 42, "id": 3, "caption": "A dog's asleep on a shoe rack"},
    ],
}
KARPATHY = {
    "images": [
        {
            "filepath": "val2014",
            "filename": FIRST,
            "split": "test",
            "cocoid": 42,
            "sentences": [{"raw": "A shoe rack with some shoes.", "tokens": ["a"]}],
        },
        {"filename": "x.jpg", "split": "train", "cocoid": 1, "sentences": []},
    ],
    "dataset": "coco",
}


def made_suite(tmp_path: Path, document: Any, limit: int | None = None) -> CocoCaptionsSuite:
    images = save_pictures(tmp_path / "val2014", FIRST, SECOND)
    data = tmp_path / "captions_val2014.json"
    data.write_text(json.dumps(document))
    return CocoCaptionsSuite(SuiteOptions(data, limit, images=images))


def test_captions_are_scored_and_written_for_the_evaluation_server(tmp_path: Path):
    suite = made_suite(tmp_path, COCO)
    assert [item.key for item in suite.items()] == ["000000000042", "000000000073"]
    judged = judge_answers(suite, ["A dog is asleep on a\n shoe rack.", "Two motorcycles"])
    summary = suite.summary(judged)
    expected = caption_scores(
        [
            Described(
                "a dog is asleep on a shoe rack".split(),
                ["a shoe rack with some shoes".split(), "a dog 's asleep on a shoe rack".split()],
            ),
            Described("two motorcycles".split(), ["two motorcycles parked".split()]),
        ]
    )
    assert summary.scores == pytest.approx(expected)
    assert set(summary.scores) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"}
    assert judged[1].score == pytest.approx(2.44 * 2 / 3 / (2 / 3 + 1.44))  # ROUGE-L of recall 2/3
    suite.export(judged, tmp_path)
    assert json.loads((tmp_path / "captions_results.json").read_text()) == [
        {"image_id": 42, "caption": "A dog is asleep on a shoe rack."},
        {"image_id": 73, "caption": "Two motorcycles"},
    ]


def test_a_picture_without_a_caption_counts_as_an_empty_one(tmp_path: Path):
    suite = made_suite(tmp_path, COCO)
    whole = judge_answers(suite, ["A shoe rack with some shoes.", "two motorcycles parked"])
    part = suite.summary([whole[0], failed(suite.items()[1])])
    assert suite.summary(whole).scores["cider"] == pytest.approx(7.5, abs=2.5)
    assert part.scores["cider"] < suite.summary(whole).scores["cider"]
    assert "1 pictures got no caption" in part.notes[1]


def test_karpathys_test_pictures_are_taken(tmp_path: Path):
    suite = made_suite(tmp_path, KARPATHY)
    (item,) = suite.items()
    assert item.wanted == ["A shoe rack with some shoes."]
    assert len(made_suite(tmp_path, COCO, limit=1).items()) == 1


def test_errors_name_the_entry(tmp_path: Path):
    def message(document: Any) -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            made_suite(tmp_path, document)
        return str(caught.value)

    twice = COCO | {"images": [{"id": 42}, {"id": 42}]}
    assert "images[1]: the image id 42 is at" in message(twice)
    stray = COCO | {"annotations": [{"image_id": 5, "caption": "a"}]}
    assert "annotations[0]: there is no image 5" in message(stray)
    odd = COCO | {"annotations": [{"image_id": 42, "caption": 3}]}
    assert "annotations[0]: caption must be text, not 3" in message(odd)
    assert "images must be a list of objects" in message({"images": 3})
    assert "holds no JSON object" in message([])
    assert "has no picture with captions" in message(COCO | {"annotations": []})
    missing = COCO | {
        "images": [{"id": 42, "file_name": "y.jpg"}],
        "annotations": COCO["annotations"][1:],
    }
    assert "1 pictures are missing" in message(missing) and "--images" in message(missing)
    path = COCO | {"images": [{"id": 42, "file_name": "/etc/passwd"}]}
    assert "is no name within" in message(path)
