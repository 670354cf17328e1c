"""Emu3 gives the ids, logits and pixels of transformers' Emu3, from the folder that it saves."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.emu3.image_processing_emu3 import smart_resize

from tests.parity import drawn_bytes
from tests.parity.test_emu3_tokenizer import reference
from tests.unitok.test_emu3 import train_tokenizer
from unitok.checkpoints.weights import parameters
from unitok.driver import Driver
from unitok.families import GenerationSpec, ImageOptions, open_folder
from unitok.families.emu3 import Emu3
from unitok.families.emu3.config import EMU3
from unitok.families.emu3.preprocessing import Preprocessor
from unitok.families.emu3.prompts import NEGATIVE
from unitok.families.emu3.weights import TRANSFORMERS_DROPPED, transformers_adapter
from unitok.nn.config import ModelConfig
from unitok.nn.model import UnifiedModel
from unitok.prompt import Message
from unitok_engine import Branch, Engine, EngineConfig, GridPlan, IdRange, Plan, Request, Sampling
from unitok_tokenizers.emu3 import Emu3TokenizerConfig

IMAGES = Emu3TokenizerConfig(codebook_size=300, base_channels=32, res_blocks=1)
NAMED = {
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}
# Sizes of the decoder: hidden, intermediate, layers, heads, heads of keys and values.
SHAPES = {"two groups": (64, 120, 2, 4, 2), "one group": (48, 40, 3, 6, 1)}
SIZES = [(40, 24), (16, 48), (24, 24)]  # width and height of drawings, in pixels
PROMPTS = ["a red cat", "12 pictures, the 3rd is <|image end|>'s", "猫 "]


@dataclass(frozen=True)
class Pair:
    """A folder as transformers wrote it, opened by both."""

    family: Emu3
    model: Any
    processor: Any
    folder: Path


@pytest.fixture(scope="module", params=list(SHAPES))
def pair(request, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("emu3")
    processor = make_processor(folder)
    model = make_model(SHAPES[request.param], processor.tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    family = open_folder(folder, "cpu", torch.float32)
    assert isinstance(family, Emu3)
    return Pair(family, model, processor, folder)


def make_processor(folder: Path) -> Any:
    file = folder / "trained.json"
    train_tokenizer(IMAGES.codebook_size).save(str(file))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file),
        bos_token="<|extra_203|>",
        eos_token="<|extra_204|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=NAMED,
    )
    images = Emu3ImageProcessor(min_pixels=32 * 32, max_pixels=64 * 64)
    return Emu3Processor(images, tokenizer, chat_template="unused")


def make_model(shape: tuple[int, int, int, int, int], tokenizer: Any) -> Any:
    """All weights random, large enough that each id matters to what follows."""
    hidden, intermediate, layers, heads, kv_heads = shape
    config = Emu3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 512,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vq_config={
            "codebook_size": IMAGES.codebook_size,
            "base_channels": IMAGES.base_channels,
            "num_res_blocks": IMAGES.res_blocks,
            "hidden_size": IMAGES.widths[-1],
        },
        vocabulary_map=tokenizer.get_vocab(),
    )
    model: Any = Emu3ForConditionalGeneration(config).eval()
    state = model.state_dict()
    for name, value in state.items():
        if ".vqmodel." not in name:
            value.normal_(std=0.3).add_(1.0 if value.ndim == 1 else 0.0)
    model.model.vqmodel.load_state_dict(reference(IMAGES).state_dict())
    return model


def run(family: Emu3, requests: Sequence[tuple[Sequence[Branch], Plan]]) -> list:
    """What our engine emits, greedily, all requests at once: an output for each."""
    engine = Engine(family.model, EngineConfig(max_context=512, max_batch_tokens=64))
    greedy = Sampling(temperature=0.0)
    asked = [Request(tuple(branches), plan, greedy) for branches, plan in requests]
    return Driver(engine).complete(asked)


def generate(
    model: Any, prompt: Sequence[int], allowed: Callable[[list[int]], list[int]], **options: Any
) -> list[int]:
    """What transformers emits, greedily; allowed: what may follow the ids emitted so far."""
    start = len(prompt)
    ids = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, start, dtype=torch.long),
        prefix_allowed_tokens_fn=lambda _, ids: allowed(ids[start:].tolist()),
        do_sample=False,
        **options,
    )
    return ids[0, start:].tolist()


def picture(width: int, height: int, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


# --- the model -----------------------------------------------------------------------------------


@torch.no_grad()
def test_logits_of_text_and_of_pictures_agree(pair: Pair):
    """In float64: some CPUs round these large logits by more than the tolerance in float32."""
    model, generator = pair.family.model, torch.Generator().manual_seed(1)
    model, theirs = deepcopy(model).double(), deepcopy(pair.model).double()
    size, start = model.config.decoder.vocab_size, model.vocabulary.image_start
    ids = torch.randint(size, (2, 150), generator=generator)
    hidden = model(model.embed(ids), torch.arange(150).expand(2, -1))
    parts = [model.logits(hidden, part) for part in (IdRange(0, start), IdRange(start, size))]
    expected = theirs(input_ids=ids).logits
    assert expected.std() > 1
    torch.testing.assert_close(torch.cat(parts, -1), expected, atol=1e-4, rtol=0)


def test_the_names_in_memory_are_read_like_those_in_the_file(pair: Pair, tmp_path: Path):
    for file in pair.folder.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(pair.model.state_dict(), tmp_path / "model.safetensors")
    again = parameters(open_folder(tmp_path, "cpu", torch.float32).model)
    for name, value in parameters(pair.family.model).items():
        assert torch.equal(again[name], value), name


def test_all_that_transformers_writes_is_known(pair: Pair, tmp_path: Path):
    """Every setting, not only those that differ from its own."""
    shutil.copytree(pair.folder, tmp_path, dirs_exist_ok=True)
    images = pair.processor.image_processor
    (tmp_path / "processor_config.json").write_text(json.dumps({}))
    images.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(pair.model.config.to_dict()))
    again = open_folder(tmp_path, "cpu", torch.float32, strict=True)
    assert isinstance(again, Emu3)
    assert again.model.config == pair.family.model.config
    assert again.preprocess == pair.family.preprocess


def test_the_published_sizes_have_the_same_names_and_shapes():
    with torch.device("meta"):
        config = Emu3Config(vocabulary_map={"<image>": 0, "<|extra_200|>": 1})
        theirs = Emu3ForConditionalGeneration(config).state_dict()
        ours = UnifiedModel(
            ModelConfig(EMU3, None, Emu3TokenizerConfig(), image_start=184622 - 32768)
        )
    text: Any = config.text_config
    assert text.rope_parameters["rope_theta"] == EMU3.rope_theta
    assert text.rms_norm_eps == EMU3.norm_eps
    assert text.max_position_embeddings == EMU3.max_positions
    adapter, used = transformers_adapter(theirs), set()
    for key, value in parameters(ours).items():
        stored = adapter(key)
        assert stored.take(theirs[stored.name]).shape == value.shape, key
        used.add(stored.name)
    rest = theirs.keys() - used
    dropped = re.compile("|".join(TRANSFORMERS_DROPPED))
    assert rest and all(dropped.fullmatch(name) for name in rest)


# --- drawing -------------------------------------------------------------------------------------


def drawn(pair: Pair, prompt: str, size: tuple[int, int], guidance: float = 3.0) -> GenerationSpec:
    return pair.family.generation_spec([Message("user", prompt)], ImageOptions(guidance, size=size))


def processed(pair: Pair, text: str, size: tuple[int, int]) -> tuple[list[int], list[int]]:
    """What Emu3Processor makes of a prompt: ids, and rows and columns."""
    width, height = size
    made = pair.processor(
        text=text,
        return_for_image_generation=True,
        ratio=f"{width}:{height}",
        image_area=width * height,
    )
    return made["input_ids"][0], made["image_sizes"][0]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_prompts_of_a_drawing_are_those_of_the_processor(pair: Pair, size: tuple[int, int]):
    for prompt in (PROMPTS[0], "", PROMPTS[2]):
        prompt_of_drawing, against = drawn(pair, prompt, size).branches
        ids, grid = processed(pair, prompt, size)
        assert list(prompt_of_drawing.token_ids) == ids and pair.family.grid(size) == tuple(grid)
        assert list(against.token_ids) == processed(pair, NEGATIVE, size)[0]


def test_the_usual_size_is_that_of_the_processor(pair: Pair):
    made = pair.processor(text="a cat", return_for_image_generation=True)
    assert pair.family.grid(None) == tuple(made["image_sizes"][0]) == (90, 90)


def grid_rule(pair: Pair, rows: int, columns: int) -> Callable[[list[int]], list[int]]:
    """The grid in transformers' terms: what may follow so many ids."""
    vocabulary = pair.processor.tokenizer.get_vocab()
    visual = [i for name, i in vocabulary.items() if name.startswith("<|visual token")]
    names = ("<|extra_200|>", "<|extra_201|>", "<|image end|>", "<|extra_204|>")
    end_of_line, *closing = (vocabulary[name] for name in names)

    def allowed(emitted: list[int]) -> list[int]:
        row, column = divmod(len(emitted), columns + 1)
        if row == rows:
            return [closing[column]]
        return [end_of_line] if column == columns else visual

    return allowed


