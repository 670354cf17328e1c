"""Emu3: the plan, sizes, prompts, the two folder formats, what is refused, and the whole way."""

import base64
import json
import random
import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import unitok
from unitok.checkpoints.saving import stored_tensors, write_json, write_tensors
from unitok.checkpoints.weights import parameters
from unitok.families import ImageOptions, open_folder
from unitok.families.emu3 import Emu3
from unitok.families.emu3.family import defaults_from_json
from unitok.families.emu3.folders import ORIGINAL_IDS, VISUAL
from unitok.families.emu3.preprocessing import Preprocessor
from unitok.families.emu3.prompts import NEGATIVE, Template
from unitok.families.emu3.tokenizer import RESERVED, read_tiktoken
from unitok.families.emu3.weights import ORIGINAL, transformers_adapter
from unitok.nn.config import DecoderConfig, ModelConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import EncodedImage, Message
from unitok_engine import Allow, Force, GridPlan, IdRange, Plan, Stop
from unitok_tokenizers.emu3 import Emu3TokenizerConfig

CODES = 48
# In another order than in any release: ids must come from the files.
SPECIALS = ["<|endoftext|>", "<|extra_204|>", "<|extra_200|>", "<image>", "<|image end|>"]
SPECIALS += ["<|extra_203|>", "<|image token|>", "<|extra_201|>", "<|image start|>"]
CORPUS = ["You are a helpful assistant. USER: describe the picture. ASSISTANT: a red cat, 12*34"]


def train_tokenizer(codes: int, merges: int = 40) -> Tokenizer:
    """Byte-level BPE with Emu3's special tokens, the visual ones last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(CORPUS * 2, trainer)
    names = SPECIALS + [VISUAL.format(code) for code in range(codes)]
    tokenizer.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    return tokenizer


# --- a tiny checkpoint in both formats -----------------------------------------------------------

IMAGES = Emu3TokenizerConfig(
    codebook_size=CODES,
    base_channels=32,
    channel_multiplier=(1, 1, 1, 1),
    res_blocks=1,
    temporal_downsample=2,
)
PIXELS = {"image_mean": [0.5] * 3, "image_std": 0.5, "min_pixels": 24 * 24, "max_pixels": 40 * 40}


def tiny_model(vocab_size: int) -> UnifiedModel:
    decoder = DecoderConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=56,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=8,
        max_positions=512,
        rope_theta=1e6,
        norm_eps=1e-5,
    )
    torch.manual_seed(0)
    config = ModelConfig(decoder, None, IMAGES, image_start=vocab_size - CODES)
    model = UnifiedModel(config).eval().requires_grad_(False)
    model.text_embedding.weight.normal_()
    latents = model.image_tokenizer.latents(torch.randn(CODES // 4, 3, 16, 16))  # [., d, 2, 2]
    model.image_tokenizer.quantizer.codebook.copy_(latents.movedim(1, -1).flatten(0, 2))
    return model


def text_config(model: UnifiedModel) -> dict:
    d = model.config.decoder
    return {
        "vocab_size": d.vocab_size,
        "hidden_size": d.hidden_size,
        "intermediate_size": d.intermediate_size,
        "num_hidden_layers": d.layers,
        "num_attention_heads": d.heads,
        "num_key_value_heads": d.kv_heads,
        "max_position_embeddings": d.max_positions,
    }


def save_transformers(folder: Path) -> Path:
    tokenizer = train_tokenizer(CODES)
    model = tiny_model(tokenizer.get_vocab_size())
    adapter = transformers_adapter(["model.vqmodel."])
    write_tensors(stored_tensors(model, adapter, torch.float32), folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    vq = {
        "codebook_size": CODES,
        "base_channels": IMAGES.base_channels,
        "channel_multiplier": IMAGES.channel_multiplier,
        "num_res_blocks": IMAGES.res_blocks,
        "temporal_downsample_factor": IMAGES.temporal_downsample,
    }
    config = {"text_config": text_config(model), "vq_config": vq}
    config |= {"model_type": "emu3", "vocabulary_map": tokenizer.get_vocab()}
    write_json(folder / "config.json", config)
    write_json(folder / "processor_config.json", {"image_processor": PIXELS})
    return folder


def save_original(folder: Path) -> Path:
    """A language model by the original's names, and its vision tokenizer in a subfolder."""
    ranks = random_ranks(random.Random(0), 40)
    names = ["<|image token|>", "<|image start|>", "<|image end|>"]
    names += [VISUAL.format(code) for code in range(CODES)]
    ids = {name: len(ranks) + i for i, name in enumerate([*RESERVED, *names])}
    model = tiny_model(len(ranks) + len(ids))
    tensors = stored_tensors(model, ORIGINAL, torch.float32)
    language = {k: v for k, v in tensors.items() if k.startswith(("model.", "lm_head."))}
    write_tensors(language, folder)
    write_tiktoken(folder, ranks, names)
    given = {key: ids[getattr(Template, at)] for key, at in ORIGINAL_IDS.items()}
    config = {"model_type": "Emu3", "image_area": 24 * 24, **text_config(model), **given}
    write_json(folder / "config.json", config)

    inner = folder / "vision_tokenizer"
    write_tensors({k: v for k, v in tensors.items() if k not in language}, inner)
    vision = {
        "model_type": "Emu3VisionVQ",
        "codebook_size": CODES,
        "ch": IMAGES.base_channels,
        "ch_mult": IMAGES.channel_multiplier,
        "num_res_blocks": IMAGES.res_blocks,
        "temporal_downsample_factor": IMAGES.temporal_downsample,
        "z_channels": 4,
        "double_z": False,
        "dropout": 0.0,
    }
    write_json(inner / "config.json", vision)
    write_json(inner / "preprocessor_config.json", PIXELS)
    return folder


