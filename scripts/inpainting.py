"""Measures how well a part of a picture is painted anew, and draws docs/editing.png.

A thing of each held-out scene of the emoji world is painted over, as `unitok eval emoji-inpainting`
does it: with one try and with several, as the likeliest of plain samples, and in passes that paint
a rest of the part again. Other tables are about variations and about the pixels that stay.

    python scripts/inpainting.py --limit 50
    python scripts/inpainting.py --picture docs/editing.png
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import unitok
from unitok.api import Model
from unitok.emoji.evaluation import check_drawing
from unitok.emoji.inpainting import REMOVE, REPLACE, EmojiInpaintingSuite, Inpainter
from unitok.emoji.rendering import to_pil
from unitok.evaluation.intervals import wilson
from unitok.evaluation.suite import SuiteOptions
from unitok.requests import Edit
from unitok.results import DrawResult
from unitok_engine import GridPlan, Output, Request

TRIES, SAMPLES, PASSES = (1, 2, 4, 8), (4, 8), (4, 8)
TIMED = 20  # edits whose time is measured, one at a time
PARTS = ("ways", "times", "variations", "pixels")
STRENGTHS = (0.1, 0.25, 0.5, 0.75)
SIDE, GAP, TEXT = 192, 16, 15  # of docs/editing.png, in pixels
BLUE = (70, 110, 220)

Painter = Callable[[Sequence[Edit]], list[Image.Image]]


@dataclass(frozen=True)
class Asked:
    """An edit of the suite.

    Attributes:
        group: What it is counted with.
        edit: The edit.
        wanted: What the picture is to show.
    """

    group: str
    edit: Edit
    wanted: str


def asked_of(limit: int) -> list[Asked]:
    """The edits of the suite."""
    items = EmojiInpaintingSuite(SuiteOptions(limit=limit)).items()
    return [Asked(i.group, cast("Edit", i.request), i.wanted) for i in items]


# --- ways to paint -------------------------------------------------------------------------------


def by_tries(model: Model, tries: int) -> Painter:
    """The edits as they are, with so many tries. None may change a token outside of its part."""

    def paint(edits: Sequence[Edit]) -> list[Image.Image]:
        runner = Inpainter(model)
        results = list(runner.run([replace(edit, tries=tries) for edit in edits]))
        if wrong := [result.error for result in results if result.error]:
            raise RuntimeError(f"{len(wrong)} of {len(results)} edits: {wrong[0]}")
        results.sort(key=lambda result: result.index)
        return [cast("DrawResult", result).image for result in results]

    return paint


def by_samples(model: Model, samples: int) -> Painter:
    """Plain samples; that one is taken after which the rest of the picture is likeliest."""

    def paint(edits: Sequence[Edit]) -> list[Image.Image]:
        requests = [replace(scored(model, edit), n=samples) for edit in edits]
        outputs, images = model.driver.complete(requests), []
        for number, request in enumerate(requests):
            mine = outputs[number * samples : (number + 1) * samples]
            best = max(mine, key=lambda output: sum(behind(request, output).values()))
            images.append(decoded(model, best.token_ids))
        return images

    return paint


def by_passes(model: Model, passes: int) -> Painter:
    """A part is painted; then a random rest of it again, which is kept if it fits better."""

    def paint(edits: Sequence[Edit]) -> list[Image.Image]:
        requests = [scored(model, edit) for edit in edits]
        kept = model.driver.complete(requests)
        for number in range(1, passes):
            again = [
                again_from(request, output, number)
                for request, output in zip(requests, kept, strict=True)
            ]
            new = model.driver.complete(again)
            kept = [better(*three) for three in zip(again, kept, new, strict=True)]
        return [decoded(model, output.token_ids) for output in kept]

    return paint


def scored(model: Model, edit: Edit) -> Request:
    """An edit as one plain sample, whose output says how likely what stays is."""
    job = model.prepare.edit(replace(edit, tries=2))
    return replace(job.request, n=1, tries=1)


def behind(request: Request, output: Output) -> dict[int, float]:
    """The log-probability of each known cell behind the first that is painted."""
    plan = cast("GridPlan", request.plan)
    assert output.branch_logprobs is not None
    first = plan.known.index(None)
    return {
        cell: output.branch_logprobs[cell]
        for cell in range(first, plan.cells)
        if plan.known[cell] is not None
    }


def again_from(request: Request, output: Output, number: int) -> Request:
    """A request that paints a random rest of the part again."""
    plan = cast("GridPlan", request.plan)
    hole = [cell for cell, id in enumerate(plan.known) if id is None]
    first = random.Random(f"{request.sampling.seed} {number}").choice(hole)
    rest = {cell for cell in hole if cell >= first}
    known = tuple(None if c in rest else id for c, id in enumerate(output.token_ids))
    sampling = replace(request.sampling, seed=request.sampling.seed + 10_000 * number)
    return replace(request, plan=replace(plan, known=known), sampling=sampling)


def better(again: Request, kept: Output, new: Output) -> Output:
    """The output after which what stays behind the painted rest is likelier."""
    places, before = behind(again, new), kept.branch_logprobs
    assert before is not None and new.branch_logprobs is not None
    if sum(places.values()) <= sum(before[cell] for cell in places):
        return kept
    first = cast("GridPlan", again.plan).known.index(None)
    joined = before[:first] + new.branch_logprobs[first:]
    return replace(new, branch_logprobs=joined)


@torch.inference_mode()
def decoded(model: Model, ids: Sequence[int]) -> Image.Image:
    """The picture of image ids."""
    unified = model.family.model
    codes = unified.vocabulary.id_to_code(torch.tensor([list(ids)]))
    return to_pil(unified.image_tokenizer.decode(codes)[0])


def painters(model: Model) -> dict[str, Painter]:
    """All ways to paint, by name."""
    return (
        {f"tries={tries}": by_tries(model, tries) for tries in TRIES}
        | {f"likeliest of {n} samples": by_samples(model, n) for n in SAMPLES}
        | {f"{passes} passes": by_passes(model, passes) for passes in PASSES}
    )


# --- how well and how fast -----------------------------------------------------------------------


def share(asked: Sequence[Asked], images: Sequence[Image.Image], start: str) -> str:
    """The share that is right of the groups that begin with a word, with its interval."""
    verdicts = [
        check_drawing(one.wanted, image).ok
        for one, image in zip(asked, images, strict=True)
        if one.group.startswith(start)
    ]
    low, high = wilson(sum(verdicts), len(verdicts))
    return f"{sum(verdicts) / len(verdicts):.1%} ({low:.1%} to {high:.1%}) of {len(verdicts)}"


def timed(ways: dict[str, Painter], asked: Sequence[Asked]) -> dict[str, float]:
    """The median seconds of an edit alone, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for one in asked:
        for name, paint in ways.items():
            start = time.perf_counter()
            paint([one.edit])
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def print_ways(ways: dict[str, Painter], asked: Sequence[Asked]) -> None:
    """Print how well each way paints, and by groups."""
    print("| way | replaced, right | removed, right |\n| --- | --- | --- |")
    groups = sorted({one.group for one in asked})
    for name, paint in ways.items():
        images = paint([one.edit for one in asked])
        shares = [share(asked, images, start) for start in (REPLACE, REMOVE)]
        print(f"| {name} | {' | '.join(shares)} |", flush=True)
        print("   ", {group: share(asked, images, group) for group in groups}, flush=True)


