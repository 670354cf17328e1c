"""SAM and Grounding DINO give the masks and boxes of transformers, in the picture's own pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    SamModel,
    SamProcessor,
)

from tests.parity.tiny_finders import save_grounding_dino, save_sam
from tests.parity.tiny_perception import random_pictures
from unitok.baselines.detector import corners
from unitok.baselines.opening import load
from unitok.baselines.protocols import Detector, Segmenter

POINTS, BOXES = [(5, 30), (44.5, 8)], [(3, 4, 20, 35), (25, 1, 50, 40)]


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sam(tmp_path_factory.mktemp("sam"))


def test_points_and_boxes_give_the_masks_of_the_library(sam: Path):
    (picture,) = random_pictures(1)
    segmenter = load(sam, "segmenter", device="cpu")
    assert isinstance(segmenter, Segmenter)
    found = segmenter.segment(picture, points=POINTS, boxes=BOXES)
    assert found.masks.shape == (4, picture.height, picture.width)
    assert found.masks.dtype == torch.bool and len(found.scores) == 4

    model = SamModel.from_pretrained(sam).eval()
    processor: Any = SamProcessor.from_pretrained(sam)
    asked: list[dict[str, Any]] = [
        {"input_points": [[[list(p)] for p in POINTS]]},
        {"input_boxes": [[list(b) for b in BOXES]]},
    ]
    wanted: list[tuple[torch.Tensor, float]] = []
    for where, several in zip(asked, (True, False), strict=True):
        inputs = processor(images=picture, return_tensors="pt", **where)
        with torch.no_grad():
            out = model(**inputs, multimask_output=several)
        masks = processor.post_process_masks(
            out.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )[0]
        for thing in range(2):
            scores = out.iou_scores[0, thing].tolist()
            best = scores.index(max(scores))
            wanted.append((masks[thing, best], max(scores)))
    for mask, score, (their_mask, their_score) in zip(
        found.masks, found.scores, wanted, strict=True
    ):
        assert torch.equal(mask, their_mask)
        assert score == pytest.approx(their_score, abs=1e-5)
        assert 0 < mask.float().mean() < 1
    assert not torch.equal(found.masks[0], found.masks[1])


def test_a_mask_does_not_depend_on_what_else_is_asked_for(sam: Path):
    (picture,) = random_pictures(1, width=30, height=90)
    segmenter = load(sam, "segmenter", device="cpu")
    both = segmenter.segment(picture, points=[(5, 80)], boxes=[(1, 2, 20, 30)])
    point = segmenter.segment(picture, points=[(5, 80)])
    box = segmenter.segment(np.asarray(picture), boxes=[(1, 2, 20, 30)])
    assert torch.equal(both.masks, torch.cat([point.masks, box.masks]))
    assert both.masks.shape == (2, 90, 30)


def test_what_lies_outside_of_a_picture_is_refused(sam: Path):
    (picture,), segmenter = random_pictures(1), load(sam, "segmenter", device="cpu")
    with pytest.raises(ValueError, match="give points or boxes"):
        segmenter.segment(picture)
    with pytest.raises(ValueError, match=r"point \(51, 3\) is outside of a picture of 50 x 40"):
        segmenter.segment(picture, points=[(51, 3)])
    for box in ((20, 4, 10, 8), (0, 0, 50, 41)):
        with pytest.raises(ValueError, match=r"is none of left, top, right, bottom inside"):
            segmenter.segment(picture, boxes=[box])


# --- Grounding DINO ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_grounding_dino(tmp_path_factory.mktemp("dino"))


def test_boxes_and_scores_are_those_of_the_library(dino: Path):
    (picture,) = random_pictures(1, width=100, height=70)
    detector, labels = load(dino, "detector", device="cpu"), ["Red  balls", "cat"]
    assert isinstance(detector, Detector)
    found = detector.detect(picture, labels, threshold=0.0)
    assert len(found) == 20

    processor: Any = GroundingDinoProcessor.from_pretrained(dino)
    model = GroundingDinoForObjectDetection.from_pretrained(dino).eval()
    inputs = processor(images=picture, text="red balls. cat.", return_tensors="pt")
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    assert tokens == ["[CLS]", "red", "ball", "##s", ".", "cat", ".", "[SEP]"]
    with torch.no_grad():
        out = model(**inputs)
    (theirs,) = processor.post_process_grounded_object_detection(
        out, inputs["input_ids"], threshold=0.0, target_sizes=[(70, 100)]
    )
    probabilities = out.logits[0].sigmoid()
    by_label = torch.stack(
        [probabilities[:, 1:4].max(-1).values, probabilities[:, 5]], dim=-1
    ).tolist()
    wanted = [
        (max(scores), labels[scores.index(max(scores))], box)
        for scores, box in zip(by_label, theirs["boxes"].tolist(), strict=True)
    ]
    wanted.sort(key=lambda one: -one[0])
    for mine, (score, label, box) in zip(found, wanted, strict=True):
        assert mine.label == label
        assert mine.score == pytest.approx(score, abs=1e-5)
        assert mine.box == pytest.approx(box, abs=1e-3)
    assert {one.label for one in found} == set(labels)


def test_only_what_is_sure_enough_is_found(dino: Path):
    (picture,), detector = random_pictures(1), load(dino, "detector", device="cpu")
    everything = detector.detect(picture, ["cat", "dog"], threshold=0.0)
    middle = everything[7].score
    some = detector.detect(picture, ["cat", "dog"], threshold=middle)
    assert some == everything[: len(some)] and 8 <= len(some) < 20
    assert detector.detect(picture, ["cat", "dog"], threshold=1.0) == []


def test_boxes_are_corners_in_pixels():
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.25, 0.75, 0.5, 0.5]])
    assert corners(boxes, 200, 100).tolist() == [[0, 0, 200, 100], [0, 50, 100, 100]]


def test_labels_that_cannot_be_looked_for_are_named(dino: Path):
    (picture,), detector = random_pictures(1), load(dino, "detector", device="cpu")
    for labels, message in (
        ([], "labels is empty"),
        ("cat", r"labels must be a list, such as \['cat'\]"),
        (["cat", " "], "label ' ' must have words, and no full stop"),
        (["a cat. a dog"], "and no full stop"),
        (["cat", " CAT"], "label ' CAT' is given twice"),
        (["cat " * 30], "the labels have 33 tokens; .* reads 24"),
    ):
        with pytest.raises(ValueError, match=message):
            detector.detect(picture, labels)


def test_a_part_that_is_missing_is_named(dino: Path, tmp_path: Path):
    for file in dino.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is not complete: it has no tokenizer\.json"):
        load(tmp_path, "detector", device="cpu")


def test_a_picture_that_a_detector_cannot_look_at_is_named(dino: Path):
    detector = load(dino, "detector", device="cpu")
    with pytest.raises(RuntimeError, match="cannot look at 1 x 1 pixels: Expected more than 1"):
        detector.detect(Image.new("RGB", (1, 1)), ["cat"])


def test_places_that_are_not_numbers_are_an_error(sam: Path, dino: Path):
    (picture,) = random_pictures(1)
    detector, segmenter = load(dino, "detector", device="cpu"), load(sam, "segmenter", device="cpu")
    for adapter in (detector, segmenter):
        for weight in adapter._model.parameters():
            weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="computes values that are not numbers"):
        detector.detect(picture, ["cat"])
    with pytest.raises(ValueError, match="computes values that are not numbers"):
        segmenter.segment(picture, points=[(1, 1)])
