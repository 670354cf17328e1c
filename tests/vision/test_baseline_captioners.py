"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and InternVL as captioners: the tokens of transformers itself."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.parity.tiny_scorers import pictures
from tests.vision.tiny_captioners import IN_INTERNVL, IN_QWEN, internvl_folder, qwen_folder
from unitok.baselines.captioners import DESCRIBE
from unitok.baselines.opening import load
from unitok.baselines.protocols import Captioner

hf: Any = import_module("transformers")  # whose types know no settings that are made here

QUESTION = "what is this"
# How each is made, its class, and what stands for a picture in its prompt.
KINDS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "qwen2_vl": (
        lambda folder: qwen_folder(folder, "Qwen2VL"),
        "Qwen2VLForConditionalGeneration",
        IN_QWEN,
    ),
    "qwen2_5_vl": (
        lambda folder: qwen_folder(folder, "Qwen2_5_VL"),
        "Qwen2_5_VLForConditionalGeneration",
        IN_QWEN,
    ),
    "qwen3_vl": (
        lambda folder: qwen_folder(folder, "Qwen3VL"),
        "Qwen3VLForConditionalGeneration",
        IN_QWEN,
    ),
    "internvl": (internvl_folder, "InternVLForConditionalGeneration", IN_INTERNVL),
}


@pytest.mark.parametrize("kind", KINDS)
def test_captions_and_answers_are_those_of_the_library(kind: str, tmp_path: Path):
    make, name, image = KINDS[kind]
    folder = make(tmp_path / kind)
    captioner = load(folder, "captioner", device="cpu", batch_size=2)
    assert isinstance(captioner, Captioner)
    for question in (QUESTION, None):
        wanted = generated(folder, name, f"{image} {question or DESCRIBE} answer :")
        found = captioner.caption(pictures(), question, max_tokens=6)
        assert [result.text for result in found] == wanted and len(set(wanted)) > 1
        alone = captioner.caption(pictures()[1], question, max_tokens=6)
        assert alone.text == wanted[1]


def generated(folder: Path, name: str, text: str) -> list[str]:
    """What the library says of each picture alone."""
    model: Any = getattr(hf, name).from_pretrained(folder).eval()
    processor: Any = hf.AutoProcessor.from_pretrained(folder)
    said = []
    for image in pictures():
        inputs = processor(images=image, text=text, return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**inputs, num_beams=1, max_new_tokens=6, do_sample=False)[0]
        new = ids[len(inputs["input_ids"][0]) :]
        said.append(processor.tokenizer.decode(new, skip_special_tokens=True).strip())
    return said
