"""Chameleon against transformers: logits, text, image ids, Meta's files, drawing.

transformers masks the image columns of its logits; where they matter its head is applied to its
hidden states. Its folder has no VQ decoder, so pixels are compared elsewhere, codec by codec.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    ChameleonImageProcessor,
    GenerationConfig,
)

from tests.parity import drawn_bytes
from tests.unitok.tiny_chameleon import (
    BOI,
    BOS,
    CODES,
    EOI,
    EOS,
    EOT,
    IMAGE_START,
    PATCHES,
    VOCAB_SIZE,
    VQ_CONFIG,
    image_name,
    meta_tensors,
    noise,
    opened,
    randomise,
    save_meta,
    save_vqgan,
    tiny_model,
    tokenizer_json,
    vocabulary,
    vqgan_tensors,
    words,
    write,
)
from unitok.checkpoints.settings import Settings
from unitok.checkpoints.weights import check_names, check_shapes, parameters
from unitok.driver import Driver
from unitok.families import ImageOptions
from unitok.families.chameleon import Chameleon
from unitok.families.chameleon.config import CHAMELEON, config_from_json
from unitok.families.chameleon.image_ids import read_image_ids
from unitok.families.chameleon.weights import TRANSFORMERS, TRANSFORMERS_VQGAN, make_adapter
from unitok.nn.config import ModelConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import Message
from unitok_engine import Allow, Branch, Engine, EngineConfig, IdRange, Plan, Request, Sampling

SHUFFLED = [(7 * i + 3) % CODES for i in range(CODES)]
PLACEHOLDER = 41  # <image>, which transformers' converter makes of <reserved08707>
MARKUP = {"<div": 306, "</div": 307, "a<": 308}  # pieces of several letters, behind the others


@dataclasses.dataclass(frozen=True)
class Kind:
    """A shape of decoder, how many of Meta's files it comes from, and an order of image names."""

    heads: int
    kv_heads: int
    swin_norm: bool
    shards: int
    order: tuple[int, ...]


KINDS = {
    "7B-like": Kind(4, 4, False, 1, tuple(range(CODES))),
    "30B-like": Kind(8, 4, True, 2, tuple(range(CODES))),
    "shuffled": Kind(6, 2, True, 1, tuple(SHUFFLED)),
}


@dataclasses.dataclass(frozen=True)
class Pair:
    kind: Kind
    family: Chameleon
    reference: Any  # transformers'
    folder: Path


def make_reference(kind: Kind) -> Any:
    names = vocabulary(kind.order)
    names["<image>"] = names.pop("<reserved08707>")
    config = ChameleonConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=96,
        intermediate_size=256,  # what Meta's rule makes of 96, in multiples of 64
        num_hidden_layers=2,
        num_attention_heads=kind.heads,
        num_key_value_heads=kind.kv_heads,
        max_position_embeddings=256,
        swin_norm=kind.swin_norm,
        model_parallel_size=kind.shards,
        vq_config=VQ_CONFIG,
        vocabulary_map=names,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    reference: Any = ChameleonForConditionalGeneration(config).eval()
    randomise(reference)
    with torch.no_grad():
        reference.model.embed_tokens.weight.mul_(5)  # so that what was drawn matters
        vqgan = reference.model.vqmodel
        latents = vqgan.quant_conv(vqgan.encoder(torch.rand(2, 3, 16, 16) * 2 - 1))
        vqgan.quantize.embedding.weight.copy_(latents.movedim(1, -1).flatten(0, -2)[:CODES])
        for layer in reference.model.layers:
            settle(layer, kind)
    return reference


def settle(layer: Any, kind: Kind) -> None:
    """One norm of queries and of keys in each of Meta's files; norms behind that leave the input
    visible, or every drawing would be of one id."""
    for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
        for parameter in (norm.weight, norm.bias):
            rows = parameter.chunk(kind.shards)
            parameter.copy_(torch.cat([part[:1].expand_as(part) for part in rows]))
    if kind.swin_norm:
        layer.input_layernorm.weight.mul_(0.2)
        layer.post_attention_layernorm.weight.mul_(0.2)


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """transformers' model, and ours from the folder it saved, with a VQGAN that paints."""
    kind = KINDS[request.param]
    reference = make_reference(kind)
    folder = tmp_path_factory.mktemp("chameleon") / "converted"
    reference.save_pretrained(folder)
    write(folder / "tokenizer.json", tokenizer_json(vocabulary(kind.order) | MARKUP))
    save_vqgan(whole_vqgan(reference), folder / "vqgan.ckpt")
    return Pair(kind, opened(folder), reference, folder)


