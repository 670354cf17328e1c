"""`unitok demo`: draws prompts, captions the drawings and new scenes, and shows all of them."""

import logging
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont
from rich.markup import escape
from rich.table import Table

from unitok.api import Model
from unitok.emoji import captions
from unitok.emoji.captions import Claim
from unitok.emoji.checker import check
from unitok.emoji.rendering import render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import CANVAS, Scene
from unitok.requests import Caption, Draw
from unitok.results import DrawResult, TextResult
from unitok.screen import stdout_console

logger = logging.getLogger(__name__)

SEED = 7  # of the scenes; all except single objects are combinations kept from training
PROMPT_KINDS = ("single", "colour", "two", "count", "position", "position")
SCENE_KINDS = ("colour", "two", "count", "count", "position", "position")

SIDE = 3 * CANVAS  # pixels of a picture as shown
GAP = 24
HEADING, BODY = 26, 16  # font sizes
INK, GREY, GREEN, RED = "#222222", "#666666", "#1a7f37", "#c62828"


@dataclass(frozen=True)
class Drawing:
    """A drawing of a prompt, and a caption of the drawing.

    Attributes:
        prompt: What was asked for.
        image: The drawing.
        ok: Whether the checker finds what was asked for.
        reason: Why it does not.
        caption: The model's caption of its drawing.
        agrees: Whether the caption says what the prompt asked for.
        draw_seconds: From the request to the drawing.
        caption_seconds: From the request to the caption.
    """

    prompt: str
    image: Image.Image
    ok: bool
    reason: str
    caption: str
    agrees: bool
    draw_seconds: float
    caption_seconds: float


@dataclass(frozen=True)
class Reading:
    """A held-out scene, and the model's caption of it.

    Attributes:
        image: The scene.
        truth: A true caption.
        caption: The model's caption.
        ok: Whether the model's caption is true.
        seconds: From the request to the caption.
    """

    image: Image.Image
    truth: str
    caption: str
    ok: bool
    seconds: float


@dataclass(frozen=True)
class Demo:
    """All drawings and captions of a demo.

    Attributes:
        drawings: A drawing for each prompt.
        readings: A caption of each held-out scene.
        seconds: How long all of it took.
    """

    drawings: tuple[Drawing, ...]
    readings: tuple[Reading, ...]
    seconds: float


def run_demo(model: Model) -> Demo:
    """Draw prompts and caption scenes in one run of the engine, then caption the drawings."""
    logger.info("drawing %d prompts, captioning %d scenes", len(PROMPT_KINDS), len(SCENE_KINDS))
    start = time.monotonic()
    rng = random.Random(SEED)
    sampler = SceneSampler(SEED, "heldout")
    prompts = [captions.prompt(sampler.sample(kind), rng) for kind in PROMPT_KINDS]
    scenes = [sampler.sample(kind) for kind in SCENE_KINDS]
    pictures = [to_pil(picture) for picture in render(scenes)]
    draws = [Draw(prompt, seed=i) for i, prompt in enumerate(prompts)]
    results = in_order(model, [*draws, *map(Caption, pictures)])
    drawn = [r for r in results if isinstance(r, DrawResult)]
    read = [r for r in results if isinstance(r, TextResult)]
    back = in_order(model, [Caption(result.image) for result in drawn])
    return Demo(
        drawings=tuple(judge_drawing(d, b) for d, b in zip(drawn, back, strict=True)),
        readings=tuple(judge_reading(s, r) for s, r in zip(scenes, read, strict=True)),
        seconds=time.monotonic() - start,
    )


def in_order(model: Model, requests: Sequence[Caption | Draw]) -> list[TextResult | DrawResult]:
    """Results in the order of the requests.

    Raises:
        RuntimeError: A request failed.
    """
    results = sorted(model.run(requests), key=lambda result: result.index)
    for result in results:
        if result.error is not None:
            raise RuntimeError(result.error)
    return results


def judge_drawing(drawn: DrawResult, back: TextResult | DrawResult) -> Drawing:
    """Check a drawing, and compare its caption with the prompt."""
    assert isinstance(back, TextResult)
    claim = captions.parse(drawn.prompt)
    assert claim is not None, drawn.prompt
    verdict = check(drawn.image.resize((CANVAS, CANVAS)), claim)
    return Drawing(
        prompt=drawn.prompt,
        image=drawn.image,
        ok=verdict.ok,
        reason=verdict.reason,
        caption=back.text,
        agrees=agree(captions.parse(back.text), claim),
        draw_seconds=drawn.seconds,
        caption_seconds=back.seconds,
    )


def agree(said: Claim | None, wanted: Claim) -> bool:
    """Whether a caption says what a prompt asked for. Either may leave out a relation."""
    return (
        said is not None
        and (said.objects, said.background) == (wanted.objects, wanted.background)
        and (None in (said.relation, wanted.relation) or said.relation == wanted.relation)
    )


