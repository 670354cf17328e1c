"""How well a model reads and draws the emoji world, on combinations it never saw.

In the manner of GenEval (https://arxiv.org/abs/2310.11513): a checker finds what was drawn.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from unitok.api import Model
from unitok.baselines.protocols import Runner
from unitok.emoji import captions
from unitok.emoji.checker import Verdict, check
from unitok.emoji.held_out import PROMPTS, SEED, HeldOutSuite, held_out_scenes, rendered
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.scenes import CANVAS, Scene
from unitok.evaluation.grid import picture_grid
from unitok.evaluation.metrics import rate, reconstruction_psnr
from unitok.evaluation.reconstruction import ReconstructionSuite
from unitok.evaluation.run import Judged, run_items
from unitok.evaluation.suite import (
    Item,
    Judgement,
    Suite,
    SuiteOptions,
    Summary,
    judgement,
)
from unitok.evaluation.tallies import shares
from unitok.requests import Caption, Draw
from unitok.results import DrawResult, Result, TextResult

GRID_COLUMNS = 10


def reconstruction_suite(options: SuiteOptions) -> ReconstructionSuite:
    """Held-out scenes as pictures for the image tokenizer."""
    held_out = HeldOutSuite(options)
    scenes = enumerate(rendered(held_out.scenes))
    pictures = [(f"{scene.kind} {i}", to_pil(pixels)) for i, (scene, pixels) in scenes]
    name = "emoji-reconstruction"
    return ReconstructionSuite(pictures, held_out.settings, name, options.extractor)


# --- items ---------------------------------------------------------------------------------------


def drawing_items(scenes: Sequence[Scene], rng: random.Random, start: str = "draw") -> list[Item]:
    """A drawing of each scene, the i-th with seed i."""
    asked = [(scene.kind, captions.prompt(scene, rng)) for scene in scenes]
    return [
        Item(f"{start}-{i:05}-{kind}", f"{start}_{kind}", Draw(prompt, seed=i), prompt)
        for i, (kind, prompt) in enumerate(asked)
    ]


def caption_items(scenes: Sequence[Scene], start: str = "caption") -> list[Item]:
    """A caption of each scene."""
    return [
        Item(
            f"{start}-{i:05}-{scene.kind}",
            f"{start}_{scene.kind}",
            Caption(to_pil(pixels)),
            captions.caption(scene),
        )
        for i, (scene, pixels) in enumerate(rendered(scenes))
    ]


def question_items(kind: str, count: int, seed: int = SEED) -> list[Item]:
    """Questions of one kind about held-out scenes, each with one true answer."""
    rng = random.Random(seed + 1)
    scenes = [s for s in held_out_scenes(count, seed) if kind in captions.question_kinds(s)]
    rng.shuffle(scenes)
    scenes = scenes[:count]
    asked = [captions.questions(scene, rng, kind) for scene in scenes]
    return [
        Item(
            f"question-{kind}-{i:05}",
            f"question_{kind}",
            Caption(to_pil(pixels), question=one.question),
            one.answer,
        )
        for i, (one, (_, pixels)) in enumerate(zip(asked, rendered(scenes), strict=True))
    ]


# --- the suite -----------------------------------------------------------------------------------


class EmojiSuite(HeldOutSuite):
    """Drawings by kind, captions, and questions by kind, on held-out scenes. It is a `Suite`."""

    name = "emoji"

    def items(self) -> list[Item]:
        """Drawings, captions and questions."""
        questions = [
            item
            for kind in captions.QUESTION_KINDS
            for item in question_items(kind, self.count, self.seed)
        ]
        drawings = drawing_items(self.scenes, random.Random(self.seed))
        return [*drawings, *caption_items(self.scenes), *questions]

    def judge(self, item: Item, result: Result) -> Judgement:
        """Check a drawing, a caption or an answer."""
        return judge(item, result)

    def summary(self, judged: Sequence[Judgement]) -> Summary:
        """The share of each group, and the means that docs/default_model.md reports."""
        return Summary(emoji_scores(judged), notes=[HOW_JUDGED])


HOW_JUDGED = (
    "A drawing is right if a checker that matches sprites finds exactly the objects, their number, "
    "the background and the relation that were asked for, and nothing else. A caption is right if "
    "it is true and complete. An answer is right if it is the one true answer."
)


def judge(item: Item, result: Result) -> Judgement:
    """Check one result of the emoji world.

    Raises:
        ValueError: The prompt of a drawing is not of the emoji world's grammar.
    """
    if isinstance(result, TextResult):
        return judge_text(item, result)
    verdict = check_drawing(item.wanted, result.image)
    return judgement(item, verdict.ok, verdict.reason)


def check_drawing(prompt: str, image: Image.Image) -> Verdict:
    """Whether a drawing, shrunk or enlarged to the size of a scene, shows what a prompt asks for.

    Raises:
        ValueError: The prompt is not of the emoji world's grammar.
    """
    claim = captions.parse(prompt)
    if claim is None:
        raise ValueError(f"the checker cannot read the prompt {prompt!r}")
    if image.size != (CANVAS, CANVAS):
        image = image.convert("RGB").resize((CANVAS, CANVAS), Image.Resampling.BOX)
    return check(image, claim)


def judge_text(item: Item, result: TextResult) -> Judgement:
    """Check a caption, which may be any that is true and complete, or an answer."""
    asked = item.request
    if isinstance(asked, Caption) and asked.question is None:
        return judgement(item, captions.says_the_same(result.text, item.wanted), result.text)
    return judgement(item, result.text == item.wanted, result.text)


def emoji_scores(judged: Sequence[Judgement]) -> dict[str, float]:
    """Means over all kinds, and the share of each kind. The mean of drawings is that of kinds."""
    groups = shares(judged)
    means = {
        "draw_mean": [share for group, share in groups.items() if group.startswith("draw_")],
        "caption": [bool(j.ok) for j in judged if j.group.startswith("caption_")],
        "question_mean": [bool(j.ok) for j in judged if j.group.startswith("question_")],
    }
    return {name: round(rate(each), 4) for name, each in means.items() if each} | groups


# --- without a folder ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """Scores of a model.

    Attributes:
        scores: Shares in [0, 1] by name; image_tokenizer_psnr is in dB.
        grid: A picture of drawings.
        judged: All results, in the order of the items.
    """

    scores: dict[str, float]
    grid: Image.Image
    judged: tuple[Judged, ...]


def report(model: Model, prompts: int = PROMPTS, seed: int = SEED) -> Report:
    """Score drawings, captions, answers and reconstructions of held-out scenes, in memory.

    `unitok eval emoji` does the same into a folder.

    Args:
        model: A model of the emoji world.
        prompts: Drawings and scenes of each kind, and questions of each kind.
        seed: Of the scenes.
    """
    suite = EmojiSuite(SuiteOptions(limit=prompts, seed=seed))
    judged = judge_all(model, suite, suite.items())
    scores = emoji_scores([one.judgement for one in judged])
    psnr = reconstruction_psnr(model, render(held_out_scenes(prompts, seed)))
    scores["image_tokenizer_psnr"] = round(psnr, 4)
    return Report(scores, drawing_grid(judged), tuple(judged))


def judge_all(runner: Runner, suite: Suite, items: Sequence[Item]) -> list[Judged]:
    """Ask all items and judge the results, in the order of the items."""
    place = {item.key: index for index, item in enumerate(items)}
    return sorted(run_items(runner, suite, items), key=lambda one: place[one.item.key])


def drawing_grid(
    judged: Sequence[Judged], row_of: Callable[[Judged], str] = lambda one: one.item.group
) -> Image.Image:
    """Rows of drawings, each with a bar that shows whether it is right.

    Args:
        judged: Results; those that are no drawings are left out.
        row_of: Names the row of a drawing; by default there is one for each kind.
    """
    rows: dict[str, list[tuple[Image.Image, bool]]] = {}
    for one in judged:
        if isinstance(one.result, DrawResult) and one.result.images:
            row = rows.setdefault(row_of(one), [])
            row.append((one.result.image, bool(one.judgement.ok)))
    return picture_grid([row[:GRID_COLUMNS] for row in rows.values()])