def print_times(ways: dict[str, Painter], asked: Sequence[Asked]) -> None:
    """Print how long each way takes, also beside the first one."""
    seconds = timed(ways, asked[:: max(1, len(asked) // TIMED)])
    first = next(iter(seconds.values()))
    print("| way | seconds alone | times the first way |\n| --- | --- | --- |")
    for name, median in seconds.items():
        print(f"| {name} | {median:.3f} | {median / first:.2f} |")


# --- variations and pixels -----------------------------------------------------------------------


def print_variations(model: Model, asked: Sequence[Asked]) -> None:
    """Print how many variations of right drawings are right, and how many tokens change."""
    drawn = model.draw([one.wanted for one in asked], seed=1, logprobs=True)
    right = [d for one, d in zip(asked, drawn, strict=True) if is_right(one.wanted, d)]
    print("| strength | right | changed tokens |\n| --- | --- | --- |")
    for strength in STRENGTHS:
        edits = [
            Edit(d.image, d.prompt, strength=strength, seed=i, branch_logprobs=True)
            for i, d in enumerate(right)
        ]
        results = [cast("DrawResult", r) for r in sorted(model.run(edits), key=lambda r: r.index)]
        ok = sum(is_right(result.prompt, result) for result in results)
        new = np.mean(
            [
                np.array(o.token_ids) != np.array(r.token_ids)
                for o, r in zip(right, results, strict=True)
            ]
        )
        low, high = wilson(ok, len(right))
        print(f"| {strength} | {ok / len(right):.1%} ({low:.1%} to {high:.1%}) | {new:.1%} |")


def is_right(wanted: str, result: DrawResult) -> bool:
    """Whether a picture shows what is wanted."""
    return check_drawing(wanted, result.image).ok


def print_pixels(model: Model, asked: Sequence[Asked]) -> None:
    """Print how pixels outside of the boxes differ from those of the given pictures."""
    for name, decode_all in (("own pixels", False), ("decode_all", True)):
        edits = [replace(one.edit, decode_all=decode_all) for one in asked]
        results = [cast("DrawResult", r) for r in sorted(model.run(edits), key=lambda r: r.index)]
        errors = [error_outside(result) for result in results]
        psnr = 10 * np.log10(255**2 / np.mean(errors))
        right = share(asked, [result.image for result in results], "")
        print(f"{name}: {psnr:.1f} dB outside of the box, right {right}")


def error_outside(result: DrawResult) -> float:
    """The mean squared error of the pixels outside of an edit's box."""
    edit = cast("Edit", result.request)
    assert edit.box is not None
    old, new = (np.asarray(i, dtype=float) for i in (cast("Image.Image", edit.image), result.image))
    left, top, right, bottom = edit.box
    outside = np.ones(old.shape[:2], bool)
    outside[top:bottom, left:right] = False
    return float(np.mean((old - new)[outside] ** 2))


# --- the picture ---------------------------------------------------------------------------------


def examples(model: Model) -> list[tuple[str, Image.Image, Image.Image]]:
    """Titles, pictures before and after. What is to be painted is blue before."""
    pair = model.draw("a cat left of a house on a green background", seed=3).image
    box = (32, 0, 64, 64)
    green = " on a green background"
    edited = {
        "box: a tree instead": (pair, {"prompt": f"a cat left of a tree{green}", "box": box}),
        "box: no house": (pair, {"prompt": f"a cat{green}", "box": box}),
        "margin: more on the right": (
            pair.crop((0, 0, 32, 64)),
            {"prompt": f"a cat left of a dog{green}", "margin": (0, 0, 32, 0)},
        ),
        "mask: around a given thing": (
            pair,
            {"prompt": f"a house right of a robot{green}", "mask": left_half()},
        ),
        "strength=0.9": (pair, {"prompt": f"a cat left of a house{green}", "strength": 0.9}),
    }
    return [
        (title, before(model, image, options), model.edit(image, seed=0, **options).image)
        for title, (image, options) in edited.items()
    ]


def left_half() -> Image.Image:
    """A mask whose left half is white."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    return mask


def before(model: Model, image: Image.Image, options: dict) -> Image.Image:
    """A picture in which the cells that are painted anew are blue."""
    plan = model.prepare.edit(Edit(image, seed=0, **options)).request.plan
    assert isinstance(plan, GridPlan)
    left, top, right, bottom = options.get("margin", (0, 0, 0, 0))
    size = (image.width + left + right, image.height + top + bottom)
    shown = Image.new("RGB", size, "white")
    shown.paste(image, (left, top))
    side = size[0] // plan.columns
    for cell, id in enumerate(plan.known):
        if id is None:
            x, y = cell % plan.columns * side, cell // plan.columns * side
            shown.paste(BLUE, (x, y, x + side, y + side))
    return shown


def draw_examples(model: Model, target: Path) -> None:
    """Draw the examples side by side: before above after."""
    shown = examples(model)
    width, height = len(shown) * (SIDE + GAP) + GAP, 2 * (SIDE + GAP) + GAP + 2 * TEXT
    sheet, font = Image.new("RGB", (width, height), "white"), ImageFont.load_default(TEXT)
    pen = ImageDraw.Draw(sheet)
    for column, (title, *pictures) in enumerate(shown):
        x = GAP + column * (SIDE + GAP)
        pen.text((x, GAP // 2), title, "black", font)
        for row, image in enumerate(pictures):
            y = GAP + 2 * TEXT - GAP // 2 + row * (SIDE + GAP)
            sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
            pen.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline="gray")
    sheet.save(target)


def main() -> None:
    """Measure or draw, as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--limit", type=int, default=50, help="scenes of each kind")
    parser.add_argument("--way", action="append", help="measure only this way, such as tries=4")
    parser.add_argument("--part", choices=PARTS, action="append", help="measure only this")
    parser.add_argument("--picture", type=Path, help="draw the examples there, and measure nothing")
    given = parser.parse_args()
    with unitok.load() as model:
        if given.picture:
            draw_examples(model, given.picture)
            return
        asked = asked_of(given.limit)
        replaced = [one for one in asked if one.group.startswith(REPLACE)]
        ways = {n: way for n, way in painters(model).items() if n in (given.way or [n])}
        parts = given.part or PARTS
        if "ways" in parts:
            print_ways(ways, asked)
        if "times" in parts:
            print_times(ways, asked)
        if "variations" in parts:
            print_variations(model, replaced)
        if "pixels" in parts:
            print_pixels(model, replaced)


if __name__ == "__main__":
    main()