def whole_vqgan(reference: Any) -> dict[str, Tensor]:
    """transformers' encoder and codebook, under the names both use, with a decoder of ours."""
    theirs = {k: v.clone() for k, v in reference.model.vqmodel.state_dict().items()}
    ours = vqgan_tensors(tiny_model())
    assert theirs.keys() == {k for k in ours if not k.startswith("decoder.")}
    return ours | theirs


def to_reference(picture: Image.Image) -> Tensor:
    """Meta's scaling of a fitted picture, in its own words: [1, 3, H, W] in [-1, 1]."""
    pixels = np.asarray(picture) / 255.0 * 2 - 1
    return torch.from_numpy(pixels).permute(2, 0, 1).float()[None]


def all_logits(family: Chameleon, ids: Tensor) -> Tensor:
    hidden = family.model(family.model.embed(ids), torch.arange(ids.shape[-1]).expand_as(ids))
    return family.model.logits(hidden, IdRange(0, VOCAB_SIZE))


def run(family: Chameleon, branches: tuple[Branch, ...], plan: Plan) -> list[int]:
    engine = Engine(family.model, EngineConfig(memory=2**24, max_context=family.max_context))
    request = Request(branches, plan, Sampling(temperature=0.0))
    (output,) = Driver(engine).complete([request])
    assert output.error is None
    return list(output.token_ids)


# --- names ---------------------------------------------------------------------------------------


class Shapes:
    """The tensors of a model without storage."""

    source = "transformers"

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state, self.names = state, frozenset(state)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.state[name].shape)

    def dtype(self, name: str) -> str:
        return str(self.state[name].dtype).removeprefix("torch.")

    def file_of(self, name: str) -> str:
        return self.source

    def tensor(self, name: str) -> Tensor:
        return self.state[name]


def test_the_published_7b_model_has_the_names_and_shapes_of_transformers():
    names = {image_name(code): 4 + code for code in range(8192)}
    settings = ChameleonConfig(vocabulary_map=names)
    with torch.device("meta"):
        theirs = Shapes(ChameleonForConditionalGeneration(settings).state_dict())
        decoder, codec = config_from_json(Settings(settings.to_dict(), strict=True))
        ours = UnifiedModel(ModelConfig(decoder, None, codec, image_start=4))
    ids = read_image_ids(names, "")
    adapter = make_adapter(ours.config, ids, TRANSFORMERS, TRANSFORMERS_VQGAN)
    wanted = {key: (adapter(key), value) for key, value in parameters(ours).items()}
    check_names({stored.name for stored, _ in wanted.values()}, theirs, ())
    check_shapes(wanted, theirs)
    assert decoder == CHAMELEON and codec.grid == 32


def test_all_that_transformers_writes_is_known(pair: Pair, tmp_path: Path):
    """Every setting, not only those that differ from its own."""
    shutil.copytree(pair.folder, tmp_path, dirs_exist_ok=True)
    write(tmp_path / "config.json", pair.reference.config.to_dict())
    write(tmp_path / "generation_config.json", pair.reference.generation_config.to_dict())
    pixels = ChameleonImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    pixels.save_pretrained(tmp_path)
    assert (tmp_path / "preprocessor_config.json").is_file()
    again = opened(tmp_path)
    assert again.model.config == pair.family.model.config
    assert again.defaults == pair.family.defaults


# --- the decoder ---------------------------------------------------------------------------------


def test_logits_agree_on_the_columns_that_transformers_does_not_mask(pair: Pair):
    torch.manual_seed(1)
    ids = torch.randint(0, VOCAB_SIZE, (3, 70))
    with torch.no_grad():
        ours, theirs = all_logits(pair.family, ids), pair.reference(input_ids=ids).logits
    kept = [i for i in range(VOCAB_SIZE) if not IMAGE_START <= i < IMAGE_START + CODES]
    assert theirs[..., kept].std() > 0.5
    assert (ours - theirs)[..., kept].abs().max() < 1e-4
    with torch.no_grad():
        everything = pair.reference.lm_head(pair.reference.model(input_ids=ids)[0])
    assert (ours - everything).abs().max() < 1e-4