def test_guided_drawings_of_several_sizes_are_the_same_ids_in_one_batch(pair: Pair):
    drawings = [drawn(pair, p, s) for p, s in zip(PROMPTS, SIZES, strict=True)]
    outputs = run(pair.family, [(d.branches, d.plan) for d in drawings])
    unguided = [drawn(pair, p, s, 1.0) for p, s in zip(PROMPTS, SIZES, strict=True)]
    plain = run(pair.family, [(d.branches, d.plan) for d in unguided])
    for drawing, size, output, other in zip(drawings, SIZES, outputs, plain, strict=True):
        rows, columns = size[1] // 8, size[0] // 8
        for weighed, lines in ((output, drawing.branches), (other, drawing.branches[:1])):
            options: dict[str, Any] = {"max_new_tokens": 100}
            if len(lines) == 2:
                against = torch.tensor([lines[1].token_ids])
                options |= {"guidance_scale": 3.0, "negative_prompt_ids": against}
            rule = grid_rule(pair, rows, columns)
            expected = generate(pair.model, lines[0].token_ids, rule, **options)
            assert list(weighed.token_ids) == expected and weighed.finish_reason == "complete"
        assert len(output.token_ids) == rows * (columns + 1) + 3
        assert len(set(output.token_ids)) > 4 and output.token_ids != other.token_ids, (
            "guidance must matter"
        )


