"""The embedded model is a Janus checkpoint: transformers opens its folder and says the same."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, JanusForConditionalGeneration

import unitok
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.families import ImageOptions
from unitok.loading import DEFAULT_FOLDER
from unitok.prompt import Message
from unitok_engine import Branch, Request, Sampling

PROMPTS = ["two apples on a blue background", "a cat left of a house", "a dog"]


@pytest.fixture(scope="module")
def ours():
    return unitok.load(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def theirs():
    opened: Any = JanusForConditionalGeneration.from_pretrained(
        DEFAULT_FOLDER, dtype=torch.float32, output_loading_info=True
    )
    model, report = opened
    keys = [*report["missing_keys"], *report["unexpected_keys"]]
    assert [k for k in keys if not k.startswith("model.vqmodel.encoder.")] == []
    return model.eval()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_guided_greedy_drawing_has_the_same_ids_and_pixels(ours, theirs, prompt):
    family = ours.family
    drawing = family.generation_spec([Message("user", prompt)], ImageOptions(2.0))
    lines = drawing.branches
    request = Request(
        lines,
        drawing.plan,
        Sampling(temperature=0),
    )
    (output,) = ours.driver.complete([request])
    codes = family.model.vocabulary.id_to_code(torch.tensor([output.token_ids]))

    ids = torch.tensor([lines[0].token_ids])
    settings = theirs.generation_config
    config: Any = GenerationConfig(
        do_sample=False,
        guidance_scale=2.0,
        pad_token_id=settings.pad_token_id,
        bos_token_id=settings.bos_token_id,
        eos_token_id=settings.eos_token_id,
    )
    config.generation_kwargs = settings.generation_kwargs
    reference = theirs.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_mode="image",
        generation_config=config,
    )
    assert torch.equal(codes, reference)
    pixels = (theirs.decode_image_tokens(reference).permute(0, 3, 1, 2) + 1) / 2
    assert torch.allclose(drawing.decode([output.token_ids]), pixels.clamp(0, 1), atol=1e-4)


def test_captions_have_the_same_ids(ours, theirs):
    family = ours.family
    for picture in render(SceneSampler(77, "heldout").batch(4)):
        image = to_pil(picture)
        asked = Message("user", family.defaults.question, (family.encode_image(image),))
        line = family.chat_prompt([asked], None)
        request = Request(
            (Branch(line.ids, embeddings=line.features),),
            family.text_plan(32),
            Sampling(temperature=0),
        )
        (output,) = ours.driver.complete([request])
        assert family.tokenizer.decode(output.token_ids).strip() == ours.caption(image).text
        ids = torch.tensor([line.ids])
        reference = theirs.generate(
            input_ids=ids,
            pixel_values=family.preprocess(image)[None],
            attention_mask=torch.ones_like(ids),
            max_new_tokens=32,
            do_sample=False,
        )[0, len(line.ids) :]
        assert reference.tolist() == [*output.token_ids, family.tokenizer.id(family.template.eos)]
