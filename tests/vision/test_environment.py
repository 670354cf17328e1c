"""unitok itself in the environment of torchvision: it imports, captions and draws."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import unitok

torchvision: Any = import_module("torchvision")  # another environment has none


def test_torchvision_runs():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5)
    assert kept.tolist() == [1]


def test_a_model_captions_and_draws(untrained_folder: Path):
    with unitok.load(untrained_folder, device="cpu") as model:
        drawn = model.draw("two apples", seed=3)
        assert drawn.image.size == (64, 64)
        said = model.caption(Image.new("RGB", (64, 64), "red"), max_tokens=4)
        assert said.completion_tokens <= 4
        assert model.draw("two apples", seed=3).image.tobytes() == drawn.image.tobytes()