@torch.no_grad()
def test_painted_pictures_are_the_same(pair: Pair):
    drawing = drawn(pair, PROMPTS[0], SIZES[0])
    assert isinstance(drawing.plan, GridPlan)
    ids = [random_drawing(drawing.plan, seed) for seed in (1, 2)]
    rows, columns = drawing.plan.rows, drawing.plan.columns
    raw = pair.model.decode_image_tokens(image_tokens=torch.tensor(ids), height=rows, width=columns)
    painted = drawing.decode(ids)
    images = pair.processor.image_processor
    mean, std = (torch.tensor(v)[:, None, None] for v in (images.image_mean, images.image_std))
    assert painted.shape == (2, 3, 24, 40) and painted.std() > 0.05
    torch.testing.assert_close(painted, (raw * std + mean).clamp(0, 1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_drawn_bytes_are_those_of_the_authors(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    drawing = drawn(pair, PROMPTS[0], SIZES[0])
    assert isinstance(drawing.plan, GridPlan)
    ids = [random_drawing(drawing.plan, seed) for seed in (1, 2, 3)]
    rows, columns = drawing.plan.rows, drawing.plan.columns
    raw = pair.model.decode_image_tokens(image_tokens=torch.tensor(ids), height=rows, width=columns)
    images = pair.processor.image_processor
    mean, std = images.image_mean, images.image_std
    expected = drawn_bytes.of_emu3(drawn_bytes.last_axis(raw), mean, std)
    processed = images.postprocess(list(raw.float()))["pixel_values"]
    assert np.array_equal(expected, np.stack([np.array(image) for image in processed]))
    exact = drawn_bytes.ours_from(raw, pair.family.model, drawing, ids, monkeypatch)
    assert np.array_equal(exact, expected)
    levels = drawn_bytes.last_axis(raw) * np.array(std) * 255 + np.array(mean) * 255
    drawn_bytes.assert_same_but_for_rounding(drawn_bytes.ours(drawing, ids), expected, levels)


def random_drawing(plan: GridPlan, seed: int) -> list[int]:
    generator, ids = torch.Generator().manual_seed(seed), []
    for _ in range(plan.max_length):
        step = plan.next(ids)
        choice = (
            int(torch.randint(plan.id_range.size, (), generator=generator)) + plan.id_range.start
        )
        ids.append(getattr(step, "id", choice))
    return ids


# --- reading -------------------------------------------------------------------------------------


def test_pictures_are_fitted_to_the_same_size():
    """transformers takes all that the authors take, and smaller and thinner ones besides."""
    rng, seen = np.random.default_rng(0), Counter()
    ours = Preprocessor()
    for width, height in np.exp(rng.uniform(0, 9, (3000, 2))).astype(int).tolist():
        if refusal := refusal_of_the_authors(width, height):
            with pytest.raises(ValueError, match=refusal):
                ours.resized(width, height)
        else:
            expected = smart_resize(height, width, 8, ours.min_pixels, ours.max_pixels)
            assert ours.resized(width, height) == expected[::-1]
        seen[refusal] += 1
    assert min(seen[kind] for kind in (None, "too small", "too thin")) > 100


def refusal_of_the_authors(width: int, height: int) -> str | None:
    """What smart_resize of baaivision/Emu3, image_processing_emu3visionvq.py, refuses."""
    if height < 8 or width < 8:
        return "too small"
    return "too thin" if max(height, width) / min(height, width) > 5 else None


def reference_ids(pair: Pair, text: str, images: list[Image.Image]) -> list[int]:
    """The processor's ids, each placeholder replaced by the image id that the model puts there."""
    made = pair.processor(images=images, text=text, return_tensors="pt")
    ids = made["input_ids"][0]
    visual = pair.model.model.get_image_tokens(made["pixel_values"], made["image_sizes"])
    ids[ids == pair.processor.image_token_id] = visual.to(ids.dtype)
    return ids.tolist()


@pytest.mark.parametrize("size", [(40, 56), (150, 31), (9, 8)], ids=str)
def test_a_picture_and_a_question_are_the_same_ids(pair: Pair, size: tuple[int, int]):
    shown, asked = picture(*size, seed=3), "Is this 1 cat, or 2?"
    line = pair.family.chat_prompt(
        [Message("user", asked, (pair.family.encode_image(shown),))], None
    )
    text = f"You are a helpful assistant. USER: <image>{asked} ASSISTANT:"
    expected = reference_ids(pair, text, [shown])
    assert list(line.token_ids) == expected and len(set(expected)) > 25
    assert line.embeddings == ()


def test_a_talk_about_two_pictures_is_the_same_ids(pair: Pair):
    shown = [picture(48, 48, seed) for seed in (1, 2)]
    first, second = (pair.family.encode_image(image) for image in shown)
    talk = [Message("user", "What is it?", (first,)), Message("assistant", "A cat.")]
    talk.append(Message("user", "And this?", (second,)))
    text = "USER: <image>What is it? ASSISTANT: A cat. USER: <image>And this? ASSISTANT:"
    assert list(pair.family.chat_prompt(talk, "").token_ids) == reference_ids(pair, text, shown)


@pytest.mark.parametrize("seed", range(3))
def test_greedy_text_from_a_picture_is_the_same(pair: Pair, seed: int):
    asked = Message("user", "Describe it.", (pair.family.encode_image(picture(50, 40, seed)),))
    line = pair.family.chat_prompt([asked], None)
    [output] = run(pair.family, [((line,), pair.family.text_plan(30))])
    text = list(range(pair.family.model.vocabulary.image_start))
    end = pair.processor.tokenizer.eos_token_id
    expected = generate(
        pair.model, line.token_ids, lambda _: text, max_new_tokens=30, eos_token_id=end
    )
    stopped = expected[-1] == end
    assert list(output.token_ids) == (expected[:-1] if stopped else expected)
    assert output.finish_reason == ("stop" if stopped else "length")