def judge_reading(scene: Scene, read: TextResult) -> Reading:
    """Check the caption of a scene."""
    return Reading(
        image=to_pil(render([scene])[0]),
        truth=captions.caption(scene),
        caption=read.text,
        ok=captions.equivalent(read.text, scene),
        seconds=read.seconds,
    )


# --- one picture of it all -----------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """A picture with text below it.

    Attributes:
        image: The picture.
        notes: The paragraphs, each with its colour.
    """

    image: Image.Image
    notes: tuple[tuple[str, str], ...]


def demo_picture(demo: Demo) -> Image.Image:
    """Two rows of pictures: drawings with the checker's verdict, and scenes with captions."""
    drawings = [
        Tile(
            d.image,
            (
                (d.prompt, INK),
                ("as asked" if d.ok else d.reason, GREEN if d.ok else RED),
                (f"caption: {d.caption}", GREEN if d.agrees else RED),
            ),
        )
        for d in demo.drawings
    ]
    scenes = [
        Tile(r.image, ((f"caption: {r.caption}", GREEN if r.ok else RED), *truth_note(r)))
        for r in demo.readings
    ]
    rows = (
        row_picture("Drawn from prompts, then captioned", drawings),
        row_picture("Captions of scenes whose combinations were kept from training", scenes),
    )
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def truth_note(described: Reading) -> tuple[tuple[str, str], ...]:
    """A true caption as a note, if the model's caption is wrong."""
    return () if described.ok else ((f"truth: {described.truth}", GREY),)


def row_picture(heading: str, tiles: Sequence[Tile]) -> Image.Image:
    """A heading over pictures side by side, with their notes wrapped to their width."""
    font = ImageFont.load_default(BODY)
    notes = [list(wrapped_notes(tile, font)) for tile in tiles]
    line, top = round(BODY * 1.35), GAP + HEADING + GAP // 2
    height = top + SIDE + GAP // 2 + line * max(map(len, notes)) + GAP // 2
    row = Image.new("RGB", (GAP + len(tiles) * (SIDE + GAP), height), "white")
    pen = ImageDraw.Draw(row)
    pen.text((GAP, GAP), heading, INK, ImageFont.load_default(HEADING))
    for column, (tile, lines) in enumerate(zip(tiles, notes, strict=True)):
        x = GAP + column * (SIDE + GAP)
        row.paste(tile.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, top))
        pen.rectangle((x - 1, top - 1, x + SIDE, top + SIDE), outline="#cccccc")
        for number, (text, colour) in enumerate(lines):
            y = top + SIDE + GAP // 2 + number * line
            pen.text((x, y), text, colour, font)
    return row


def wrapped_notes(
    tile: Tile, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, most: int = 6
) -> Iterator[tuple[str, str]]:
    """The lines of a tile's notes, with their colours.

    Args:
        tile: The tile; lines are at most as wide as its picture.
        font: The font.
        most: The most lines of a note.
    """
    for text, colour in tile.notes:
        lines = wrap(text, font)
        if len(lines) > most:
            lines = [*lines[: most - 1], "..."]
        yield from ((line, colour) for line in lines)


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break text into lines, between words or inside a word that is longer than a line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= SIDE:
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if font.getlength(lines[-1] + letter) > SIDE:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line]


# --- two tables of it all ------------------------------------------------------------------------


def print_demo(shown: Demo) -> None:
    """Print two tables, and how many captions and drawings are right."""
    console = stdout_console()
    drawn = Table(
        "prompt",
        "drawn",
        "caption",
        "agrees",
        "draw s",
        "caption s",
        title="Drawn from prompts, then captioned",
    )
    for d in shown.drawings:
        verdict = mark(d.ok) if d.ok else f"{mark(d.ok)}: {d.reason}"
        seconds = (f"{d.draw_seconds:.2f}", f"{d.caption_seconds:.2f}")
        drawn.add_row(d.prompt, verdict, brief(d.caption), mark(d.agrees), *seconds)
    described = Table("caption", "true", "caption s", title="Captions of combinations never seen")
    for r in shown.readings:
        verdict = mark(r.ok) if r.ok else f"{mark(r.ok)}: it shows {r.truth}"
        described.add_row(brief(r.caption), verdict, f"{r.seconds:.2f}")
    console.print(drawn)
    console.print(described)
    print(
        f"Drawn as asked: {tally(d.ok for d in shown.drawings)}. "
        f"Captioned as asked: {tally(d.agrees for d in shown.drawings)}. "
        f"New scenes captioned right: {tally(r.ok for r in shown.readings)}. "
        f"{shown.seconds:.1f} s in all. Each time includes waiting, as all requests run together."
    )


def brief(text: str, most: int = 80) -> str:
    """A text that fits into a table, with rich's markup escaped."""
    text = " ".join(text.split())
    return escape(text if len(text) <= most else text[: most - 3] + "...")


def mark(ok: bool) -> str:
    """A verdict in a word."""
    return "yes" if ok else "no"


def tally(marks: Iterable[bool]) -> str:
    """How many are true, such as "5 of 6"."""
    counted = list(marks)
    return f"{sum(counted)} of {len(counted)}"