def test_the_norm_of_heads_is_that_of_transformers_where_its_eps_matters(pair: Pair):
    theirs = pair.reference.model.layers[1].self_attn.q_norm
    block: Any = pair.family.model.decoder.blocks[1]
    ours = block.attention.q_norm
    generator = torch.Generator().manual_seed(0)
    shape = (20, pair.kind.heads, pair.family.model.config.decoder.head_dim)
    x = torch.randn(shape, generator=generator) * 2e-3  # of less variance than eps
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, atol=1e-6, rtol=1e-5)
        assert (expected - theirs(x * 1e3)).abs().max() > 0.1, "eps must matter"


def test_greedy_answers_to_a_picture_are_those_of_transformers(pair: Pair):
    picture = noise(16, 16, seed=5)
    line = pair.family.chat_prompt(
        [Message("user", "What?", (pair.family.encode_image(picture),))], None
    )
    ours = run(pair.family, (Branch(line.token_ids),), pair.family.text_plan(24))
    image = range(IMAGE_START, IMAGE_START + CODES)
    allowed = text_of_meta(pair)
    assert ours and allowed.issuperset(ours), "the end of an answer is not part of it"
    ids = torch.tensor([[PLACEHOLDER if id in image else id for id in line.token_ids]])
    theirs = pair.reference.generate(
        input_ids=ids,
        pixel_values=to_reference(picture),
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=[EOS],
            suppress_tokens=[id for id in range(VOCAB_SIZE) if id not in allowed],
        ),
    )[0, ids.shape[1] :].tolist()
    assert ours == [id for id in theirs if id != EOS] and len(ours) > 8


def text_of_meta(pair: Pair) -> set[int]:
    """The ids that Meta's TextDecoder allows without pictures (chameleon.py, vocab.py).

    They are `</s>` and the text tokens: all names but those of images (IMGIMG...) and those that
    begin with `<` and are more than that.
    """
    names = vocabulary(pair.kind.order) | MARKUP
    special = {id for name, id in names.items() if name.startswith("<") and name != "<"}
    images = {id for name, id in names.items() if name.startswith("IMGIMG")}
    return (set(names.values()) - special - images) | {EOS}


def test_an_answer_may_hold_what_meta_allows(pair: Pair):
    step, allowed = pair.family.text_plan(5).next([]), text_of_meta(pair)
    assert isinstance(step, Allow) and step.mask is not None
    assert set(step.mask.nonzero().flatten().tolist()) == allowed
    assert {words("<")[0], MARKUP["a<"]} <= allowed, "< and what holds it further on are text"
    banned = {MARKUP["<div"], MARKUP["</div"], BOI, EOI, EOT, BOS, IMAGE_START, VOCAB_SIZE - 1}
    assert not banned & allowed, "the last id has no name"


# --- pictures ------------------------------------------------------------------------------------


def test_image_ids_of_a_picture_are_those_of_transformers(pair: Pair):
    for seed in range(4):
        picture = noise(16, 16, seed)
        with torch.no_grad():
            theirs = pair.reference.get_image_tokens(to_reference(picture))
        ours = pair.family.image_ids(picture)
        assert ours.flatten().tolist() == theirs.flatten().tolist()
        assert len(ours.unique()) > 4


# --- Meta's own folder ---------------------------------------------------------------------------


def save_original(pair: Pair, root: Path) -> Path:
    """The layout of Meta's download, by a converter that goes the other way."""
    kind, state = pair.kind, pair.reference.state_dict()
    params = {"dim": 96, "n_layers": 2, "n_heads": kind.heads, "multiple_of": 64}
    params |= {"vocab_size": VOCAB_SIZE, "norm_eps": 1e-5, "rope_theta": 10000.0}
    params |= {"n_kv_heads": kind.kv_heads, "swin_norm": kind.swin_norm, "qk_normalization": True}
    files = meta_tensors(state, kind.heads, kind.kv_heads, kind.shards)
    vqgan = whole_vqgan(pair.reference)
    return save_meta(root, files, params, vocabulary(kind.order), vqgan)