def random_ranks(rng: random.Random, merges: int) -> dict[bytes, int]:
    """All bytes, and tokens that are each two earlier ones, of few letters."""
    tokens = [bytes([b]) for b in range(256)]
    rng.shuffle(tokens)
    pool = [b"a", b"b", b"c", b" ", "é".encode()[:1], "é".encode()[1:]]
    while merges:
        merged = rng.choice(pool) + rng.choice(pool)
        if merged not in tokens:
            tokens.append(merged)
            pool.append(merged)
            merges -= 1
    return {token: rank for rank, token in enumerate(tokens)}


def write_tiktoken(folder: Path, ranks: dict[bytes, int], names: list[str]) -> None:
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
    (folder / "emu3.tiktoken").write_text("".join(lines))
    (folder / "emu3_vision_tokens.txt").write_text("\n".join(names) + "\n\n")


SAVERS = {"transformers": save_transformers, "original": save_original}


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp("emu3") / name for name in SAVERS}
    for folder in folders.values():
        folder.mkdir()
    return {name: SAVERS[name](folder) for name, folder in folders.items()}


@pytest.fixture(scope="module", params=list(SAVERS))
def whole(request, wholes: dict[str, Path]) -> Path:
    return wholes[request.param]


def test_the_image_tokenizer_keeps_its_precision(whole: Path, family: Emu3):
    rough = open_folder(whole, "cpu", torch.bfloat16)
    assert rough.model.text_head.weight.dtype == torch.bfloat16
    picture = Image.effect_noise((48, 32), 90).convert("RGB")
    assert rough.encode_image(picture) == family.encode_image(picture)


@pytest.fixture(scope="module")
def family(whole: Path) -> Emu3:
    return opened(whole)


def copied(folder: Path, place: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(folder, place / "copy"))


def opened(folder: Path) -> Emu3:
    family = open_folder(folder, "cpu", torch.float32, strict=True)
    assert isinstance(family, Emu3)
    return family


