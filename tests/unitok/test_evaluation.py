"""Generic measures of what a model gets right."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import unitok
from unitok.evaluation.grid import picture_grid
from unitok.evaluation.metrics import answers, drawings, rate, reconstruction_psnr
from unitok.requests import Caption, Draw


@pytest.fixture(scope="module")
def model(untrained_folder: Path) -> unitok.Model:
    return unitok.load(untrained_folder, device="cpu")


def test_a_rate_is_a_share():
    assert rate([True, False, True, True]) == 0.75


def test_answers_and_drawings_come_in_the_order_asked(model: unitok.Model):
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "white", "blue")]
    texts = answers(model, [Caption(picture) for picture in pictures])
    assert texts == [model.caption(picture).text for picture in pictures]
    drawn = drawings(model, [Draw("a cat", seed=seed) for seed in range(3)])
    assert [result.index for result in drawn] == [0, 1, 2]


def test_a_request_that_fails_is_named(model: unitok.Model, tmp_path: Path):
    missing = tmp_path / "missing.png"
    with pytest.raises(RuntimeError, match=r"request 1 has no answer: .*missing\.png"):
        answers(model, [Caption(Image.new("RGB", (8, 8))), Caption(missing)])


def test_reconstruction_is_measured_in_decibels(model: unitok.Model):
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokenizer = model.family.model.image_tokenizer
    again = tokenizer.decode(tokenizer.encode(pixels))
    error = (again - pixels).square().flatten(1).mean(1)
    expected = float((-10 * error.log10()).mean())
    assert reconstruction_psnr(model, pixels) == pytest.approx(expected, rel=1e-4)


def test_a_grid_marks_what_is_right():
    picture = Image.new("RGB", (4, 4), "blue")
    grid = picture_grid([[(picture, True), (picture, False)], [(picture, False)]])
    assert grid.size == (2 * 14, 2 * 20)
    assert [grid.getpixel(at) for at in ((7, 13), (21, 13), (7, 33))] == [
        (0, 128, 0),
        (255, 0, 0),
        (255, 0, 0),
    ]
    assert grid.getpixel((21, 33)) == (255, 255, 255)
