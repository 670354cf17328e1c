"""Edits of Janus-4o against a plain loop over transformers' Janus, written from its description.

The description is README.md of FreedomIntelligence/ShareGPT-4o-Image: one string for the tokenizer,
the VQ embeddings put into its pads by hand, three rows, two formulas for the logits. Here all is
computed anew for each token.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import unitok
from tests.parity import drawn_bytes
from tests.parity.janus_reference import (
    PAD,
    PICTURE,
    ROLES,
    SHAPES,
    Shape,
    make_tokenizer,
    reference,
    write_folder,
)
from unitok_engine import Request, Sampling

WORDS = make_tokenizer()
PROMPTS = ["Two apples on a blue background", "make it a portrait of a young girl, best quality "]
NEAR = 1e-4  # of embeddings; the weights of three rows make differences some ten times as large


def one_size(name: str, grid: int, *multiplier: int) -> Shape:
    """A shape whose pictures are read and generated in one size, as in every release."""
    shape, patch = SHAPES[name], 2 ** (len(multiplier) - 1)
    vision = shape.vision | {"image_size": grid * patch, "patch_size": patch}
    return replace(shape, vision=vision, vq=shape.vq | {"channel_multiplier": list(multiplier)})


EDITING = {
    "grouped heads": one_size("grouped heads", 4, 1, 2, 1),
    "wide heads": one_size("wide heads", 5, 2, 1, 1),
    "one key head": one_size("one key head", 5, 1, 1, 2),
}


@pytest.fixture(scope="module", params=EDITING)
def pair(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Ours, loaded from the folder that theirs wrote, and theirs."""
    theirs = reference(EDITING[request.param], WORDS)
    folder = write_folder(tmp_path_factory.mktemp("janus") / "Janus-4o-tiny", theirs, WORDS)
    return unitok.load(folder, device="cpu", dtype="float32"), theirs


def picture(seed: int, width: int = 30, height: int = 17) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array)


class PlainEdit:
    """One edit: rows of embeddings, full, part and unconditional, and what follows them."""

    def __init__(self, theirs: Any, pixels: Tensor, prompt: str) -> None:
        """pixels: The picture [3, S, S], normalised."""
        self.theirs, self.model = theirs, theirs.model
        codes = self.encode(pixels[None])
        self.length = len(codes)
        ids = torch.tensor(WORDS.encode(self.string(prompt)).ids)
        place, begin, end = (WORDS.token_to_id(name) for name in PICTURE)
        full = self.model.language_model.embed_tokens(ids)
        read = self.model.get_image_features(pixels[None], return_dict=True).pooler_output
        full[ids == place] = read.reshape(-1, full.shape[-1])
        part = full.clone()
        offset = int((ids == end).nonzero()[0]) + 2
        assert ids[offset - 1] == begin and ids[offset + self.length] == end
        full[offset : offset + self.length] = self.embed(codes)
        pads = ids.clone()
        pads[1:-1] = WORDS.token_to_id(PAD) or 0
        self.rows = torch.stack([full, part, self.model.language_model.embed_tokens(pads)])

    def string(self, prompt: str) -> str:
        place, begin, end = PICTURE
        images = begin + place * self.length + end + begin + PAD * self.length + end
        content = (images + prompt).strip()
        return f"{ROLES[0]}: {content}\n\n{ROLES[1]}:{begin}"

    def encode(self, pixels: Tensor) -> Tensor:
        """Codes [n] of a picture: the nearest rows of the codebook, all made unit first."""
        vq = self.model.vqmodel
        latents = vq.quant_conv(vq.encoder(pixels))[0].flatten(1).T
        codebook = F.normalize(vq.quantize.embedding.weight, dim=-1)
        return torch.cdist(F.normalize(latents, dim=-1), codebook).argmin(-1)

    def embed(self, codes: Tensor) -> Tensor:
        return self.model.generation_aligner(self.model.generation_embeddings(codes))

    def logits(self, codes: list[int], guidance: float = 5.0, freedom: float = 5.0) -> Tensor:
        """Of the code that follows some."""
        emitted = self.embed(torch.tensor(codes, dtype=torch.long)).expand(3, -1, -1)
        rows = torch.cat([self.rows, emitted], dim=1)
        hidden = self.model.language_model(inputs_embeds=rows).last_hidden_state[:, -1]
        full, part, unconditional = self.model.generation_head(hidden)
        conditional = (full + freedom * part) / (1 + freedom)
        return unconditional + guidance * (conditional - unconditional)

    def greedy(self, **options: float) -> list[int]:
        codes: list[int] = []
        for _ in range(self.length):
            codes.append(int(self.logits(codes, **options).argmax()))
        return codes