def edit(path: Path, change: Callable[[dict], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


# --- the plan ------------------------------------------------------------------------------------


def test_a_plan_of_two_rows_and_three_columns_by_hand():
    image = IdRange(50, 60)
    plan = GridPlan(image, rows=2, columns=3, row_end=4, closing=(5, 6, 7))
    free, end = Allow(image).id_range, Force(4)
    expected = [free, free, free, end, free, free, free, end, Force(5), Force(6), Force(7)]
    emitted: list[int] = []
    for step in expected:
        asked = plan.next(emitted)
        assert (asked.id_range if isinstance(asked, Allow) else asked) == step
        emitted.append(asked.id if isinstance(asked, Force) else 50 + len(emitted))
    assert plan.next(emitted) == Stop("complete")
    assert (plan.max_length, plan.exact, len(emitted)) == (11, True, 11)
    assert plan.image_ids(emitted) == [50, 51, 52, 54, 55, 56]


def test_the_published_size_takes_8193_ids():
    assert GridPlan(IdRange(0, 9), 90, 90, 0, (1, 2, 3)).max_length == 8100 + 90 + 3


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "fitted"),
    [
        ((720, 720), (720, 720)),
        ((721, 715), (720, 712)),
        ((8, 8), (512, 512)),
        ((100, 100), (512, 512)),
        ((640, 480), (640, 480)),
        ((3000, 2000), (1248, 832)),
        ((1024, 1036), (1016, 1024)),
        ((8, 40), (232, 1152)),
        ((20000, 4000), (2288, 456)),
    ],
)
def test_a_read_picture_has_sides_in_multiples_of_8_and_a_bounded_area(source, fitted):
    assert Preprocessor().resized(*source) == fitted


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((8, 41), "a picture of 8 x 41 is too thin for Emu3: one side may be at most 5 times"),
        ((20000, 3999), "20000 x 3999 is too thin"),
        ((7, 20), "a picture of 7 x 20 is too small for Emu3: each side needs at least 8 pixels"),
        ((20000, 1), "20000 x 1 is too small"),
    ],
)
def test_a_picture_that_the_authors_refuse_is_refused(size: tuple[int, int], message: str):
    with pytest.raises(ValueError, match=message):
        Preprocessor().resized(*size)


@pytest.mark.parametrize(
    ("size", "grid"), [((40, 24), (3, 5)), ((8, 8), (1, 1)), ((16, 80), (10, 2))]
)
def test_a_drawing_has_the_rows_and_columns_of_its_size(family: Emu3, size, grid):
    assert family.grid(size) == grid


def test_unless_asked_a_drawing_has_the_area_of_the_config_or_of_the_release(family: Emu3):
    side, rows = {"original": (24, 3), "transformers": (720, 90)}[family.name]
    assert family.picture_size == (side, side) and family.grid(None) == (rows, rows)
    assert family.picture_tokens == rows * (rows + 1) + 3


@pytest.mark.parametrize(
    ("size", "nearest"),
    [((960, 540), "960 x 544"), ((3, 8), "8 x 8"), ((0, 0), "8 x 8"), ((-8, 16), "8 x 16")],
)
def test_a_size_between_two_codes_is_refused_with_the_nearest_one(family: Emu3, size, nearest):
    with pytest.raises(ValueError, match=f"multiples of 8 .* {nearest} is the nearest"):
        family.generation_spec([Message("user", "a cat")], ImageOptions(3.0, size=size))


# --- prompts -------------------------------------------------------------------------------------


def told(family: Emu3, text: str) -> tuple[int, ...]:
    return tuple(family.tokenizer.encode(text, add_special=False))


