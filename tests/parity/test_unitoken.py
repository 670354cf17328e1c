"""UniToken against transformers' parts: SigLIP, Chameleon's decoder, and plain loops around them.

transformers has no UniToken; the loops follow its own inference code (inference_solver_base.py,
inference_solver_anyres.py), as the fact sheet of these checkpoints tells it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.parity import drawn_bytes
from tests.unitok.tiny_chameleon import (
    REAL_DECODER,
    REAL_SIZE,
    REAL_VQ,
    VISION_CONFIG,
    randomise,
    real_vocabulary,
    real_words,
    save_unitoken,
)
from unitok.checkpoints.adapter import renaming
from unitok.checkpoints.settings import Settings
from unitok.driver import Driver
from unitok.families import ImageOptions, open_folder
from unitok.families.chameleon.config import config_from_json
from unitok.families.common.siglip import SIGLIP_SO400M
from unitok.families.unitoken import UniToken
from unitok.families.unitoken.config import read_vision
from unitok.families.unitoken.weights import RENAMES
from unitok.nn.vision import VisionEncoder
from unitok.prompt import Message
from unitok_engine import Branch, Engine, EngineConfig, IdRange, Plan, Request, Sampling

BOS, EOI, BOI, SEPARATOR, EOT, NEW_LINE, ANSWER = 1, 8196, 8197, 8198, 8710, 8803, 16853
SIZE, SIDE, GRID = 8806, 30, 4
FORBIDDEN = [BOI, *range(4, 8196)]  # in a text: what begins a picture, and image ids
REQUEST = "Generate an image according to the following prompt:\n"


@dataclasses.dataclass(frozen=True)
class Pair:
    family: UniToken
    chameleon: Any  # transformers' decoder
    siglip: Any  # transformers' encoder
    adapter: nn.Sequential


def make_chameleon() -> Any:
    names = real_vocabulary() | {"<image>": 8711}
    d = REAL_DECODER
    config = ChameleonConfig(
        vocab_size=REAL_SIZE,
        hidden_size=d.hidden_size,
        intermediate_size=d.intermediate_size,
        num_hidden_layers=d.layers,
        num_attention_heads=d.heads,
        num_key_value_heads=d.kv_heads,
        max_position_embeddings=d.max_positions,
        vq_config=REAL_VQ,
        vocabulary_map=names,
    )
    model: Any = ChameleonForConditionalGeneration(config).eval()
    randomise(model, seed=2)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(5)  # so that what was written matters
    return model


@pytest.fixture(scope="module", params=["Base", "AnyRes"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Parts of transformers' under UniToken's names, and ours from that folder."""
    chameleon = make_chameleon()
    vision: Any = SiglipVisionConfig(**VISION_CONFIG)
    siglip: Any = SiglipVisionModel(vision).eval()
    adapter = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32))
    randomise(siglip, seed=3)
    randomise(adapter, seed=4)
    folder = save_unitoken(tmp_path_factory.mktemp("unitoken") / request.param, request.param)
    parts = {
        "": chameleon.state_dict(),
        "vit.": {k.removeprefix("vision_model."): v for k, v in siglip.state_dict().items()},
        "adapter.": adapter.state_dict(),
    }
    tensors = {f"{prefix}{k}": v for prefix, state in parts.items() for k, v in state.items()}
    assert any(k.startswith("vit.head.") for k in tensors), "the head that must be dropped"
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    return Pair(opened(folder), chameleon, siglip, adapter)


def opened(folder: Path) -> UniToken:
    family = open_folder(folder, "cpu", torch.float32)
    assert isinstance(family, UniToken)
    return family


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def run(family: UniToken, branches: tuple[Branch, ...], plan: Plan) -> list[int]:
    engine = Engine(family.model, EngineConfig(memory=2**24, max_context=family.max_context))
    request = Request(branches, plan, Sampling(temperature=0.0))
    (output,) = Driver(engine).complete([request])
    assert output.error is None
    return list(output.token_ids)


