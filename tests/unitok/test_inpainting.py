"""A part of a picture is painted anew: which part, what stays, the best of several tries."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import unitok
from tests.unitok.golden.folders import FOLDERS
from tests.unitok.tiny import PATCHES, same, save_tiny
from unitok import Caption, Draw, DrawResult, Edit
from unitok.api import Model
from unitok.best_job import tried
from unitok.cli import app
from unitok.edit_part import part_of
from unitok.families.common.inpainting import FittedPart, chosen, encoded, faded
from unitok_engine import Branch, FixedPlan, GridPlan, IdRange, Output, Request

PROMPT = "a cat on a blue background"
BOX = (16, 16, 48, 32)  # of a tiny model: cells 5 and 6 of 16
CELLS = [5, 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("inpainting") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    with unitok.load(folder, device="cpu", memory="16MB") as loaded:
        yield loaded


def picture(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array)


def mask(box: tuple[int, int, int, int] = BOX, size: tuple[int, int] = (64, 64)) -> Image.Image:
    black = Image.new("L", size)
    black.paste(255, box)
    return black


def plan_of(model: Model, *things: Any, **options: Any) -> GridPlan:
    plan = model.prepare.edit(Edit(*things, **options)).request.plan
    assert isinstance(plan, GridPlan)
    return plan


def painted(model: Model, *things: Any, **options: Any) -> list[int]:
    """The cells that an edit paints anew."""
    known = plan_of(model, *things, **options).known
    return [cell for cell, id in enumerate(known) if id is None]


def ids_of(result: DrawResult, plan: GridPlan, number: int = 0) -> list[int]:
    assert result.token_ids is not None
    return plan.image_ids(result.token_ids[number])


# --- which part ----------------------------------------------------------------------------------


def test_a_mask_and_its_box_are_the_same_part(model: Model):
    assert painted(model, picture(), PROMPT, box=BOX) == CELLS
    for one in (mask(), mask().convert("RGB"), np.array(mask()), np.array(mask()) > 0):
        assert painted(model, picture(), PROMPT, mask=one) == CELLS


def test_a_cell_is_painted_anew_if_anything_in_it_is(model: Model):
    assert painted(model, picture(), PROMPT, box=(31, 31, 33, 33)) == [5, 6, 9, 10]
    assert painted(model, picture(), PROMPT, mask=mask((0, 0, 1, 1))) == [0]


def test_grey_is_white_from_the_middle_on(model: Model):
    grey = mask().point(lambda value: 127 if value == 0 else 128)
    assert painted(model, picture(), PROMPT, mask=grey) == CELLS


def test_a_picture_and_its_mask_are_cut_and_scaled_alike(model: Model):
    wide = picture(256, 128)
    # The middle is the square from 64 to 192, which is halved.
    half = mask((64 + 32, 32, 64 + 96, 64), wide.size)
    assert painted(model, wide, PROMPT, mask=half) == CELLS
    assert painted(model, wide, PROMPT, box=(64 + 32, 32, 64 + 96, 64)) == CELLS


def test_a_margin_is_painted_beside_the_picture(model: Model):
    right = [3, 7, 11, 15]
    assert painted(model, picture(48, 64), PROMPT, margin=(0, 0, 16, 0)) == right
    assert painted(model, picture(64, 48), PROMPT, margin=(0, 16, 0, 0)) == [0, 1, 2, 3]
    around = painted(model, picture(32, 32), PROMPT, margin=[16, 16, 16, 16])
    assert [cell for cell in range(16) if cell not in around] == [5, 6, 9, 10]
    both = painted(model, picture(48, 64), PROMPT, margin=(0, 0, 16, 0), box=(0, 0, 16, 16))
    assert both == [0, *right]


def test_the_picture_goes_on_into_its_margin_with_its_edge():
    part = part_of(Edit(picture(48, 64), PROMPT, margin=(0, 0, 16, 0)))
    pixels, mask_pixels = np.array(part.image), np.array(part.mask)
    assert (pixels[:, 48:] == pixels[:, 47:48]).all() and (pixels[:, :48] == picture(48, 64)).all()
    assert (mask_pixels[:, :48] == 0).all() and (mask_pixels[:, 48:] == 255).all()


def test_a_strength_is_a_share_of_the_part_and_its_seed_says_where(model: Model):
    half = painted(model, picture(), PROMPT, strength=0.5, seed=1)
    assert len(half) == 8
    assert half == painted(model, picture(), PROMPT, strength=0.5, seed=[1, 2])
    assert half != painted(model, picture(), PROMPT, strength=0.5, seed=2)
    assert set(half) < set(painted(model, picture(), PROMPT, strength=0.75, seed=1))
    assert len(painted(model, picture(), PROMPT, strength=0.01)) == 1
    (one,) = painted(model, picture(), PROMPT, strength=0.5, box=BOX, seed=0)
    assert one in CELLS
    assert painted(model, picture(), PROMPT, strength=1.0, box=BOX) == CELLS


@pytest.mark.parametrize("strength", [0.5, 0.05])
@pytest.mark.parametrize("tries", [1, 3])
def test_a_seed_among_several_gives_what_it_gives_alone(model: Model, strength: float, tries: int):
    seeds = [1, 2, 1]
    if strength == 0.05:  # one cell: of one seed the last, behind which nothing stays
        seeds[1] = next(s for s in count() if chosen([True] * PATCHES, strength, s)[-1])
    options: dict[str, Any] = {"strength": strength, "tries": tries, "temperature": 1.5}
    options |= {"logprobs": True, "branch_logprobs": True}
    together = model.edit(picture(), PROMPT, seed=seeds, **options)
    assert together.seeds == tuple(seeds)
    request = model.prepare.edit(Edit(picture(), PROMPT, seed=seeds, **options)).request
    for number, seed in enumerate(seeds):
        new = painted(model, picture(), PROMPT, strength=strength, seed=seed)
        plan = request.plan_of(number)
        assert isinstance(plan, GridPlan) and [plan.known[cell] for cell in new] == [None] * len(
            new
        )
        for given in (seed, [seed]):
            alone = model.edit(picture(), PROMPT, seed=given, **options)
            assert alone.token_ids == (together.token_ids or ())[number : number + 1]
            assert same(alone.image, together.images[number])
    assert same(together.images[0], together.images[2])


def test_previews_of_several_seeds_show_what_stays_of_each(model: Model):
    asked = Edit(picture(), PROMPT, strength=0.5, seed=[1, 2], tries=1, preview=True)
    asked = replace(asked, preview_count=2)
    events = list(model.stream(asked))
    assert {e.sample for e in events if e.kind == "image"} == {0, 1}
    result = events[-1].result
    assert isinstance(result, DrawResult) and result.error is None
    for number, seed in enumerate((1, 2)):
        alone = model.edit(picture(), PROMPT, strength=0.5, seed=seed, tries=1)
        assert same(result.images[number], alone.image)


def test_a_picture_has_as_many_tries_among_many_as_alone(model: Model):
    for n in (1, 400):
        assert model.prepare.edit(Edit(picture(), PROMPT, box=BOX, n=n)).request.n == 4 * n


def test_scoring_an_edit_with_several_seeds_takes_what_the_first_could_paint(model: Model):
    asked = Edit(picture(), PROMPT, strength=0.5, seed=[3, 4])
    plan = plan_of(model, picture(), PROMPT, strength=0.5, seed=3)
    ids = [plan.id_range.start if id is None else id for id in plan.known]
    assert model.score_tokens(asked, ids).token_ids == tuple(ids)


def test_chosen_cells_are_among_those_that_may_be_painted():
    may = [cell % 3 == 0 for cell in range(30)]
    for strength in (0.2, 0.5, 1.0, None):
        cells = chosen(may, strength, 7)
        assert sum(cells) == round((strength or 1) * 10)
        assert not any(new for new, one in zip(cells, may, strict=True) if not one)


# --- what stays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["janus", "chameleon", "anole", "unitoken-base", "emu3"])
def test_image_tokens_outside_of_the_part_stay_in_every_family(kind: str, tmp_path: Path):
    with unitok.load(FOLDERS[kind](tmp_path / kind), device="cpu", memory="16MB") as model:
        if kind == "emu3":  # its own size is too large for the tiny context
            model.family.picture_size = (64, 64)
        width, height = model.family.picture_size
        image = picture(width, height, 3)
        box = (0, height // 4, width // 2, height // 2)
        for tries in (1, 3):
            options: dict[str, Any] = {"box": box, "seed": 5, "n": 2, "tries": tries}
            plan = plan_of(model, image, PROMPT, **options)
            result = model.edit(image, PROMPT, logprobs=True, **options)
            whole = encoded(model.family, model.family.picture_pixels(image))
            for number in range(2):
                ids = ids_of(result, plan, number)
                new = [cell for cell, id in enumerate(plan.known) if id is None]
                stays = [cell for cell in range(plan.cells) if cell not in new]
                assert 0 < len(new) < plan.cells
                assert [ids[cell] for cell in stays] == [whole[cell] for cell in stays]
                assert [ids[cell] for cell in new] != [whole[cell] for cell in new]
                assert result.images[number].size == (width, height)


def test_pixels_outside_of_the_part_and_its_border_are_the_pictures_own(model: Model):
    image = picture()
    result = model.edit(image, PROMPT, box=BOX, seed=1)
    old, new = np.array(image).astype(int), np.array(result.image).astype(int)
    border = 8  # half a cell
    inside = np.zeros((64, 64), bool)
    inside[16 - border : 32 + border, 16 - border : 48 + border] = True
    assert (old[~inside] == new[~inside]).all()
    assert (old[16:32, 16:48] != new[16:32, 16:48]).any()
    decoded = np.array(model.edit(image, PROMPT, box=BOX, seed=1, decode_all=True).image)
    assert (decoded[16:32, 16:48] == new[16:32, 16:48]).all()
    assert (decoded[~inside] != new[~inside]).any()


def test_the_border_falls_from_new_to_old():
    inside = torch.zeros(1, 1, 9, 9)
    inside[..., 4, 4] = 1
    row = faded(inside, 3)[0, 0, 4].tolist()
    assert row == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0, 0])
    assert torch.equal(faded(inside, 0), inside)


def test_decoded_whole_a_picture_is_that_of_its_tokens(model: Model):
    result = model.edit(picture(), PROMPT, box=BOX, seed=1, decode_all=True, logprobs=True)
    plan = plan_of(model, picture(), PROMPT, box=BOX)
    ids = torch.tensor([ids_of(result, plan)])
    codes = model.family.model.vocabulary.id_to_code(ids).view(1, 4, 4)
    pixels = model.family.model.image_tokenizer.decode(codes)[0].mul(255).byte()
    assert (np.array(result.image) == pixels.permute(1, 2, 0).numpy()).all()


# --- samples, tries, crowds ----------------------------------------------------------------------


def test_prompt_seed_guidance_and_what_stays_matter(model: Model):
    def edit(image: Image.Image, prompt: str, **options: Any) -> DrawResult:
        return model.edit(image, prompt, box=(0, 16, 64, 48), tries=1, logprobs=True, **options)

    first = edit(picture(), PROMPT, seed=7)
    assert first.token_ids == edit(picture(), PROMPT, seed=7).token_ids
    for other in (
        edit(picture(), PROMPT, seed=8),
        edit(picture(), "a dog", seed=7),
        edit(picture(seed=1), PROMPT, seed=7),
        edit(picture(), PROMPT, seed=7, guidance=1.0),
        edit(picture(), PROMPT, seed=7, temperature=0),
    ):
        assert first.token_ids != other.token_ids


def test_what_is_painted_is_what_the_model_samples_behind_the_same_tokens(model: Model):
    edited = model.edit(picture(), PROMPT, mask=mask((0, 48, 64, 64)), seed=3, logprobs=True)
    plan = plan_of(model, picture(), PROMPT, mask=mask((0, 48, 64, 64)))
    scored = model.score_tokens(Draw(PROMPT), ids_of(edited, plan))
    assert edited.logprobs is not None
    assert edited.logprobs[0][:12] == (0.0,) * 12
    assert edited.logprobs[0][12:] == pytest.approx(scored.logprobs[12:], abs=1e-4)


def test_the_likeliest_try_is_taken_what_stays_included(model: Model):
    options: dict[str, Any] = {"box": BOX, "seed": 11, "temperature": 1.5}
    best = model.edit(picture(), PROMPT, tries=8, logprobs=True, **options)
    job = model.prepare.edit(Edit(picture(), PROMPT, tries=8, **options))
    plan = job.request.plan
    assert isinstance(plan, GridPlan)
    tries = [plan.image_ids(o.token_ids) for o in model.driver.complete([job.request])]
    assert len({ids[CELLS[0]] for ids in tries}) == len(tries) == 8
    scores = []
    for ids in tries:
        told = model.score_tokens(Draw(PROMPT), ids).branch_logprobs
        scores.append(sum(told[cell] for cell in range(5, PATCHES)))
    assert scores[0] < max(scores)
    assert ids_of(best, plan) == tries[scores.index(max(scores))]
    assert len(best.images) == 1 and best.seed == 11 and best.branch_logprobs is None
    single = model.edit(picture(), PROMPT, tries=1, logprobs=True, **options)
    assert ids_of(single, plan) == tries[0]


def test_each_of_several_pictures_has_tries_of_its_own(model: Model):
    options: dict[str, Any] = {"box": BOX, "temperature": 1.5, "logprobs": True}
    together = model.edit(picture(), PROMPT, n=2, seed=4, tries=3, **options)
    assert together.seeds == (4, 4) and len(together.images) == 2
    assert together.completion_tokens == 2 * PATCHES
    own = model.edit(picture(), PROMPT, seed=[4, 9], tries=3, **options)
    assert own.seeds == (4, 9)
    for number, seed in enumerate((4, 9)):
        alone = model.edit(picture(), PROMPT, seed=[seed], tries=3, **options)
        assert alone.token_ids == (own.token_ids or ())[number : number + 1]


def test_the_first_try_of_a_picture_is_what_it_is_without_tries():
    plan, branches = FixedPlan(IdRange(0, 9), 4), (Branch((1, 2)),)
    for seeds in ((), (5, -6)):
        request = Request(branches, plan, n=2, seeds=seeds)
        tries = tried(request, 3)
        assert (tries.n, tries.tries) == (6, 3) and tries.branch_logprobs
        assert [tries.try_of(s) for s in range(6)] == [
            (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)
        ]  # fmt: skip
        assert [tries.noise_of(s) for s in range(2)] == [request.noise_of(s) for s in range(2)]
        assert len({tries.noise_of(sample) for sample in range(6)}) == 6


def test_without_anything_behind_the_part_there_is_one_try(model: Model):
    job = model.prepare.edit(Edit(picture(), PROMPT, box=(0, 48, 64, 64), tries=5))
    assert job.request.n == 1 and not job.request.branch_logprobs


def test_the_same_edit_is_the_same_alone_and_in_a_crowd(model: Model):
    asked = [
        Edit(picture(seed=i), PROMPT, box=BOX, seed=i, logprobs=True, tries=t)
        for i in range(3)
        for t in (1, 4)
    ]
    alone = [
        model.edit(a.image, PROMPT, box=BOX, seed=a.seed, tries=a.tries, logprobs=True)
        for a in asked
    ]
    crowd = [*asked, Draw("a dog", seed=3), Caption(picture(), max_tokens=4)]
    results = {result.index: result for result in model.run(crowd)}
    for index, one in enumerate(alone):
        result = results[index]
        assert isinstance(result, DrawResult)
        assert result.token_ids == one.token_ids and same(result.image, one.image)


@pytest.mark.parametrize("tries", [1, 4])
def test_drafts_change_nothing(folder: Path, model: Model, tries: int):
    with unitok.load(folder, device="cpu", memory="16MB", drafts=False) as plain:
        for seed in range(3):
            options: dict[str, Any] = {"strength": 0.6, "seed": seed, "tries": tries, "n": 2}
            wanted = plain.edit(picture(), PROMPT, logprobs=True, **options)
            for _ in range(2):  # the second time, there is something to guess with
                result = model.edit(picture(), PROMPT, logprobs=True, **options)
                assert result.token_ids == wanted.token_ids


def test_an_edit_with_tries_can_be_streamed_and_awaited(model: Model):
    asked = Edit(picture(), PROMPT, box=BOX, seed=7, tries=3, n=2)
    wanted = model.edit(picture(), PROMPT, box=BOX, seed=7, tries=3, n=2)
    events = list(model.stream(asked))
    assert {event.kind for event in events} == {"tokens", "image", "result"}
    assert events[-1].done == events[-1].total == 6 * PATCHES
    shown = {event.sample: event.image for event in events if event.image is not None}
    for number, image in enumerate(wanted.images):
        assert same(shown[number], image)

    async def ask() -> DrawResult:
        return await model.aedit(picture(), PROMPT, box=BOX, seed=7, tries=3, n=2)

    assert all(map(same, asyncio.run(ask()).images, wanted.images))


def test_an_edit_with_tries_may_time_out_and_be_cancelled(model: Model):
    asked = Edit(picture(), PROMPT, box=BOX, tries=3, timeout=1e-6)
    (result,) = model.run([asked])
    assert result.finish_reason == "timeout" and "timeout" in str(result.error)
    stream = model.stream(Edit(picture(), PROMPT, box=BOX, tries=50, n=4))
    next(stream)
    stream.close()
    assert model.driver.wait_until_idle(60)
    assert model.stats().free_blocks == model.stats().num_blocks


def test_a_model_that_follows_instructions_follows_them_in_the_part(tmp_path: Path):
    with unitok.load(save_tiny(tmp_path / "tiny-Janus-4o"), device="cpu") as model:
        plan = plan_of(model, picture(), "make it night", box=BOX, freedom=2.0)
        branches = model.prepare.edit(
            Edit(picture(), "make it night", box=BOX, freedom=2.0)
        ).request.branches
        whole = model.prepare.edit(Edit(picture(), "make it night", freedom=2.0)).request.branches
        assert [b.token_ids for b in branches] == [b.token_ids for b in whole]
        assert [b.weight for b in branches] == [b.weight for b in whole]
        assert [cell for cell, id in enumerate(plan.known) if id is None] == CELLS
        assert model.edit(picture(), "make it night", box=BOX, seed=1).finish_reason == "complete"


# --- what is refused -----------------------------------------------------------------------------

WHITE, BLACK = (Image.new("L", (64, 64), value) for value in (255, 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": mask(size=(64, 32))}, "the mask has 64 x 32 pixels, and its picture 64 x 64"),
        ({"mask": BLACK}, "the mask is empty: nothing in it is white"),
        ({"mask": WHITE}, "the mask leaves nothing of the picture: use draw"),
        ({"mask": mask((0, 0, 60, 60))}, "nothing of the picture would stay: each of its 16 cells"),
        ({"box": (0, 0, 64, 64)}, "the box leaves nothing of the picture: use draw"),
        ({"strength": 1.0}, "the strength leaves nothing of the picture: use draw"),
        ({"strength": 0.99}, "nothing of the picture would stay"),
        ({"box": (0, 0, 65, 10)}, r"box is .* within 64 x 64 pixels, .*not \(0, 0, 65, 10\)"),
        ({"box": (8, 8, 8, 16)}, "box is left, top, right and bottom"),
        ({"box": (-1, 0, 8, 16)}, "box is left, top, right and bottom"),
        ({"box": BOX, "mask": mask()}, "give mask or box, not both"),
        ({"margin": (0, 0, 0, 0)}, r"margin holds how many .*not \(0, 0, 0, 0\)"),
        ({"margin": (0, 0, -5, 9)}, "margin holds how many"),
        ({"margin": (0, 0, 10**6, 0)}, "makes more than 32,000,000 pixels"),
        ({"margin": (0, 0, 64, 0)}, "has 128 x 64 pixels, and would be cut off to the shape of 64"),
        ({"strength": 0.0}, "strength must be above 0 and at most 1, not 0"),
        ({"strength": 1.1}, "strength must be above 0 and at most 1, not 1.1"),
        ({"box": BOX, "tries": 0}, "tries must be at least 1"),
        ({"box": BOX, "tries": 200, "n": 10}, "10 pictures with 200 tries each are more than"),
        ({"tries": 4}, "tries is for a part of a picture: give a mask, a box"),
        ({"decode_all": True}, "decode_all is for a part of a picture"),
        ({"box": BOX, "freedom": 2.0}, "follows no instructions, so freedom means nothing to it"),
        ({"box": BOX, "prompt": " "}, "the prompt is empty"),
    ],
)
def test_what_cannot_be_painted_is_refused(model: Model, options: dict, message: str):
    asked: dict[str, Any] = {"prompt": PROMPT} | options
    with pytest.raises(ValueError, match=message):
        model.edit(picture(), **asked)
    assert model.edit(picture(), PROMPT, box=BOX).finish_reason == "complete"


def test_a_mask_outside_of_what_the_model_sees_is_refused(model: Model):
    with pytest.raises(ValueError, match="nothing white of the mask is left at 64 x 64 pixels"):
        model.edit(picture(256, 64), PROMPT, box=(0, 0, 40, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": 5}, "mask must be a picture, not 5"),
        ({"mask": True}, "mask must be a picture, not True"),
        ({"box": 5}, "box must be four whole numbers: left, top, right and bottom, not 5"),
        ({"box": (1, 2, 3)}, "box must be four whole numbers"),
        ({"box": "1,2,3,4"}, "box must be four whole numbers"),
        ({"box": (0, 0, 1.5, 2)}, "box must be four whole numbers"),
        ({"margin": 16}, "margin must be four whole numbers"),
        ({"strength": "half"}, "strength must be a number"),
    ],
)
def test_options_of_a_wrong_kind_are_refused(options: dict, message: str):
    with pytest.raises(TypeError, match=message):
        Edit(picture(), PROMPT, **options)


def test_a_mask_that_is_no_picture_is_refused(model: Model, tmp_path: Path):
    letter = tmp_path / "letter.png"
    letter.write_text("Dear reader")
    with pytest.raises(ValueError, match=r"letter\.png is not a picture"):
        model.edit(picture(), PROMPT, mask=letter)
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such file"):
        model.edit(picture(), PROMPT, mask="none.png")


def test_a_family_without_a_grid_says_that_it_cannot(model: Model, monkeypatch):
    right, image_range = model.family.generation_spec, model.family.model.vocabulary.image_range

    def other(messages: Any, options: Any) -> Any:
        return replace(right(messages, options), plan=FixedPlan(image_range, PATCHES))

    monkeypatch.setattr(model.family, "generation_spec", other)
    with pytest.raises(ValueError, match="tiny cannot paint a part of a picture: it does not draw"):
        model.edit(picture(), PROMPT, box=BOX)


def test_scoring_an_edit_takes_only_what_it_could_paint(model: Model):
    plan = plan_of(model, picture(), PROMPT, box=BOX)
    ids = [plan.id_range.start if id is None else id for id in plan.known]
    score = model.score_tokens(Edit(picture(), PROMPT, box=BOX), ids)
    told = [cell for cell, logprob in enumerate(score.logprobs) if logprob]
    assert told == list(range(5, PATCHES))  # by default there are tries, so what stays is scored
    wrong = [*ids[:-1], plan.id_range.start + (ids[-1] + 1 - plan.id_range.start) % 48]
    with pytest.raises(ValueError, match="token 15 of the given ones"):
        model.score_tokens(Edit(picture(), PROMPT, box=BOX), wrong)


# --- the command line and batches ----------------------------------------------------------------


def run(*words: object, model: Path):
    return CliRunner().invoke(app, [*map(str, words), "--model", str(model)], prog_name="unitok")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    picture(seed=9).save(tmp_path / "scene.png")
    mask().save(tmp_path / "mask.png")
    return tmp_path / "scene.png"


def test_the_command_saves_what_the_api_makes(model: Model, folder: Path, scene: Path):
    out = scene.with_name("out.png")
    options: dict[str, Any]
    for flags, options in (
        (["--mask", scene.with_name("mask.png")], {"mask": mask()}),
        (["--box", "16,16, 48,32", "--tries", 2, "-n", 1], {"box": BOX, "tries": 2}),
        (["--strength", 0.5, "--decode-all"], {"strength": 0.5, "decode_all": True}),
    ):
        done = run("edit", scene, PROMPT, "-o", out, "--seed", 4, *flags, model=folder)
        assert done.exit_code == 0, done.output
        wanted = model.edit(scene, PROMPT, seed=4, **options)
        with Image.open(out) as saved:
            assert same(saved.convert("RGB"), wanted.image) and saved.info["prompt"] == PROMPT


def test_the_command_paints_a_margin(model: Model, folder: Path, scene: Path):
    picture(48, 64).save(scene)
    out = scene.with_name("out.png")
    done = run("edit", scene, PROMPT, "-o", out, "--seed", 4, "--margin", "0,0,16,0", model=folder)
    assert done.exit_code == 0, done.output
    with Image.open(out) as saved:
        assert same(
            saved.convert("RGB"), model.edit(scene, PROMPT, seed=4, margin=(0, 0, 16, 0)).image
        )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--mask", "none.png"], "none.png: no such file"),
        (["--box", "1,2,3"], "--box takes L,T,R,B, such as 8,8,32,32, not '1,2,3'"),
        (["--box", "1,2,3,x"], "--box takes L,T,R,B"),
        (["--margin", "9" * 40 + ",0,0,0"], "--margin takes L,T,R,B"),
        (["--box", "0,0,99,99"], "box is left, top, right and bottom within 64 x 64 pixels"),
        (["--tries", "3"], "tries is for a part of a picture"),
        (["--mask", "scene.png", "--box", "0,0,8,8"], "give mask or box, not both"),
    ],
)
def test_a_wrong_part_is_one_line_and_code_2(
    flags: list[str], told: str, folder: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(scene.parent)
    done = run("edit", "scene.png", PROMPT, "-o", "out.png", *flags, model=folder)
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and told in done.stderr
    assert not Path("out.png").exists()


def test_lines_of_a_batch_may_paint_parts(model: Model, folder: Path, scene: Path, tmp_path: Path):
    lines: list[dict] = [
        {"edit": "scene.png", "prompt": PROMPT, "seed": 4, "mask": "mask.png"},
        {"edit": "scene.png", "prompt": PROMPT, "seed": 4, "box": [16, 16, 48, 32], "tries": 2},
        {"edit": "scene.png", "prompt": PROMPT, "seed": 4, "strength": 0.5, "n": 2},
        {"edit": "scene.png", "prompt": PROMPT, "mask": "none.png"},
        {"edit": "scene.png", "prompt": PROMPT, "mask": 5},
        {"edit": "scene.png", "prompt": PROMPT, "box": [1, 2, 3]},
        {"edit": "scene.png", "prompt": PROMPT, "box": "1,2,3,4"},
        {"edit": "scene.png", "prompt": PROMPT, "mask": "https://a.org/mask.png"},
    ]
    source = tmp_path / "work.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("batch", source, "-o", tmp_path / "out", model=folder)
    assert "3 new, 0 kept, 5 failed" in done.stdout
    for complaint, wanted in zip(
        sorted(done.stderr.splitlines()),
        (
            "none.png: no such file",
            '"mask" must be a picture, not 5',
            '"box" must be four whole numbers',
            '"box" must be four whole numbers',
            "is a URL",
        ),
        strict=True,
    ):
        assert wanted in complaint
    made = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    by_line = {record["line"]: record for record in made}
    options: dict[str, Any]
    for line, options in (
        (1, {"mask": mask()}),
        (2, {"box": BOX, "tries": 2}),
        (3, {"strength": 0.5, "n": 2}),
    ):
        wanted = model.edit(scene, PROMPT, seed=4, **options)
        for path, image in zip(by_line[line]["pictures"], wanted.images, strict=True):
            with Image.open(tmp_path / "out" / path) as saved:
                assert same(saved, image)


def test_another_mask_of_the_same_name_is_another_result(folder: Path, scene: Path, tmp_path: Path):
    source = tmp_path / "work.jsonl"
    line = {"edit": "scene.png", "prompt": PROMPT, "mask": "mask.png", "tries": 1}
    source.write_text(json.dumps(line) + "\n")
    for kept, new in ((0, 1), (1, 0)):
        done = run("batch", source, "-o", tmp_path / "out", model=folder)
        assert f"{new} new, {kept} kept, 0 failed" in done.stdout
    mask((0, 0, 16, 16)).save(scene.with_name("mask.png"))
    assert "1 new, 0 kept" in run("batch", source, "-o", tmp_path / "out", model=folder).stdout


def test_a_part_of_a_fitted_picture_knows_its_cells(model: Model):
    part = FittedPart.of(part_of(Edit(picture(), PROMPT, box=BOX)), model.family)
    assert same(part.image, picture())
    assert [c for c, new in enumerate(part.cells(4, 4)) if new] == CELLS
    assert [c for c, new in enumerate(part.cells(2, 2)) if new] == [0, 1]


def test_a_failed_try_fails_its_picture(model: Model):
    job = model.prepare.edit(Edit(picture(), PROMPT, box=BOX, tries=2))
    ids = tuple(range(16))
    job.feed(Output(0, 0, ids, 0, 5, "complete", branch_logprobs=(0.0,) * 16))
    assert not job.ended
    job.feed(Output(0, 1, ids, 0, 5, "error", "it broke", branch_logprobs=(0.0,) * 16))
    assert job.ended and job.result is not None
    assert (job.result.finish_reason, job.result.error) == ("error", "it broke")


def test_what_stays_has_no_logprob_however_often_it_is_tried(model: Model):
    """A filter may leave out what stays, and minus infinity cannot be written as JSON."""
    for tries in (1, 4):
        options: dict[str, Any] = {"box": BOX, "seed": 1, "logprobs": True, "top_k": 1}
        result = model.edit(picture(), PROMPT, tries=tries, **options)
        assert result.logprobs is not None
        told = result.logprobs[0]
        assert all(told[cell] == 0 for cell in range(16) if cell not in CELLS)
        assert all(isfinite(told[cell]) for cell in CELLS)