def test_a_drawing_is_steered_away_from_the_negative_prompt(family: Emu3):
    ask = [Message("user", "two cats"), Message("user", "a red cat")]
    drawing = family.generation_spec(ask, ImageOptions(3.0, size=(40, 24)))
    end = "<|image start|>3*5<|image token|>"
    prompt, against = drawing.branches
    assert prompt.token_ids == told(family, f"<|extra_203|>a red cat{end}")
    assert against.token_ids == told(family, f"<|extra_203|>{NEGATIVE}{end}")
    assert (prompt.weight, against.weight) == (3.0, -2.0)
    plain = family.generation_spec(ask, ImageOptions(1.0, size=(40, 24)))
    assert plain.branches == (replace(prompt, weight=1.0),)
    others = family.generation_spec(ask, ImageOptions(3.0, "a dog", (40, 24))).branches
    assert others[1].token_ids == told(family, f"<|extra_203|>a dog{end}")


def test_drawings_of_one_size_are_painted_alike(family: Emu3):
    ask, sizes = [Message("user", "it")], [(40, 24), (40, 24), (24, 40)]
    one, same, other = (
        family.generation_spec(ask, ImageOptions(1.0, size=size)).decode for size in sizes
    )
    assert one == same != other


def test_an_answer_follows_the_format_of_its_folder(family: Emu3):
    stop = {"transformers": "", "original": "."}[family.name]
    picture = EncodedImage(((7, 8),))
    talk = [Message("user", "a cat", (picture,)), Message("assistant", "yes"), Message("user", "b")]
    before = told(family, "<|extra_203|>You are a helpful assistant. USER: ")
    after = told(family, f"a cat{stop} ASSISTANT: yes USER: b{stop} ASSISTANT:")
    assert family.chat_prompt(talk, None).token_ids == (*before, 7, 8, *after)
    assert family.chat_prompt(talk[2:], "").token_ids == told(
        family, f"<|extra_203|>USER: b{stop} ASSISTANT:"
    )
    question = family.defaults.question + stop
    assert question == "Please describe the image."


def test_pictures_of_a_turn_stand_before_its_texts(family: Emu3):
    picture = EncodedImage(((7, 8),))
    mixed = Message.of("user", ["a", picture, "b"])
    plain = Message("user", "a\nb", (picture,))
    assert family.chat_prompt([mixed], None) == family.chat_prompt([plain], None)


def test_a_drawing_after_a_picture_is_refused(family: Emu3):
    asked = Message("user", "a cat", (EncodedImage(((7, 8),)),))
    with pytest.raises(ValueError, match=f"{family.name} draws from text alone"):
        family.generation_spec([asked], ImageOptions(3.0))


def test_a_picture_is_rows_of_ids_each_with_its_end(family: Emu3):
    start = family.model.vocabulary.image_start
    ids = torch.tensor([[0, 1, 47], [3, 4, 5]]) + start
    rows = [VISUAL.format(0), VISUAL.format(1), VISUAL.format(47), "<|extra_200|>"]
    rows += [VISUAL.format(c) for c in (3, 4, 5)] + ["<|extra_200|>"]
    text = f"<|image start|>2*3<|image token|>{''.join(rows)}<|extra_201|><|image end|>"
    assert family.template.picture(ids).segments == (told(family, text),)


def test_a_read_picture_holds_the_codes_of_its_pixels(family: Emu3):
    image = Image.effect_mandelbrot((48, 20), (-2, -1, 1, 1), 50).convert("RGB")
    (ids,) = family.encode_image(image).segments
    assert isinstance(ids, tuple)
    pixels = family.preprocess(image)
    codes = family.model.image_tokenizer.encode(pixels[None])[0]
    assert codes.shape == (2, 6) and len(codes.unique()) > 1
    assert [i - family.model.vocabulary.image_start for i in ids if i in image_ids(family)] == (
        codes.flatten().tolist()
    )


def image_ids(family: Emu3) -> IdRange:
    image = family.model.vocabulary.image_range
    return image