def test_the_published_encoder_has_the_names_and_shapes_of_transformers():
    sizes = dataclasses.asdict(SIGLIP_SO400M)
    theirs = {"intermediate_size", "hidden_size", "image_size", "patch_size"}
    settings = {key: sizes[key] for key in theirs}
    settings |= {"num_hidden_layers": 27, "num_attention_heads": 16}
    with torch.device("meta"):
        reference: Any = SiglipVisionModel(SiglipVisionConfig(**settings))
        ours = VisionEncoder(SIGLIP_SO400M).state_dict()
    names = renaming(RENAMES)
    found = {names(f"vision.{key}").name: value.shape for key, value in ours.items()}
    state = {f"vit.{key}": value.shape for key, value in reference.state_dict().items()}
    assert found == {k: v for k, v in state.items() if not k.startswith("vit.head.")}
    assert found["vit.embeddings.position_embedding.weight"] == (729, 1152)


def test_all_that_transformers_writes_is_known(pair: Pair):
    """Every setting, not only those that differ from its own, and those of UniToken's training."""
    whole = pair.chameleon.config.to_dict() | {"vision_config": pair.siglip.config.to_dict()}
    whole |= {"z_loss_weight": 1e-5, "mask_image_logits": False, "dropout": 0.05}
    settings = Settings(whole, strict=True)
    decoder, codec = config_from_json(settings)
    config: Any = pair.family.model.config
    longest = config.decoder.max_positions
    assert dataclasses.replace(decoder, max_positions=longest) == config.decoder
    assert dataclasses.replace(codec, decoder=True) == config.image_tokenizer
    assert read_vision(settings) == config.vision


# --- reading -------------------------------------------------------------------------------------


def test_siglip_and_its_aligner_are_those_of_transformers(pair: Pair):
    torch.manual_seed(0)
    pixels = torch.rand(3, 3, SIDE, SIDE) * 2 - 1
    with torch.no_grad():
        theirs = pair.siglip(pixels).last_hidden_state
        assert theirs.shape == (3, 16, 32), "the last 2 of 30 pixels are seen by no patch of 7"
        assert (pair.family.model.vision(pixels) - theirs).abs().max() < 1e-5
        assert (pair.family.model.encode_images(pixels) - pair.adapter(theirs)).abs().max() < 1e-5


def test_logits_are_those_of_transformers(pair: Pair):
    torch.manual_seed(1)
    ids = torch.randint(0, REAL_SIZE, (2, 40))
    model = pair.family.model
    with torch.no_grad():
        hidden = model(model.embed(ids), torch.arange(40).expand(2, 40))
        ours = model.logits(hidden, IdRange(0, REAL_SIZE))
        theirs = pair.chameleon.lm_head(pair.chameleon.model(input_ids=ids)[0])
    assert theirs.std() > 0.5 and (ours - theirs).abs().max() < 1e-4


def preprocess(picture: Image.Image) -> Tensor:
    """What SiglipImageProcessor does: [1, 3, S, S]."""
    small = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = (np.asarray(small) / 255.0 - 0.5) / 0.5
    return torch.from_numpy(pixels).permute(2, 0, 1).float()[None]


@torch.no_grad()
def continuous(pair: Pair, picture: Image.Image) -> Tensor:
    """The features of a picture, by the reference's steps: [n, d]."""
    embed = pair.chameleon.model.embed_tokens

    def features(pixels: Tensor) -> Tensor:
        return pair.adapter(pair.siglip(pixels).last_hidden_state)[0]

    whole = features(preprocess(picture))
    if not pair.family.anyres:
        return whole
    assert picture.size == (40, 26), "worked out by hand: 2 x 1 tiles"
    canvas = Image.new("RGB", (60, 30), (0, 0, 0))
    canvas.paste(picture.resize((47, 30)), (6, 0))
    left, right = (
        features(preprocess(canvas.crop(box))) for box in ((0, 0, 30, 30), (30, 0, 60, 30))
    )
    grid = torch.cat([left.view(4, 4, -1), right.view(4, 4, -1)], dim=1)[:, 1:7]
    closed = [torch.cat([row, embed.weight[NEW_LINE][None]]) for row in grid]
    return torch.cat([whole, *closed])


@torch.no_grad()
def answer_plainly(pair: Pair, picture: Image.Image, question: str, count: int) -> list[int]:
    """The reference's `generate`: embeddings in, greedy, all anew for each id."""
    codes = pair.family.image_ids(pair.family.fit(picture))  # the codec is compared elsewhere
    rows = [id for row in codes.tolist() for id in (*row, NEW_LINE)]
    discrete = [BOS, BOI, SIZE, SIZE, *rows, EOI, *real_words(question), EOT]
    embed, at = pair.chameleon.model.embed_tokens, discrete.index(EOI)
    tokens = embed(torch.tensor(discrete))
    parts = [tokens[:at], embed(torch.tensor([SEPARATOR])), continuous(pair, picture), tokens[at:]]
    line, emitted = torch.cat(parts), []
    for _ in range(count):
        hidden = pair.chameleon.model(inputs_embeds=line[None])[0][0, -1]
        logits = pair.chameleon.lm_head(hidden)
        logits[FORBIDDEN] = -torch.inf
        emitted.append(int(logits.argmax()))
        line = torch.cat([line, embed(torch.tensor(emitted[-1:]))])
    return emitted


