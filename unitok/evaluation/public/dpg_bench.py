"""DPG-Bench: drawings of long prompts (https://arxiv.org/abs/2403.05135).

The data are the folder `prompts`, with a text file for each prompt. Four pictures are drawn of
each, and laid out as the official scorer reads them: a grid of 2 x 2 with the name of the prompt's
file. That scorer, which asks mPLUG, gives the scores.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unitok.evaluation.public.records import decoded, digest
from unitok.evaluation.suite import Item, Judgement, SuiteOptions, Summary, judgement, picture_of
from unitok.requests import Draw
from unitok.results import Result
from unitok.saving import make_folder, save_whole

COLUMNS = 2
SAMPLES = COLUMNS**2
LAYOUT = "dpg_bench"  # the folder for the official scorer
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_-]{0,79}")


@dataclass(frozen=True)
class DpgPrompt:
    """A file of the folder: its name without suffix, and its text on one line."""

    name: str
    text: str


def read_prompts(folder: Path) -> list[DpgPrompt]:
    """The prompts of a folder, in the order of their names.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no prompts, one is empty, or one has a name that no result can have.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise ValueError(f"{folder} holds no prompts, such as 0.txt")
    return [read_prompt(path) for path in files]


def read_prompt(path: Path) -> DpgPrompt:
    """The prompt of a file.

    Raises:
        ValueError: It is empty, not text, or has an odd name.
    """
    text = " ".join(decoded(path).split())
    if not text:
        raise ValueError(f"{path} is empty")
    if not NAME.fullmatch(path.stem):
        raise ValueError(f"{path}: the name of a prompt has letters, digits, - and _ alone")
    return DpgPrompt(path.stem, text)


class DpgBenchSuite:
    """The suite of a folder of prompts."""

    name = "dpg-bench"

    def __init__(self, options: SuiteOptions) -> None:
        assert options.data is not None
        limit = None if options.limit is None else -(-options.limit // SAMPLES)
        self.prompts = read_prompts(options.data)[:limit]
        self.seed = options.seed or 0
        files = [options.data / f"{prompt.name}.txt" for prompt in self.prompts]
        self.settings: dict[str, Any] = {
            "data": digest(files),
            "limit": options.limit,
            "seed": self.seed,
        }

    def items(self) -> Sequence[Item]:
        """Four drawings of each prompt, with seeds one after another."""
        return [
            Item(
                f"{prompt.name}_{i}", "prompts", Draw(prompt.text, seed=self.seed + i), prompt.name
            )
            for prompt in self.prompts
            for i in range(SAMPLES)
        ]

    def judge(self, item: Item, result: Result) -> Judgement:
        """See that a drawing fits into the grid; the official scorer judges the rest.

        Raises:
            ValueError: It is not square.
        """
        width, height = picture_of(result).size
        if width != height:
            raise ValueError(
                f"the drawing has {width} x {height} pixels, and DPG-Bench's scorer cuts squares: "
                "set width and height"
            )
        return judgement(item, None, "", facts={"side": width})

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """How the official scorer is called."""
        lacking = len({j.wanted for j in judged if j.error is not None})
        notes = [f"{lacking} prompts lack a drawing, and have no grid."] if lacking else []
        sides = sorted({j.facts["side"] for j in judged if j.facts})
        if not sides:
            return Summary({}, notes=["There is no drawing.", *notes])
        said = ", ".join(map(str, sides))
        how = (
            "Nothing is judged here: run DPG-Bench's compute_dpg_bench.py with "
            f"--image-root-path {LAYOUT} --resolution {said} --pic-num {SAMPLES}."
        )
        return Summary({}, notes=[how, *notes])

    def export(self, judged: Sequence[Judgement], folder: Path) -> None:
        """Write a grid of each prompt whose four drawings are there.

        Raises:
            ValueError: The drawings of a prompt differ in size.
        """
        pictures: dict[str, list[Path]] = {}
        for j in judged:
            if j.picture is not None:
                pictures.setdefault(j.wanted, []).append(folder / j.picture)
        make_folder(folder / LAYOUT)
        for name, paths in pictures.items():
            if len(paths) == SAMPLES:
                save_whole(grid(paths), folder / LAYOUT / f"{name}.png")


def grid(paths: Sequence[Path]) -> Image.Image:
    """Squares of one size in rows of two.

    Raises:
        ValueError: They differ in size.
    """
    pictures = [Image.open(path).convert("RGB") for path in paths]
    side = pictures[0].width
    if {picture.size for picture in pictures} != {(side, side)}:
        raise ValueError(f"{paths[0]} and the other drawings of its prompt differ in size")
    whole = Image.new("RGB", (COLUMNS * side, COLUMNS * side))
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i % COLUMNS * side, i // COLUMNS * side))
    return whole