def test_plans_keep_text_and_pictures_apart(family: Emu3):
    text: Plan = family.text_plan(5)
    asked = text.next([])
    assert isinstance(asked, Allow) and asked.id_range == IdRange(0, image_ids(family).start)
    assert text.next([9, family.tokenizer.id("<|extra_204|>")]) == Stop("stop", drop=1)
    drawing = family.generation_spec([Message("user", "a")], ImageOptions(3.0))
    assert isinstance(drawing.plan, GridPlan) and drawing.plan.id_range == image_ids(family)
    named = (drawing.plan.row_end, *drawing.plan.closing)
    names = ("<|extra_200|>", "<|extra_201|>", "<|image end|>", "<|extra_204|>")
    assert named == tuple(map(family.tokenizer.id, names))


# --- through the API -----------------------------------------------------------------------------


def test_it_draws_answers_and_talks_of_what_it_drew(whole: Path):
    model = unitok.load(whole, device="cpu")
    drawn = model.draw("a red cat", seed=1, n=2, width=16, height=24)
    assert [image.size for image in drawn.images] == [(16, 24)] * 2
    assert drawn.finish_reason == "complete" and drawn.completion_tokens == 2 * (3 * 3 + 3)
    answer = model.caption(drawn.image, max_tokens=5)
    assert answer.completion_tokens <= 5 and answer.finish_reason in ("stop", "length")
    chat = model.chat()
    chat.draw("two cats", seed=2, guidance=1, width=24, height=24)
    assert chat.send("what is it", max_tokens=3).prompt_tokens > 3 * 4


def test_sampling_follows_the_reference_unless_the_folder_has_its_own(family: Emu3):
    defaults = family.defaults
    assert (defaults.temperature, defaults.top_k, defaults.guidance) == (1.0, 2048, 3.0)
    own = defaults_from_json({"top_k": 0, "guidance_scale": 5.0, "do_sample": False}, ".")
    assert (own.temperature, own.top_k, own.guidance) == (0.0, 0, 5.0)


# --- weights -------------------------------------------------------------------------------------


def test_a_loaded_model_is_the_saved_one(family: Emu3):
    loaded = family.model
    written = tiny_model(loaded.config.decoder.vocab_size)
    saved = parameters(written)
    assert loaded.config == written.config, "with what the files leave to the defaults"
    assert saved.keys() == parameters(loaded).keys()
    for name, tensor in parameters(loaded).items():
        assert torch.equal(tensor, saved[name]), name


def test_both_sets_of_names_that_transformers_has_had_are_read(
    wholes: dict[str, Path], tmp_path: Path
):
    folder = copied(wholes["transformers"], tmp_path)
    tensors = load_file(folder / "model.safetensors")
    older = {"model.text_model.": "text_model.model.", "model.vqmodel.": "vqmodel."}
    older |= {"lm_head.": "text_model.lm_head."}
    renamed = {}
    for name, tensor in tensors.items():
        old, new = next(pair for pair in older.items() if name.startswith(pair[0]))
        renamed[new + name.removeprefix(old)] = tensor
    renamed["vqmodel.encoder.time_res_stack.0.norm1.num_batches_tracked"] = torch.tensor(3)
    save_file(renamed, folder / "model.safetensors")
    again = opened(folder).model
    saved = parameters(tiny_model(again.config.decoder.vocab_size))
    for name, tensor in parameters(again).items():
        assert torch.equal(tensor, saved[name]), name


