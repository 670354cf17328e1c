"""Random Janus models that transformers wrote, in odd shapes: unitok reads, says, paints alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import JanusImageProcessor

import unitok
from tests.parity import drawn_bytes
from tests.parity.janus_reference import (
    EOS,
    SHAPES,
    generation,
    make_tokenizer,
    reference,
    write_folder,
)
from unitok.checkpoints.settings import Settings
from unitok.families import ImageOptions
from unitok.families.janus.config import config_from_json
from unitok.families.janus.preprocessing import preprocessor_from_json
from unitok.prompt import Message
from unitok_engine import Branch, IdRange, Request, Sampling

WORDS = make_tokenizer()
GREEDY = Sampling(temperature=0)
PROMPTS = [
    "a cat",
    "Two apples on a blue background, best quality",
    "A portrait of a young girl. masterpiece, film grained, 图片里有什么？",
    "a house of cats",
]


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Ours, loaded by the one door from the folder that theirs wrote, and theirs."""
    theirs = reference(SHAPES[request.param], WORDS)
    folder = write_folder(tmp_path_factory.mktemp("janus"), theirs, WORDS)
    return unitok.load(folder, device="cpu", dtype="float32"), theirs


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array)


def asked(family: Any, question: str, image: Image.Image) -> tuple[Any, Tensor]:
    """The line of a question about a picture, and the picture's pixels."""
    line = family.chat_prompt([Message("user", question, (family.encode_image(image),))], None)
    return line, family.preprocess(image)[None]


