"""Edits: how a Janus-4o is told, its prompts and weights, and every way to ask it."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import unitok
from tests.unitok.tiny import ASSETS, PATCHES, TINY, same, save_tiny, tiny_model
from unitok import Caption, Draw, DrawResult, Edit
from unitok.api import Model
from unitok.cli import app
from unitok.emoji.export import save_folder
from unitok.families import janus, open_folder
from unitok.families.common.editing import EditOptions
from unitok.families.janus4o import Janus4o, matches
from unitok.families.janus4o.prompts import edit_prompt
from unitok_tokenizers.text import TextTokenizer

CHANGE = "a cat on a blue background"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("janus4o") / "tiny-Janus-4o")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "tiny-Janus-4o"))


@pytest.fixture(scope="module")
def model(whole: Path) -> Model:
    return unitok.load(whole, device="cpu", memory="16MB")


@pytest.fixture(scope="module")
def family(model: Model) -> Janus4o:
    assert isinstance(model.family, Janus4o)
    return model.family


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    picture(9).save(path)
    return path


def picture(seed: int = 0, width: int = 64, height: int = 48) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array)


def branches(family: Janus4o, guidance: float = 5.0, freedom: float | None = None):
    options = EditOptions(guidance, freedom)
    return family.edit_spec(picture(), CHANGE, options).branches


# --- which folders -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "own", "told"),
    [
        ("Janus-4o-7B", {}, True),
        ("my-janus-4o", {}, True),
        ("models--FreedomIntelligence--Janus-4o-7B/snapshots/0c1f", {}, True),
        ("models--deepseek-ai--Janus-Pro-7B/snapshots/0c1f", {}, False),
        ("Janus-Pro-7B", {}, False),
        ("Janus-4o-7B/Janus-Pro-7B", {}, False),
        ("editor", {"family": "janus-4o"}, True),
        ("Janus-4o-7B", {"family": "janus"}, False),
    ],
)
def test_its_own_file_or_its_name_tells_a_janus_4o(
    name: str, own: dict, told: bool, tmp_path: Path
):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "unitok.json").write_text(json.dumps(own))
    for model_type in ("janus", "multi_modality"):
        assert matches({"model_type": model_type}, frozenset(), folder) == told
    assert not matches({"model_type": "Emu3"}, frozenset(), folder)


@pytest.mark.parametrize("stated", ["janus-5", 4, ["janus-4o"]])
def test_a_family_that_is_none_of_janus_is_refused(stated: object, folder: Path):
    (folder / "unitok.json").write_text(json.dumps({"family": stated}))
    with pytest.raises(ValueError, match=r"family must be one of janus, janus-4o, not .*[54]"):
        open_folder(folder, "cpu", torch.float32)


@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_what_is_saved_opens_as_a_janus_4o_again(
    layout: str, model: Model, family: Janus4o, tmp_path: Path
):
    model.save(tmp_path / "copy", layout)
    again = open_folder(tmp_path / "copy", "cpu", torch.float32)
    assert isinstance(again, Janus4o)
    assert replace(again.defaults, known_words=None) == replace(family.defaults, known_words=None)
    edited = unitok.load(tmp_path / "copy", device="cpu").edit(picture(), CHANGE, seed=1)
    assert same(edited.image, model.edit(picture(), CHANGE, seed=1).image)


def test_a_folder_without_the_vq_encoder_is_refused_by_name(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    left = {name: t for name, t in tensors.items() if not name.startswith("model.vqmodel.encoder")}
    assert len(left) < len(tensors)
    save_file(left, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing.*model\.vqmodel\.encoder\."):
        open_folder(folder, "cpu", torch.float32)


def test_pictures_must_be_read_in_the_size_they_are_generated_in(tmp_path: Path):
    vision = replace(TINY.vision, image_size=32, patch_size=8)
    model = tiny_model(config=replace(TINY, vision=vision))
    template = janus.Template(TextTokenizer.load(ASSETS), PATCHES)
    save_folder(model, template, ASSETS, tmp_path / "Janus-4o", dtype=torch.float32)
    with pytest.raises(ValueError, match="reads and generates one size, not 32 and 64"):
        open_folder(tmp_path / "Janus-4o", "cpu", torch.float32)


# --- prompts and weights -------------------------------------------------------------------------


def test_the_prompt_of_an_edit_written_out(family: Janus4o):
    template, words = family.template, family.tokenizer
    read = family.encode_image(picture())
    details = list(range(640, 640 + PATCHES))
    made = edit_prompt(template, read, details, f"{CHANGE} \n")
    begin, place, end = map(
        words.id, (template.begin_of_image, template.placeholder, template.end_of_image)
    )
    opening = [words.id(template.bos), words.id(template.user), *words.encode_plain(": "), begin]
    assert made.token_ids == (
        *opening,
        *[place] * PATCHES,
        end,
        begin,
        *details,
        end,
        *words.encode_plain(f"{CHANGE}\n\n"),
        words.id(template.assistant),
        *words.encode_plain(":"),
        begin,
    )
    assert [(e.start, e.length) for e in made.embeddings] == [(len(opening), PATCHES)]


def test_the_details_are_the_image_ids_of_the_picture_that_is_read(family: Janus4o):
    full, part, against = branches(family)
    square = family.preprocess(picture()) / 2 + 0.5
    codes = family.model.image_tokenizer.encode(square[None]).flatten()
    ids = family.model.vocabulary.code_to_id(codes).tolist()
    assert len(set(ids)) > 1
    start = full.token_ids.index(ids[0])
    assert list(full.token_ids[start : start + PATCHES]) == ids
    pad = family.tokenizer.id(family.template.pad)
    rest = full.token_ids[:start], full.token_ids[start + PATCHES :]
    assert part.token_ids == (*rest[0], *[pad] * PATCHES, *rest[1])
    assert part.embeddings == full.embeddings
    inner = len(full.token_ids) - 2
    assert against.token_ids == (full.token_ids[0], *[pad] * inner, full.token_ids[-1])
    assert against.embeddings == ()


def test_the_weights_are_those_of_the_formula(family: Janus4o):
    weights = [branch.weight for branch in branches(family)]
    assert weights == pytest.approx([5 / 6, 25 / 6, -4])
    weights = [branch.weight for branch in branches(family, guidance=2.0, freedom=3.0)]
    assert weights == pytest.approx([2 / 4, 6 / 4, -1])


@pytest.mark.parametrize("guidance", [0.0, 0.3, 1.0, 5.0, 1e6, -2.0])
@pytest.mark.parametrize("freedom", [None, 0.0, 0.7, 5.0, 1e9, 1e308])
def test_the_weights_sum_to_one_and_none_is_nothing(
    family: Janus4o, guidance: float, freedom: float | None
):
    weights = [branch.weight for branch in branches(family, guidance, freedom)]
    assert sum(weights) == pytest.approx(1)
    assert 0 not in weights


def test_a_scale_that_takes_a_branch_away_runs_fewer(family: Janus4o):
    (full,) = branches(family, guidance=1.0, freedom=0.0)
    assert (full.token_ids, full.weight) == (branches(family)[0].token_ids, 1.0)
    assert len(branches(family, guidance=1.0)) == 2
    assert len(branches(family, freedom=0.0)) == 2


def test_the_picture_is_read_once_for_all_branches_and_samples(
    model: Model, family: Janus4o, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []
    right = family.features
    monkeypatch.setattr(
        family, "features", lambda pixels: seen.append(len(pixels)) or right(pixels)
    )
    assert len(model.edit(picture(77), CHANGE, n=3, seed=1).images) == 3
    assert seen == [1]


# --- the API -------------------------------------------------------------------------------------


def test_an_edit_tells_how_it_came_about(model: Model):
    result = model.edit(picture(), CHANGE, seed=7, n=2)
    assert isinstance(result, DrawResult)
    assert (result.prompt, result.seed, result.finish_reason) == (CHANGE, 7, "complete")
    assert (result.completion_tokens, len(result.images)) == (2 * PATCHES, 2)
    assert not same(*result.images)
    assert result.image.info["prompt"] == CHANGE and result.image.info["seed"] == "7"
    assert isinstance(result.request, Edit)


def test_picture_prompt_and_scales_matter(model: Model):
    first = model.edit(picture(), CHANGE, seed=7).image
    for other in (
        model.edit(picture(1), CHANGE, seed=7),
        model.edit(picture(), "a dog", seed=7),
        model.edit(picture(), CHANGE, seed=7, guidance=1.0),
        model.edit(picture(), CHANGE, seed=7, freedom=0.0),
    ):
        assert not same(first, other.image)
    assert same(first, model.edit(picture(), CHANGE, seed=7, freedom=5.0).image)


def test_the_same_seed_edits_the_same_alone_and_in_a_crowd(model: Model):
    edits = [model.edit(picture(seed), CHANGE, seed=seed).image for seed in (1, 2)]
    drawing = model.draw("a dog", seed=3).image
    assert not same(*edits)
    crowd = model.edit([picture(0), picture(2), picture(2)], CHANGE, seed=2)
    assert same(crowd[1].image, edits[1]) and same(crowd[2].image, edits[1])
    assert not same(crowd[0].image, edits[1])
    mixed = model.run(
        [
            Draw("a dog", seed=3),
            Caption(picture(1), max_tokens=5),
            Edit(picture(1), CHANGE, seed=1),
            Edit(picture(2), CHANGE, seed=2, n=2),
        ]
    )
    by_index = {result.index: result for result in mixed}
    for index, image in ((0, drawing), (2, edits[0]), (3, edits[1])):
        result = by_index[index]
        assert isinstance(result, DrawResult) and same(result.image, image)


def test_a_janus_4o_draws_and_captions_as_any_janus(model: Model, tmp_path: Path):
    plain = unitok.load(save_tiny(tmp_path / "Janus-Pro"), device="cpu")
    assert same(model.draw("a dog", seed=3).image, plain.draw("a dog", seed=3).image)
    answers = [m.caption(picture(), max_tokens=8).text for m in (model, plain)]
    assert answers[0] == answers[1]


def test_an_edit_can_be_streamed(model: Model):
    events = list(model.stream(Edit(picture(), CHANGE, seed=7)))
    assert {event.kind for event in events} == {"tokens", "image", "result"}
    assert events[-1].result is not None and events[-1].done == PATCHES
    assert any(
        e.image and same(e.image, model.edit(picture(), CHANGE, seed=7).image) for e in events
    )


def test_edits_can_be_awaited(model: Model):
    async def ask() -> list[DrawResult]:
        one = await model.aedit(picture(1), CHANGE, seed=1)
        several = await model.aedit([picture(1), picture(2)], CHANGE, seed=1)
        results = [result async for result in model.arun([Edit(picture(1), CHANGE, seed=1)])]
        (last,) = [
            e.result async for e in model.astream(Edit(picture(1), CHANGE, seed=1)) if e.result
        ]
        return [one, several[0], *results, last]  # type: ignore[list-item]

    expected = model.edit(picture(1), CHANGE, seed=1).image
    assert all(same(result.image, expected) for result in asyncio.run(ask()))


def test_logprobs_are_told_for_each_token(model: Model):
    result = model.edit(picture(), CHANGE, seed=7, n=2, logprobs=True)
    assert result.logprobs is not None and list(map(len, result.logprobs)) == [PATCHES] * 2


# --- what is refused -----------------------------------------------------------------------------


def test_other_models_say_that_they_cannot_and_which_can(tmp_path: Path, scene: Path):
    plain = unitok.load(save_tiny(tmp_path / "Janus-Pro"), device="cpu")
    told = (
        "Janus-Pro cannot edit pictures by an instruction, as Janus-4o can: give a mask, a box, a "
        "margin or a strength to paint a part anew"
    )
    with pytest.raises(ValueError, match=f"^{told}$"):
        plain.edit(scene, CHANGE)
    with pytest.raises(ValueError, match=told):
        plain.stream(Edit(scene, CHANGE))
    bad, good = plain.run([Edit(scene, CHANGE), Caption(scene, max_tokens=2)])
    assert (bad.error, bad.finish_reason, good.finish_reason) == (told, "error", "length")
    assert isinstance(bad, DrawResult) and bad.images == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freedom": -1.0}, "freedom must be 0 or more, not -1.0"),
        ({"freedom": float("nan")}, "freedom must be finite"),
        ({"freedom": float("inf")}, "freedom must be finite"),
        ({"guidance": float("nan")}, "guidance must be finite"),
        ({"n": 0}, "n must be at least 1"),
        ({"temperature": -0.1}, "temperature must be 0 or more"),
        ({"seed": 2**70}, "seed must fit"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "cat " * 300}, "shorten it"),
    ],
)
def test_options_out_of_range_are_refused(model: Model, options: dict, message: str):
    asked: dict[str, Any] = {"prompt": CHANGE} | options
    with pytest.raises(ValueError, match=message):
        model.edit(picture(), **asked)
    assert model.edit(picture(), CHANGE).finish_reason == "complete"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freedom": "much"}, "freedom must be a number, not 'much'"),
        ({"prompt": 7}, "prompt must be text, not 7"),
        ({"fredom": 1.0}, "no option 'fredom'; did you mean 'freedom'"),
        ({"negative_prompt": "day"}, "no option 'negative_prompt'"),
        ({"width": 64, "height": 64}, "no option 'width'"),
    ],
)
def test_options_of_a_wrong_kind_are_refused(model: Model, options: dict, message: str):
    asked: dict[str, Any] = {"prompt": CHANGE} | options
    with pytest.raises(TypeError, match=message):
        model.edit(picture(), **asked)


def test_what_is_no_picture_is_refused(model: Model, tmp_path: Path):
    letter = tmp_path / "letter.png"
    letter.write_text("Dear reader")
    with pytest.raises(ValueError, match=r"letter\.png is not a picture"):
        model.edit(letter, CHANGE)
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such file"):
        model.edit([picture(), "none.png"], CHANGE)
    with pytest.raises(TypeError, match="not NoneType"):
        model.edit(None, CHANGE)  # type: ignore[call-overload]


# --- the command line and batches ----------------------------------------------------------------


def run(*words: object, model: Path | None = None):
    flags = ["--model", str(model)] if model else []
    return CliRunner().invoke(app, [*map(str, words), *flags], prog_name="unitok")


def test_the_command_saves_what_the_api_makes(model: Model, whole: Path, scene: Path):
    out = scene.with_name("night.png")
    options = ["-n", "2", "--seed", "4", "--freedom", "2", "--guidance", "3"]
    done = run("edit", scene, CHANGE, "-o", out, *options, model=whole)
    assert done.exit_code == 0, done.output
    paths = [out.with_name(f"night-{i}.png") for i in range(2)]
    assert done.stdout.splitlines() == [
        f"{path}: seed 4, sample {i}" for i, path in enumerate(paths)
    ]
    wanted = model.edit(scene, CHANGE, n=2, seed=4, freedom=2, guidance=3)
    for path, image in zip(paths, wanted.images, strict=True):
        with Image.open(path) as saved:
            assert same(saved, image) and saved.info["prompt"] == CHANGE


def test_the_command_tells_json(model: Model, whole: Path, scene: Path):
    out = scene.with_name("night.png")
    done = run("edit", scene, CHANGE, "-o", out, "--seed", 4, "--json", "--logprobs", model=whole)
    said = json.loads(done.stdout)
    wanted = model.edit(scene, CHANGE, seed=4, logprobs=True)
    assert said["image"] == str(scene) and said["prompt"] == CHANGE and said["files"] == [str(out)]
    assert said["prompt_tokens"] == wanted.prompt_tokens and out.exists()
    assert wanted.logprobs is not None
    assert np.allclose(said["logprobs"], wanted.logprobs, atol=1e-3)


def test_the_embedded_model_says_in_one_line_that_it_cannot(scene: Path):
    done = run("edit", scene, CHANGE, "-o", scene.with_name("night.png"))
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.startswith(
        "unitok: default cannot edit pictures by an instruction, as Janus"
    )
    assert done.stderr.count("\n") == 1
    assert not scene.with_name("night.png").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.png", CHANGE, "-o", "x.png"], "none.png: no such file"),
        (["none.png", " ", "-o", "x.png"], "the prompt is empty"),
        (["none.png", CHANGE, "-o", "x.doc"], "name a picture, such as x.png"),
        (["none.png", CHANGE, "-o", "x.png", "--freedom", "-2"], "freedom must be 0 or more"),
        (["none.png", CHANGE, "-o", "x.png", "--logprobs"], "add --json"),
    ],
)
def test_a_wrong_edit_is_one_line_and_code_2(words: list[str], told: str, whole: Path):
    done = run("edit", *words, model=whole)
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and told in done.stderr


def test_lines_of_a_batch_may_be_edits(model: Model, whole: Path, scene: Path, tmp_path: Path):
    lines: list[dict] = [
        {"edit": "scene.png", "prompt": CHANGE, "seed": 4, "n": 2, "freedom": 2, "id": "first"},
        {"draw": "a dog", "seed": 3},
        {"edit": "scene.png", "prompt": CHANGE},
        {"edit": "scene.png"},
        {"edit": "scene.png", "prompt": None},
        {"edit": "scene.png", "prompt": 5},
        {"edit": "scene.png", "prompt": CHANGE, "negative_prompt": "day"},
        {"edit": "none.png", "prompt": CHANGE},
        {"edit": "scene.png", "caption": "scene.png"},
    ]
    source = tmp_path / "work.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("batch", source, "-o", tmp_path / "out", model=whole)
    assert done.exit_code == 1
    assert "3 new, 0 kept, 6 failed" in done.stdout
    told = sorted(done.stderr.splitlines())
    for complaint, wanted in zip(
        told,
        (
            'line 4: "edit" needs "prompt" too, which is text',
            'line 5: "edit" needs "prompt" too, which is text',
            'line 6: "prompt" must be text, not 5',
            'line 7: unknown key "negative_prompt"',
            "none.png: no such file",
            'line 9: a line has either "caption" or "edit"',
        ),
        strict=True,
    ):
        assert wanted in complaint
    made = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    first = next(record for record in made if record["line"] == 1)
    assert first["request"] == lines[0] and len(first["pictures"]) == 2 and first["id"] == "first"
    wanted = model.edit(scene, CHANGE, seed=4, n=2, freedom=2).images
    for path, image in zip(first["pictures"], wanted, strict=True):
        with Image.open(tmp_path / "out" / path) as saved:
            assert same(saved, image)


def test_another_picture_of_the_same_name_is_another_result(
    whole: Path, scene: Path, tmp_path: Path
):
    source = tmp_path / "work.jsonl"
    source.write_text(json.dumps({"edit": "scene.png", "prompt": CHANGE}) + "\n")
    for kept, new in ((0, 1), (1, 0)):
        done = run("batch", source, "-o", tmp_path / "out", model=whole)
        assert f"{new} new, {kept} kept, 0 failed" in done.stdout
    picture(5).save(scene)
    assert "1 new, 0 kept" in run("batch", source, "-o", tmp_path / "out", model=whole).stdout