def test_the_originals_names_are_those_of_its_own_code():
    """Written down from emu3/mllm/modeling_emu3.py and emu3/tokenizer/modeling_emu3visionvq.py."""
    expected = {
        "text_embedding.weight": "model.embed_tokens.weight",
        "text_head.weight": "lm_head.weight",
        "decoder.norm.weight": "model.norm.weight",
        "decoder.blocks.1.attention_norm.weight": "model.layers.1.input_layernorm.weight",
        "decoder.blocks.1.mlp_norm.weight": "model.layers.1.post_attention_layernorm.weight",
        "decoder.blocks.0.attention.q.weight": "model.layers.0.self_attn.q_proj.weight",
        "decoder.blocks.0.attention.k.weight": "model.layers.0.self_attn.k_proj.weight",
        "decoder.blocks.0.attention.v.weight": "model.layers.0.self_attn.v_proj.weight",
        "decoder.blocks.0.attention.o.weight": "model.layers.0.self_attn.o_proj.weight",
        "decoder.blocks.0.mlp.gate.weight": "model.layers.0.mlp.gate_proj.weight",
        "decoder.blocks.0.mlp.up.weight": "model.layers.0.mlp.up_proj.weight",
        "decoder.blocks.0.mlp.down.weight": "model.layers.0.mlp.down_proj.weight",
    }
    assert {key: ORIGINAL(key).name for key in expected} == expected
    ours = {re.sub(r"\.\d+\.", ".0.", key) for key in parameters(tiny_model(400))}
    language = {key for key in ours if not key.startswith("image_tokenizer.")}
    assert language == {re.sub(r"\.\d+\.", ".0.", key) for key in expected}, "the whole table"


def test_what_transformers_keeps_as_linear_layers_is_written_so(wholes: dict[str, Path]):
    tensors = load_file(wholes["transformers"] / "model.safetensors")
    name = "model.vqmodel.encoder.middle_block.attn_1.q_proj.weight"
    assert tensors[name].shape == (32, 32)


# --- tokenizers ----------------------------------------------------------------------------------


def merge_by_ranks(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """tiktoken's rule: the pair whose join has the lowest rank, the leftmost first."""
    if word in ranks:
        return [ranks[word]]
    parts = [bytes([b]) for b in word]
    while True:
        joins = [(ranks.get(a + b), i) for i, (a, b) in enumerate(pairwise(parts))]
        known = [(rank, i) for rank, i in joins if rank is not None]
        if not known:
            return [ranks[part] for part in parts]
        _, i = min(known)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.parametrize("seed", range(8))
def test_a_tiktoken_file_gives_the_ids_of_its_ranks(seed: int, tmp_path: Path):
    rng = random.Random(seed)
    ranks = random_ranks(rng, 60)
    write_tiktoken(tmp_path, ranks, ["<|image start|>"])
    tokenizer = read_tiktoken(tmp_path)
    several = 0
    for _ in range(200):
        word = "".join(rng.choice("abcabcabcabcé") for _ in range(rng.randint(1, 12)))
        expected = merge_by_ranks(word.encode(), ranks)
        assert tokenizer.encode_plain(word) == expected
        assert tokenizer.decode(expected) == word
        several += len(expected) > 1
    assert several > 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello there, it's 123", ["Hello", " there", ",", " it", "'s", " ", "1", "2", "3"]),
        ("a  b\n\n c", ["a", " ", " b", "\n\n", " c"]),
        ("45*90", ["4", "5", "*", "9", "0"]),
        ("猫と犬!?\n", ["猫と犬", "!?\n"]),
        (unicodedata.normalize("NFD", "café"), ["café"]),
    ],
)
def test_a_tiktoken_file_splits_words_as_the_original_does(text, words, tmp_path: Path):
    # Whole words are tokens, and nothing else is.
    ranks = {bytes([b]): b for b in range(256)}
    long = [w for w in dict.fromkeys(words) if len(w.encode()) > 1]
    ranks |= {word.encode(): 256 + i for i, word in enumerate(long)}
    write_tiktoken(tmp_path, ranks, [])
    ids = read_tiktoken(tmp_path).encode_plain(text)
    assert ids == [ranks[word.encode()] for word in words]


def test_special_strings_are_special_in_templates_alone(tmp_path: Path):
    write_tiktoken(tmp_path, random_ranks(random.Random(0), 20), ["<|image start|>"])
    tokenizer = read_tiktoken(tmp_path)
    assert tokenizer.id("<|endoftext|>") == 276 and tokenizer.id("<|extra_204|>") == 276 + 207
    assert tokenizer.id("<|image start|>") == 276 + 208 == tokenizer.size - 1
    assert tokenizer.encode("<|extra_204|>", add_special=True) == [276 + 207]
    assert len(tokenizer.encode_plain("<|extra_204|>")) == len("<|extra_204|>")