def test_all_that_transformers_writes_is_known(pair):
    """Every setting, not only those that differ from its own."""
    ours, theirs = pair
    assert (
        config_from_json(Settings(theirs.config.to_dict(), strict=True)) == ours.family.model.config
    )
    image_size = theirs.config.vision_config.image_size
    square = {"height": image_size, "width": image_size}
    images = JanusImageProcessor(size=square, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    settings = Settings(images.to_dict(), strict=True)
    assert preprocessor_from_json(settings) == ours.family.preprocess


@torch.no_grad()
def test_understanding_features_agree(pair):
    ours, theirs = pair
    size = theirs.config.vision_config.image_size
    pixels = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = theirs.model.get_image_features(pixels, return_dict=True).pooler_output
    torch.testing.assert_close(ours.family.model.encode_images(pixels), expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1


@torch.no_grad()
def test_text_logits_behind_a_picture_agree(pair):
    ours, theirs = pair
    family, model = ours.family, ours.family.model
    line, pixels = asked(family, "How many cats?", picture(60, 31))
    ids = torch.tensor(line.token_ids)
    hidden = model.embed(ids)
    for feature in line.embeddings:
        hidden[feature.start : feature.start + feature.length] = feature.compute()
    hidden = model(hidden, torch.arange(len(ids)))
    logits = model.logits(hidden, IdRange(0, theirs.config.text_config.vocab_size))
    expected = theirs(input_ids=ids[None], pixel_values=pixels).logits[0]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1


@pytest.mark.parametrize("question", ["Describe the picture.", "How many cats are left?"])
def test_greedy_answers_about_a_picture_have_the_same_ids(pair, question: str):
    ours, theirs = pair
    family = ours.family
    line, pixels = asked(family, question, picture(45, 70))
    request = Request((Branch(line.token_ids, 1.0, line.embeddings),), family.text_plan(24), GREEDY)
    (output,) = ours.driver.complete([request])
    ids = torch.tensor([line.token_ids])
    reply = theirs.generate(
        input_ids=ids,
        pixel_values=pixels,
        attention_mask=torch.ones_like(ids),
        generation_config=generation(WORDS, max_new_tokens=24),
    )[0, ids.shape[1] :].tolist()
    end = [WORDS.token_to_id(EOS)] if output.finish_reason == "stop" else []
    assert [*output.token_ids, *end] == reply
    assert len(set(reply)) > 5, "ids must differ for the comparison to mean something"


def drawn_by_transformers(theirs: Any, lines: list[tuple[int, ...]]) -> Tensor:
    """Greedy ids [B, patches] under guidance 5 of prompts of any lengths, padded on the left."""
    longest = max(map(len, lines))
    config = generation(WORDS, guidance_scale=5)
    rows = [[config.pad_token_id] * (longest - len(line)) + list(line) for line in lines]
    mask = [[0] * (longest - len(line)) + [1] * len(line) for line in lines]
    return theirs.generate(
        input_ids=torch.tensor(rows),
        attention_mask=torch.tensor(mask),
        generation_mode="image",
        generation_config=config,
    )


def drawn_by_us(ours: Any, prompts: list[str]) -> tuple[Tensor, list[tuple[int, ...]]]:
    """Codes [B, patches] of drawings that share the engine's steps, and their prompts' ids."""
    family = ours.family
    drawings = [
        family.generation_spec([Message("user", prompt)], ImageOptions(5.0)) for prompt in prompts
    ]
    requests = [Request(d.branches, d.plan, GREEDY) for d in drawings]
    ids = torch.tensor([output.token_ids for output in ours.driver.complete(requests)])
    return family.model.vocabulary.id_to_code(ids), [d.branches[0].token_ids for d in drawings]


def test_one_guided_greedy_drawing_has_the_same_ids(pair):
    ours, theirs = pair
    for prompt in PROMPTS[:2]:
        codes, lines = drawn_by_us(ours, [prompt])
        assert torch.equal(codes, drawn_by_transformers(theirs, lines))


@torch.no_grad()
def test_a_batch_of_prompts_of_different_lengths_draws_the_same_ids_and_pixels(pair):
    ours, theirs = pair
    codes, lines = drawn_by_us(ours, PROMPTS)
    assert len({len(line) for line in lines}) == len(PROMPTS)
    assert torch.equal(codes, drawn_by_transformers(theirs, lines))
    assert len(codes.unique()) > 8 and not torch.equal(codes[0], codes[1])
    painted = ours.family.model.image_tokenizer.decode_raw(codes)
    expected = theirs.decode_image_tokens(codes).permute(0, 3, 1, 2)
    torch.testing.assert_close(painted, expected, atol=1e-5, rtol=0)
    assert 0.1 < expected.std() < 1


@torch.no_grad()
def test_drawn_bytes_are_those_of_the_authors(pair, monkeypatch: pytest.MonkeyPatch):
    ours, theirs = pair
    family = ours.family
    codes, _ = drawn_by_us(ours, PROMPTS)
    spec = family.generation_spec([Message("user", PROMPTS[0])], ImageOptions(5.0))
    ids = family.model.vocabulary.code_to_id(codes).tolist()
    raw = theirs.decode_image_tokens(codes)  # [n, H, W, 3]
    expected = drawn_bytes.of_janus(raw.numpy())
    given = raw.permute(0, 3, 1, 2)
    exact = drawn_bytes.ours_from(given, family.model, spec, ids, monkeypatch)
    assert np.array_equal(exact, expected)
    levels = ((raw + 1) / 2 * 255).numpy()
    drawn_bytes.assert_same_but_for_rounding(drawn_bytes.ours(spec, ids), expected, levels)


def test_tied_embeddings_serve_as_the_text_head(tmp_path: Path):
    theirs = reference(SHAPES["grouped heads"], WORDS, tied=True)
    model = unitok.load(write_folder(tmp_path, theirs, WORDS), device="cpu").family.model
    ids = torch.arange(20)
    with torch.no_grad():
        hidden = model(model.embed(ids), torch.arange(20))
        logits = model.logits(hidden, IdRange(0, theirs.config.text_config.vocab_size))
        expected = theirs(input_ids=ids[None]).logits[0]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert model.text_head.weight.data_ptr() == model.text_embedding.weight.data_ptr()
