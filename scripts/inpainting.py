"""Measures how well a part of a picture is painted anew, and draws docs/editing.png.

A thing of each held-out scene of the emoji world is painted over, as `unitok eval emoji-inpainting`
does, with one try, with the best of several, and in passes that paint a rest of the part again.
Another table says how variations of a picture still show what their prompt says.

    python scripts/inpainting.py --limit 100
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

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import unitok
from unitok.api import Model
from unitok.emoji.evaluation import check_drawing, judge_all
from unitok.emoji.inpainting import REMOVE, REPLACE, EmojiInpaintingSuite, Inpainter
from unitok.emoji.rendering import to_pil
from unitok.evaluation.intervals import wilson
from unitok.evaluation.suite import Item, SuiteOptions
from unitok.requests import Edit
from unitok_engine import GridPlan, Output

TRIES = (1, 2, 4, 8)
PASSES = (4, 8)
TIMED = 30  # edits whose time is measured, one at a time
STRENGTHS = (0.1, 0.25, 0.5, 0.75)
SIDE, GAP, TEXT = 192, 16, 15  # of docs/editing.png, in pixels
BLUE = (70, 110, 220)

Paint = Callable[[Edit], Image.Image]


@dataclass(frozen=True)
class Row:
    """A way to paint, and how it does.

    Attributes:
        name: The way.
        right: Of each group, how many are right and how many there are.
        failed: How many edits changed a token that had to stay.
        seconds: The median time of one edit alone.
    """

    name: str
    right: dict[str, tuple[int, int]]
    failed: int
    seconds: float = 0.0

    def share(self, start: str) -> str:
        """The share that is right of the groups that begin with a word, with its interval."""
        counts = [count for group, count in self.right.items() if group.startswith(start)]
        right, of = (sum(column) for column in zip(*counts, strict=True))
        low, high = wilson(right, of)
        return f"{right / of:.1%} ({low:.1%} to {high:.1%}) of {of}"


def counted(verdicts: Sequence[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    """Of each group, how many are right and how many there are."""
    groups: dict[str, tuple[int, int]] = {}
    for group, ok in verdicts:
        right, of = groups.get(group, (0, 0))
        groups[group] = right + ok, of + 1
    return groups


def with_tries(model: Model, limit: int, tries: int) -> Row:
    """Judge the suite with so many tries."""
    suite = EmojiInpaintingSuite(SuiteOptions(limit=limit))
    items = [replace(i, request=replace(i.request, tries=tries)) for i in suite.items()]
    judged = [one.judgement for one in judge_all(Inpainter(model), suite, items)]
    failed = sum(one.error is not None for one in judged)
    return Row(f"tries={tries}", counted([(j.group, bool(j.ok)) for j in judged]), failed)


# --- passes --------------------------------------------------------------------------------------


def in_passes(model: Model, asked: Edit, passes: int) -> Image.Image:
    """Paint a part once. Then paint a random rest of it again, and keep what fits better."""
    rng = random.Random(f"pass {asked.seed}")
    job = model.prepare.edit(replace(asked, tries=2))  # so that what stays is scored
    request = replace(job.request, n=1)
    plan = request.plan
    assert isinstance(plan, GridPlan)
    hole = [cell for cell, id in enumerate(plan.known) if id is None]
    ids, told = cells_of(model.driver.complete([request])[0], plan)
    for number in range(1, passes):
        first = rng.choice(hole)
        rest = {cell for cell in hole if cell >= first}
        known = tuple(None if cell in rest else id for cell, id in enumerate(ids))
        sampling = replace(request.sampling, seed=request.sampling.seed + 10_000 * number)
        again = replace(request, plan=replace(plan, known=known), sampling=sampling)
        new_ids, new_told = cells_of(model.driver.complete([again])[0], plan)
        behind = [cell for cell in range(first, plan.cells) if cell not in rest]
        if sum(new_told[cell] for cell in behind) > sum(told[cell] for cell in behind):
            ids, told = new_ids, [*told[:first], *new_told[first:]]
    return decoded(model, ids)


def cells_of(output: Output, plan: GridPlan) -> tuple[list[int], list[float]]:
    """The image ids of a picture, and the log-probability of each."""
    assert output.branch_logprobs is not None
    return plan.image_ids(output.token_ids), list(output.branch_logprobs)


@torch.inference_mode()
def decoded(model: Model, ids: Sequence[int]) -> Image.Image:
    """The picture of image ids."""
    unified, (width, height) = model.family.model, model.info().picture_size
    assert width == height
    codes = unified.vocabulary.id_to_code(torch.tensor([ids]))
    return to_pil(unified.image_tokenizer.decode(codes)[0])


def with_passes(model: Model, items: Sequence[Item], passes: int) -> Row:
    """Judge edits that are painted in so many passes, one at a time."""
    verdicts = []
    for item in items:
        assert isinstance(item.request, Edit)
        image = in_passes(model, item.request, passes)
        verdicts.append((item.group, check_drawing(item.wanted, image).ok))
    return Row(f"{passes} passes", counted(verdicts), 0)


# --- time ----------------------------------------------------------------------------------------


def timed(ways: dict[str, Paint], items: Sequence[Item]) -> dict[str, float]:
    """The median seconds of an edit alone, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for item in items:
        assert isinstance(item.request, Edit)
        for name, paint in ways.items():
            start = time.perf_counter()
            paint(item.request)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def ways_of(model: Model) -> dict[str, Paint]:
    """Every way to paint, by name."""

    def tried(tries: int) -> Paint:
        return lambda asked: next(iter(model.run([replace(asked, tries=tries)]))).image  # type: ignore[union-attr]

    def passed(passes: int) -> Paint:
        return lambda asked: in_passes(model, asked, passes)

    return {f"tries={tries}": tried(tries) for tries in TRIES} | {
        f"{passes} passes": passed(passes) for passes in PASSES
    }