@pytest.mark.parametrize(
    ("content", "message"),
    [("!!! 0\n", "not a file of tiktoken"), ("YQ==\n", "not a file"), ("YQ== 0\n", "cut off")],
)
def test_a_broken_tiktoken_file_is_one_clear_error(content, message, tmp_path: Path):
    write_tiktoken(tmp_path, {}, [])
    (tmp_path / "emu3.tiktoken").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_tiktoken(tmp_path)
    assert "\n" not in str(caught.value)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("transformers", "processor_config.json", "preprocessor_config.json is missing"),
        ("transformers", "tokenizer.json", "no tokenizer.json"),
        ("transformers", "model.safetensors", "neither model.safetensors nor"),
        ("original", "model.safetensors", "neither model.safetensors nor"),
        ("original", "emu3.tiktoken", "emu3.tiktoken is missing"),
        ("original", "emu3_vision_tokens.txt", "emu3_vision_tokens.txt is missing"),
        ("original", "vision_tokenizer", "put the files of BAAI/Emu3-VisionTokenizer into"),
        ("original", "vision_tokenizer/config.json", "vision_tokenizer/config.json is missing"),
        ("original", "vision_tokenizer/preprocessor_config.json", "preprocessor_config.json is"),
        ("original", "vision_tokenizer/model.safetensors", "vision_tokenizer has neither"),
    ],
)
def test_a_folder_that_lacks_a_part_says_which(wholes, kind, name, message, tmp_path: Path):
    folder = copied(wholes[kind], tmp_path)
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        opened(folder)


def test_the_vision_tokenizer_may_have_the_name_of_its_repository(wholes, tmp_path: Path):
    folder = copied(wholes["original"], tmp_path)
    (folder / "vision_tokenizer").rename(folder / "Emu3-VisionTokenizer")
    assert opened(folder).picture_size == (24, 24)