def test_greedy_answers_to_a_picture_are_those_of_a_plain_loop(pair: Pair):
    picture = noise(40, 26)
    line = pair.family.chat_prompt(
        [Message("user", "What?", (pair.family.encode_image(picture),))], None
    )
    expected = answer_plainly(pair, picture, "What?", 12)
    assert EOT not in expected and 2 not in expected and len(set(expected)) > 4
    assert run(pair.family, (line,), pair.family.text_plan(12)) == expected
    other = answer_plainly(pair, noise(40, 26, seed=1), "What?", 12)
    assert other != expected, "the picture matters"


# --- drawing -------------------------------------------------------------------------------------


@torch.no_grad()
def draw_plainly(
    pair: Pair, prompt: str, scale: float, shown: Image.Image | None = None
) -> list[int]:
    """The reference's `generate_img`: ids alone, those of a picture in the prompt too.

    The unconditional branch is a line of its own from the last start-of-image on, at positions from
    0. Sizes, new lines and the end are forced.
    """

    def logits(ids: list[int]) -> Tensor:
        return pair.chameleon.lm_head(pair.chameleon.model(input_ids=torch.tensor([ids]))[0][0, -1])

    seen: list[int] = []
    if shown is not None:
        codes = pair.family.image_ids(pair.family.fit(shown))
        rows = [id for row in codes.tolist() for id in (*row, NEW_LINE)]
        seen = [BOI, SIZE, SIZE, *rows, EOI]
    full = [BOS, *seen, *real_words(REQUEST + prompt), EOT, ANSWER, BOI]
    start, length = len(full) - 1, len(full) + 2
    full += [SIZE, SIZE]
    while full[-1] != EOI:
        tokens = len(full) - length + 1
        if tokens == GRID * (GRID + 1) + 1:
            full.append(EOI)
        elif tokens % (GRID + 1) == 0:
            full.append(NEW_LINE)
        else:
            conditional, unconditional = logits(full), logits(full[start:])
            mixed = scale * (conditional - unconditional) + unconditional
            full.append(4 + int(mixed[4:8196].argmax()))
    return full[length:]


def test_greedy_drawing_is_that_of_a_plain_loop(pair: Pair):
    expected = draw_plainly(pair, "a cat", 3.0)
    assert len(set(expected)) > 6 and len(expected) == 21
    drawing = pair.family.generation_spec([Message("user", "a cat")], ImageOptions(3.0))
    assert run(pair.family, drawing.branches, drawing.plan) == expected
    assert draw_plainly(pair, "a cat", 1.0) != expected, "guidance matters"


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_drawing_after_a_picture_sees_its_ids_alone(pair: Pair, scale: float):
    picture = noise(40, 26)
    expected = draw_plainly(pair, "a cat", scale, picture)
    asked = Message("user", "a cat", (pair.family.encode_image(picture),))
    drawing = pair.family.generation_spec([asked], ImageOptions(scale))
    assert SEPARATOR not in drawing.branches[0].token_ids
    assert all(branch.embeddings == () for branch in drawing.branches)
    assert run(pair.family, drawing.branches, drawing.plan) == expected
    assert draw_plainly(pair, "a cat", scale, noise(40, 26, seed=1)) != expected, "it matters"


def test_drawn_bytes_are_those_of_the_reference(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """Its file is a copy of Meta's, and so is the decoder, which transformers has not."""
    family = pair.family
    drawing = family.generation_spec([Message("user", "a cat")], ImageOptions(3.0))
    row = [4 + 700 * column for column in range(GRID)] + [NEW_LINE]
    ids = [[*row * GRID, EOI]]
    raw = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.7
    expected = drawn_bytes.of_chameleon(drawn_bytes.last_axis(raw))
    found = drawn_bytes.ours_from(raw, family.model, drawing, ids, monkeypatch)
    assert np.array_equal(found, expected) and expected.std() > 10
