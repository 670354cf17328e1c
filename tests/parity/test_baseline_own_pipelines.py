"""Folders whose own pipeline is image to image, inpainting or a ControlNet: diffusers' pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.parity import tiny_pipelines
from tests.parity.tiny_pipelines import OF_SDXL, WIDTH, diffusers
from unitok.baselines.opening import load
from unitok.baselines.stable_diffusion import DiffusionEdit
from unitok.requests import Draw

STEPS = 4
SIZE = {"width": 32, "height": 32}


def picture(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(values)


def mask() -> Image.Image:
    made = Image.new("L", (32, 32), 0)
    made.paste(255, (0, 0, 16, 32))
    return made


def control_net() -> Any:
    return tiny_pipelines.controlnet(2 * WIDTH, **OF_SDXL)


IMAGE, MASK, CONTROL = picture(1), mask(), picture(5)
EDIT = DiffusionEdit(IMAGE, "a cat", seed=3, freedom=0.5, guidance=2)
# The parts of each, what is asked for, and what the library is given for it.
PIPELINES: dict[str, tuple[Any, Any, Mapping[str, Any]]] = {
    "StableDiffusionPipeline": (
        lambda: {},
        Draw("a cat", seed=3, guidance=2),
        {},
    ),
    "StableDiffusionImg2ImgPipeline": (
        lambda: {},
        EDIT,
        {"image": [IMAGE], "strength": 0.5},
    ),
    "StableDiffusionInpaintPipeline": (
        lambda: {},
        DiffusionEdit(IMAGE, "a cat", seed=3, freedom=0.5, guidance=2, mask=MASK),
        {"image": [IMAGE], "mask_image": [MASK], "strength": 0.5, **SIZE},
    ),
    "StableDiffusionControlNetPipeline": (
        lambda: {"controlnet": tiny_pipelines.controlnet()},
        Draw("a cat", images=CONTROL, seed=3, guidance=2),
        {"image": [CONTROL]},
    ),
    "StableDiffusionXLPipeline": (
        lambda: {},
        Draw("a cat", seed=3, guidance=2),
        {},
    ),
    "StableDiffusionXLImg2ImgPipeline": (
        lambda: {},
        EDIT,
        {"image": [IMAGE], "strength": 0.5},
    ),
    "StableDiffusionXLInpaintPipeline": (
        lambda: {},
        DiffusionEdit(IMAGE, "a cat", seed=3, freedom=0.5, guidance=2, mask=MASK),
        {"image": [IMAGE], "mask_image": [MASK], "strength": 0.5, **SIZE},
    ),
    "StableDiffusionXLControlNetPipeline": (
        lambda: {"controlnet": control_net()},
        Draw("a cat", images=CONTROL, seed=3, guidance=2),
        {"image": [CONTROL]},
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_folder_of_a_pipeline_gives_the_pixels_of_the_pipeline(name: str, tmp_path: Path):
    others, asked, given = PIPELINES[name]
    whole = tiny_pipelines.sdxl() if "XL" in name else tiny_pipelines.stable_diffusion()
    off = {} if "XL" in name else {"requires_safety_checker": False}
    pipeline = getattr(diffusers, name)(**whole.components, **others(), **off)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # as `from_pretrained` gives them
    pipeline.save_pretrained(tmp_path / name)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        ["a cat"],
        generator=[torch.Generator().manual_seed(3)],
        num_inference_steps=STEPS,
        guidance_scale=2,
        **given,
    ).images[0]
    model = load(tmp_path / name, "generator", device="cpu", steps=STEPS)
    (ours,) = model.run([asked])
    assert ours.error is None
    assert np.array_equal(np.asarray(ours.image), np.asarray(theirs))