def plain(pair: tuple[Any, Any], image: Image.Image, prompt: str) -> PlainEdit:
    ours, theirs = pair
    return PlainEdit(theirs, ours.family.preprocess(image), prompt)


def request(ours: Any, image: Image.Image, prompt: str, **options: Any) -> Request:
    """What `Model.edit` hands to the engine."""
    return ours.prepare.job(unitok.Edit(image, prompt, **options)).request


def codes_of(ours: Any, ids: Any) -> list[int]:
    return ours.family.model.vocabulary.id_to_code(torch.tensor(ids)).tolist()


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_prompts_are_those_of_the_description(pair, prompt: str):
    ours, _ = pair
    image = picture(0)
    expected = plain(pair, image, prompt).rows
    branches = request(ours, image, prompt).branches
    assert len(branches) == 3
    for branch, row in zip(branches, expected, strict=True):
        made = ours.family.model.embed(torch.tensor(branch.token_ids))
        for read in branch.embeddings:
            made[read.start : read.stop] = read.compute()
        torch.testing.assert_close(made, row, atol=NEAR, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_greedy_edit_has_the_same_ids(pair, prompt: str):
    ours, _ = pair
    edit = plain(pair, picture(1), prompt)
    expected = edit.greedy()
    (output,) = ours.driver.complete([request(ours, picture(1), prompt, temperature=0)])
    assert codes_of(ours, output.token_ids) == expected
    assert len(set(expected)) > 4, "ids must differ for the comparison to mean something"
    other = picture(2, 17, 30)
    assert plain(pair, other, prompt).greedy() != expected, "the picture matters"


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [{"guidance": 2.5}, {"freedom": 0.5}, {"guidance": 1.0, "freedom": 2.0}, {"freedom": 0.0}],
    ids=str,
)
def test_other_scales_have_the_same_ids(pair, options: dict[str, float]):
    ours, _ = pair
    asked = request(ours, picture(1), PROMPTS[0], temperature=0, **options)
    (output,) = ours.driver.complete([asked])
    edit = plain(pair, picture(1), PROMPTS[0])
    assert codes_of(ours, output.token_ids) == edit.greedy(**options)
    assert edit.greedy(**options) != edit.greedy(), "the scales matter"


@torch.no_grad()
def test_edits_beside_drawings_and_captions_have_the_same_ids(pair):
    ours, _ = pair
    asked = [(picture(seed), prompt) for seed in (1, 2) for prompt in PROMPTS]
    edits = [request(ours, image, prompt, temperature=0) for image, prompt in asked]
    others = [
        ours.prepare.job(other).request
        for other in (unitok.Draw("a cat", seed=1), unitok.Caption(picture(1), max_tokens=9))
    ]
    first, _, *rest = ours.driver.complete([edits[0], others[0], *edits[1:], others[1]])
    for output, (image, prompt) in zip([first, *rest[:-1]], asked, strict=True):
        assert codes_of(ours, output.token_ids) == plain(pair, image, prompt).greedy()


@torch.no_grad()
def test_a_sampled_edit_has_the_same_distributions(pair):
    """Each token's log-probability, in the loop's own distribution after those before it."""
    ours, _ = pair
    asked = request(ours, picture(1), PROMPTS[0], temperature=0.8, seed=3, logprobs=True)
    assert asked.sampling == Sampling(temperature=0.8, seed=3)
    (output,) = ours.driver.complete([asked])
    codes, edit = codes_of(ours, output.token_ids), plain(pair, picture(1), PROMPTS[0])
    expected = [
        float((edit.logits(codes[:i]) / 0.8).log_softmax(-1)[code]) for i, code in enumerate(codes)
    ]
    assert output.logprobs == pytest.approx(expected, abs=10 * NEAR)
    assert codes != edit.greedy()


@torch.no_grad()
def test_the_picture_is_that_of_the_codes(pair):
    ours, theirs = pair
    drawn = ours.edit(picture(1), PROMPTS[0], temperature=0).image
    codes = torch.tensor([plain(pair, picture(1), PROMPTS[0]).greedy()])
    raw = theirs.decode_image_tokens(codes).numpy()
    expected, levels = drawn_bytes.of_janus(raw), (raw + 1) / 2 * 255
    drawn_bytes.assert_same_but_for_rounding(np.array(drawn)[None], expected, levels)