# --- variations and pixels -----------------------------------------------------------------------


def variations(model: Model, items: Sequence[Item]) -> None:
    """Print how variations of drawings show what their prompt says, and how much is new."""
    drawn = model.draw([item.wanted for item in items], seed=1, logprobs=True)
    right = [d for i, d in zip(items, drawn, strict=True) if check_drawing(i.wanted, d.image).ok]
    print("\n| strength | right | changed tokens |\n| --- | --- | --- |")
    for strength in STRENGTHS:
        asked = [
            Edit(d.image, d.prompt, strength=strength, seed=i, branch_logprobs=True)
            for i, d in enumerate(right)
        ]
        results = sorted(model.run(asked), key=lambda result: result.index)
        ok = sum(check_drawing(r.request.prompt, r.image).ok for r in results)  # type: ignore[union-attr]
        new = statistics.mean(
            np.mean(np.array(old.token_ids) != np.array(result.token_ids))  # type: ignore[union-attr]
            for old, result in zip(right, results, strict=True)
        )
        low, high = wilson(ok, len(right))
        print(f"| {strength} | {ok / len(right):.1%} ({low:.1%} to {high:.1%}) | {new:.1%} |")


def pixels_outside(model: Model, items: Sequence[Item]) -> None:
    """Print how pixels outside of the boxes differ from those of the given pictures."""
    for name, decode_all in (("own pixels", False), ("decoded", True)):
        errors, right = [], 0
        for item in items:
            assert isinstance(item.request, Edit) and item.request.box is not None
            asked = replace(item.request, decode_all=decode_all)
            (result,) = model.run([asked])
            image = result.image  # type: ignore[union-attr]
            right += check_drawing(item.wanted, image).ok
            old, new = (np.asarray(one, dtype=float) for one in (item.request.image, image))
            left, top, r, bottom = item.request.box
            outside = np.ones(old.shape[:2], bool)
            outside[top:bottom, left:r] = False
            errors.append(np.mean((old - new)[outside] ** 2))
        psnr = 10 * np.log10(255**2 / np.mean(errors))
        print(f"{name}: {psnr:.1f} dB outside of the box, {right} of {len(items)} right")


# --- the picture ---------------------------------------------------------------------------------


def examples(model: Model) -> list[tuple[str, Image.Image, Image.Image]]:
    """Titles, pictures before and after. What is to be painted is blue before."""
    pair = model.draw("a cat left of a house on a green background", seed=3).image
    box = (32, 0, 64, 64)
    edited = [
        (
            "box: a tree, not the house",
            pair,
            {"prompt": "a cat left of a tree on a green background", "box": box},
        ),
        ("box: without the house", pair, {"prompt": "a cat on a green background", "box": box}),
        (
            "margin: more on the right",
            pair.crop((0, 0, 40, 64)),
            {"prompt": "a cat left of a dog on a green background", "margin": (0, 0, 24, 0)},
        ),
        (
            "mask: a given thing",
            pair,
            {"prompt": "a house right of a robot on a green background", "mask": left_half()},
        ),
        (
            "strength=0.5",
            pair,
            {"prompt": "a cat left of a house on a green background", "strength": 0.5},
        ),
    ]
    return [
        (title, before(model, image, options), model.edit(image, seed=0, **options).image)
        for title, image, options in edited
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
    parser.add_argument("--limit", type=int, default=100, help="scenes of each kind")
    parser.add_argument("--picture", type=Path, help="draw the examples there, and measure nothing")
    given = parser.parse_args()
    with unitok.load() as model:
        if given.picture:
            draw_examples(model, given.picture)
        else:
            measure(model, given.limit)


def measure(model: Model, limit: int) -> None:
    """Print all tables."""
    items = EmojiInpaintingSuite(SuiteOptions(limit=limit)).items()
    rows = [with_tries(model, limit, tries) for tries in TRIES]
    rows += [with_passes(model, items, passes) for passes in PASSES]
    seconds = timed(ways_of(model), items[:: max(1, len(items) // TIMED)])
    print("| way | replaced, right | removed, right | changed outside | seconds |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        cells = (row.name, row.share(REPLACE), row.share(REMOVE), row.failed)
        print(f"| {' | '.join(map(str, cells))} | {seconds[row.name]:.3f} |")
    for row in rows:
        print(row.name, {group: f"{right}/{of}" for group, (right, of) in row.right.items()})
    variations(model, [item for item in items if item.group.startswith(REPLACE)])
    pixels_outside(model, items[:: max(1, len(items) // 100)])


if __name__ == "__main__":
    main()
