"""Captioners whose processors need torchvision: Qwen2-VL says what transformers itself says."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from tests.parity.tiny_captioners import ids, language_tokenizer, wild
from tests.parity.tiny_scorers import SIZES, pictures, save
from unitok.baselines.opening import load
from unitok.baselines.protocols import Captioner
from unitok.requests import Caption

IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
TEMPLATE = (
    "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %} {{ c.text }}{% endif %}{% endfor %}{% endfor %} answer :"
)
QUESTIONS = ["what is this", "how many red dog are there"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = language_tokenizer(images=False)
    special = ["<|vision_start|>", "<|vision_end|>", IMAGE, VIDEO]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    start, end, image, video = (tokenizer.convert_tokens_to_ids(token) for token in special)
    rope = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2]}
    text = {**SIZES, "num_key_value_heads": 2, "vocab_size": len(tokenizer), **ids(tokenizer)}
    config = hf.Qwen2VLConfig(
        text_config={**text, "rope_scaling": rope},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 4,
            "patch_size": 4,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    torch.manual_seed(0)
    model = wild(hf.Qwen2VLForConditionalGeneration(config))
    sizes: dict[str, Any] = {"patch_size": 4, "min_pixels": 16 * 16, "max_pixels": 32 * 32}
    processor = hf.Qwen2VLProcessor(
        hf.Qwen2VLImageProcessor(**sizes),
        tokenizer,
        hf.Qwen2VLVideoProcessor(**sizes),
        chat_template=TEMPLATE,
    )
    return save(tmp_path_factory.mktemp("qwen") / "qwen", model, processor)


def test_a_qwen2_vl_answers_as_the_library_does(folder: Path):
    captioner = load(folder, "captioner", device="cpu", batch_size=4)
    assert isinstance(captioner, Captioner) and type(captioner).__name__ == "Captioner"
    model: Any = hf.Qwen2VLForConditionalGeneration.from_pretrained(folder)
    processor: Any = hf.AutoProcessor.from_pretrained(folder)
    asked = [Caption(p, q, max_tokens=6) for p in pictures() for q in QUESTIONS]
    results = sorted(captioner.run(asked), key=lambda result: result.index)
    assert [result.error for result in results] == [None] * len(asked)
    for one, result in zip(asked, results, strict=True):
        text = f"<|vision_start|>{IMAGE}<|vision_end|> {one.question} answer :"
        inputs = processor(images=one.image, text=text, return_tensors="pt")
        with torch.no_grad():
            made = model.eval().generate(**inputs, max_new_tokens=6, do_sample=False)
        new = made[0, inputs["input_ids"].shape[1] :]
        wanted = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
        assert result.text == wanted and result.prompt_tokens == inputs["input_ids"].shape[1]
    assert len({result.text for result in results}) > 2