def set_text(key: str, value: object) -> Callable[[dict], object]:
    return lambda config: config["text_config"].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_text("vocab_size", 300), "the tokenizer has .* ids, the model 300"),
        (set_text("vocab_size", 1000), "tensors of a wrong shape: .*lm_head"),
        (set_text("attention_bias", True), "attention_bias = True is not supported"),
        (set_text("rope_parameters", {"rope_type": "yarn"}), "rope scaling"),
        (set_text("rope_parameters", [2]), "rope_parameters must be an object"),
        (set_text("model_type", "llama"), "model_type is 'llama', not 'emu3_text_model'"),
        (set_text("tie_word_embeddings", True), "a head tied to the embedding"),
        (set_text("num_attention_heads", 0), "num_attention_heads must be a whole number"),
        (set_text("mystery", 1), "text_config of config.json has mystery, which unitok"),
        (lambda c: c.update(rope_scaling={"rope_type": "linear"}), "config.json: rope_scaling = "),
        (lambda c: c.update(rope_parameters={"rope_theta": 3}), "config.json: rope_parameters = "),
        (lambda c: c.update(mystery=1), "config.json has mystery, which unitok does not know"),
        (lambda c: c.update(text_config=[1]), "text_config must be an object"),
        (lambda c: c.update(vocabulary_map=True), "vocabulary_map must be an object, not True"),
        (lambda c: c["vq_config"].update(model_type="janus_vqgan"), "not 'emu3_vqgan'"),
        (lambda c: c["vq_config"].update(num_res_blocks=None), "num_res_blocks must be a whole"),
        (lambda c: c["vq_config"].update(attn_resolutions="3"), "attn_resolutions must be a list"),
        (lambda c: c.update(quantization_config={"bits": 4}), "unquantised"),
        (lambda c: c.update(tie_word_embeddings=True), "a head tied to the embedding"),
        (lambda c: c["vocabulary_map"].update({VISUAL.format(3): 9}), "000003.* the id 9"),
        (lambda c: c["vocabulary_map"].update({"<|extra_200|>": 9}), "extra_200.* the id 9"),
        (lambda c: c["vq_config"].update(codebook_size=50), "no token '<.visual token 000048"),
        (lambda c: c["vq_config"].update(codebook_size=40), "40 visual tokens must be the .* last"),
        (lambda c: c["vq_config"].update(double_latent=True), "double_latent = True"),
        (lambda c: c["vq_config"].update(channel_multiplier=(1, 1, 1)), "has a level there is not"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(wholes, change, message, tmp_path: Path):
    folder = copied(wholes["transformers"], tmp_path)
    edit(folder / "config.json", change)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(folder))}.*{message}"):
        opened(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(eol_token_id=5), "gives '<.extra_200.>' the id 5"),
        (lambda c: c.update(image_area="large"), "image_area must be a whole number"),
        (lambda c: c.update(rope_scaling={"type": "linear", "factor": 2.0}), "rope scaling"),
        (lambda c: c.update(tie_word_embeddings=True), "a head tied to the embedding"),
    ],
)
def test_an_original_config_that_does_not_fit_is_refused(wholes, change, message, tmp_path: Path):
    folder = copied(wholes["original"], tmp_path)
    edit(folder / "config.json", change)
    with pytest.raises(ValueError, match=message):
        opened(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("image_mean"), "has no image_mean"),
        (lambda p: p.update(do_normalize=False), "do_normalize = False"),
        (lambda p: p.update(do_center_crop=True), "do_center_crop = True"),
        (lambda p: p.update(rescale_factor=1 / 127.5), "rescale_factor must be 1/255"),
        (lambda p: p.update(mystery=1), "has mystery, which unitok does not know"),
        (lambda p: p.update(max_pixels=0), "max_pixels must be a whole number above 0, not 0"),
        (lambda p: p.update(min_pixels=10**6), "min_pixels 1000000 is more than max_pixels 1600"),
        (lambda p: p.update(size={"max_pixels": 7}), "size says max_pixels 7, not 1600"),
        (lambda p: p.update(image_std=[0.5, 0.0, 0.5]), "image_std must be above 0"),
        (lambda p: p.update(image_mean=[0.5]), "image_mean must be one number or three"),
        (lambda p: p.update(spatial_factor=16), "spatial_factor 16, not 8"),
    ],
)
def test_a_preprocessor_that_does_not_fit_is_refused(wholes, change, message, tmp_path: Path):
    folder = copied(wholes["transformers"], tmp_path)
    edit(folder / "processor_config.json", lambda data: change(data["image_processor"]))
    with pytest.raises(ValueError, match=message):
        opened(folder)


def test_visual_tokens_in_another_order_are_refused(wholes, tmp_path: Path):
    folder = copied(wholes["original"], tmp_path)
    names = (folder / "emu3_vision_tokens.txt").read_text().split("\n")
    names[5], names[6] = names[6], names[5]
    (folder / "emu3_vision_tokens.txt").write_text("\n".join(names))
    with pytest.raises(ValueError, match=r"last ids, in order; '<.visual token 000002.>' is"):
        opened(folder)


def test_visual_tokens_that_are_no_text_name_their_file(wholes, tmp_path: Path):
    folder = copied(wholes["original"], tmp_path)
    (folder / "emu3_vision_tokens.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"emu3_vision_tokens\.txt is not text in UTF-8"):
        opened(folder)


def test_an_unknown_key_of_the_weights_is_named(wholes, tmp_path: Path):
    folder = copied(wholes["transformers"], tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.vqmodel.extra": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 unknown keys, such as model\.vqmodel\.extra"):
        opened(folder)


def test_writing_is_refused(family: Emu3, tmp_path: Path):
    with pytest.raises(ValueError, match="read but not written"):
        family.save(tmp_path, None)