def test_metas_folder_is_the_same_model(pair: Pair, tmp_path: Path):
    model = save_original(pair, tmp_path)
    ours = pair.family.model.state_dict()
    for folder in (model, tmp_path):
        family = opened(folder)
        found = family.model.state_dict()
        assert found.keys() == ours.keys()
        for name, tensor in ours.items():
            assert torch.equal(found[name], tensor), name
    ids = torch.arange(BOI, BOI + 40)[None]
    with torch.no_grad():
        theirs = pair.reference.lm_head(pair.reference.model(input_ids=ids)[0])
        assert (all_logits(family, ids) - theirs).abs().max() < 1e-4
    picture = noise(16, 16)
    assert family.encode_image(picture) == pair.family.encode_image(picture)


# --- drawing -------------------------------------------------------------------------------------


class Plain:
    """Draws with the reference's model, all anew for each id, by the formulas of the papers."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def logits(self, ids: list[int]) -> Tensor:
        hidden = self.reference.model(input_ids=torch.tensor([ids]))[0][0, -1]
        return self.reference.lm_head(hidden)[IMAGE_START : IMAGE_START + CODES]

    @torch.no_grad()
    def draw(self, full: list[int], text_scale: float, image_scale: float = 1.2) -> list[int]:
        keep = {BOS, BOI, EOI, *range(IMAGE_START, IMAGE_START + CODES)}
        alone, nothing = [id for id in full if id in keep], [BOS, BOI]
        emitted: list[int] = []
        for _ in range(PATCHES):
            f, i, u = (self.logits(line + emitted) for line in (full, alone, nothing))
            mixed = u + image_scale * (i - u) + text_scale * (f - i)
            emitted.append(IMAGE_START + int(mixed.argmax()))
        return emitted


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_greedy_drawing_is_that_of_a_plain_loop(pair: Pair, shown: int):
    reads = tuple(pair.family.encode_image(noise(16, 16, seed)) for seed in range(shown))
    talk = [Message("user", "see", reads), Message("assistant", "yes"), Message("user", "draw it")]
    drawing = pair.family.generation_spec(talk, ImageOptions(3.0))
    assert len(drawing.branches) == (3 if shown else 2)
    branches = drawing.branches
    marked = [
        [BOI, *pair.family.image_ids(noise(16, 16, i)).flatten().tolist(), EOI]
        for i in range(shown)
    ]
    pictures = [id for picture in marked for id in picture]
    full = [BOS, *pictures, *words("see"), EOT, *words("yes"), EOT, *words("draw it"), EOT, BOI]
    expected = Plain(pair.reference).draw(full, 3.0)
    assert len(set(expected)) > 2
    assert run(pair.family, branches, drawing.plan) == expected


def test_painted_pictures_come_from_the_codes_that_the_names_tell(pair: Pair):
    family, order = pair.family, list(pair.kind.order)
    ids = [IMAGE_START + (5 * i) % CODES for i in range(PATCHES)]
    codec = family.model.image_tokenizer
    book = pair.reference.model.vqmodel.quantize.embedding.weight
    vectors = torch.stack([book[order[id - IMAGE_START]] for id in ids])
    with torch.no_grad():
        latents = codec.post_quant_conv(vectors.reshape(1, 4, 4, -1).permute(0, 3, 1, 2))
        pixels = ((codec.decoder(latents) + 1) / 2).clamp(0, 1)
    assert torch.allclose(family.decode_images([ids]), pixels, atol=1e-5)


def test_drawn_bytes_are_those_of_meta(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """transformers has no decoder: the raw pixels are noise, and those of our own."""
    family = pair.family
    spec = family.generation_spec([Message("user", "a cat")], ImageOptions(3.0))
    ids = [[IMAGE_START + (5 * i + j) % CODES for i in range(PATCHES)] for j in range(3)]
    noisy = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.7
    with torch.no_grad():
        codes = family.model.vocabulary.id_to_code(torch.tensor(ids)).unflatten(1, (4, 4))
        codec = family.model.image_tokenizer
        drawn = torch.cat([codec.decode_raw(one) for one in codes.split(1)])
    for raw in (noisy, drawn):
        expected = drawn_bytes.of_chameleon(drawn_bytes.last_axis(raw))
        found = drawn_bytes.ours_from(raw, family.model, spec, ids, monkeypatch)
        assert np.array_equal(found, expected) and expected.std() > 10
    assert np.array_equal(drawn_bytes.ours(spec, ids), expected)
