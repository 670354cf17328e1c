"""What the embedded model is tuned on: prompts that are rewarded, and conversations beside them.

All scenes are of the training split. Half of the questions stand before their picture, as clients
of OpenAI's API send them, and half behind it, as in pretraining. Places are asked for most often,
since they are the weak side.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok.emoji import captions
from unitok.emoji.rendering import STYLE, Style, render, to_pil
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import Scene

TOGETHER = 100  # scenes that are rendered at once
QUESTIONS = 6  # of a conversation about a picture
DRAWN = {"single": 1, "colour": 1, "two": 4, "count": 5, "position": 8}
"""How often scenes of each kind are drawn, beside each other: the weak ones most often."""
READ = {"single": 1, "colour": 1, "two": 3, "count": 2, "position": 4}
"""How often scenes of each kind are read."""
WITH_PLACES = {"two": 1, "position": 2}
"""How often scenes of each kind are asked where their things are."""
ASKED = {"place": 6, "number": 2, "presence": 4, "colour": 1, captions.DESCRIBE: 1}
"""How often each kind of question is asked, where a scene has it."""


@dataclass(frozen=True)
class TuningSizes:
    """How much is written.

    Attributes:
        draw: Scenes whose prompts are drawn, each prompt once.
        ask: Questions that are rewarded.
        paint: Conversations in which a scene is painted.
        read: Conversations about a scene.
        places: Scenes of which is asked where each of two things is, in conversations of their own.
        held_out: Conversations of each kind about scenes that training never shows, for losses.
    """

    draw: int = 3000
    ask: int = 2000
    paint: int = 4000
    read: int = 6000
    places: int = 4000
    held_out: int = 128


def write_tuning_data(folder: Path, sizes: TuningSizes, seed: int = 0) -> None:
    """Write prompts and conversations, as JSON lines with pictures beside them.

    draw.jsonl and ask.jsonl are prompts for rewards. paint.jsonl, read.jsonl and places.jsonl are
    conversations. held_out.jsonl has conversations of the first two kinds about held-out scenes.

    Args:
        folder: Where to write; it is made if it does not exist.
        sizes: How much.
        seed: Of the scenes and of the words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: tuple[tuple[str, int, Mapping[str, int], _Lines], ...] = (
        ("draw", sizes.draw, DRAWN, _draw_lines),
        ("ask", sizes.ask, READ, _ask_lines),
        ("paint", sizes.paint, DRAWN, _paint_lines),
        ("read", sizes.read, READ, _read_lines),
        ("places", sizes.places, WITH_PLACES, _place_lines),
    )
    for name, count, shares, lines in made:
        scenes = _scenes(SceneSampler(_seed(name, seed)), count, shares, f"{name} {seed}")
        write_lines(folder, name, lines(_Writing(folder, name, seed), scenes))
    held_out = SceneSampler(_seed("held out", seed), "heldout").batch(sizes.held_out)
    writing = _Writing(folder, "held_out", seed)
    write_lines(
        folder, "held_out", [*_paint_lines(writing, held_out), *_read_lines(writing, held_out)]
    )


Line = dict[str, Any]
_Lines = Callable[["_Writing", Sequence[Scene]], Iterator[Line]]


def write_lines(folder: Path, name: str, lines: Sequence[Line] | Iterator[Line]) -> None:
    """Write JSON lines as NAME.jsonl."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def _seed(name: str, seed: int) -> int:
    """A number of its own for each file, so that no two have the same scenes."""
    return random.Random(f"tuning {name} {seed}").randrange(2**31)


def _scenes(sampler: SceneSampler, count: int, shares: Mapping[str, int], seed: str) -> list[Scene]:
    kinds = random.Random(seed).choices(list(shares), list(shares.values()), k=count)
    return [sampler.sample(kind) for kind in kinds]


class _Writing:
    """Where the pictures of a file go, and what decides its words."""

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        self.folder, self.name = folder, name
        self.random = random.Random(f"tuning words {name} {seed}")

    def pictures(self, scenes: Sequence[Scene], style: Style, kind: str) -> Iterator[str]:
        """The path of each scene's picture, which is written."""
        (self.folder / "pictures" / self.name).mkdir(parents=True, exist_ok=True)
        for first in range(0, len(scenes), TOGETHER):
            rendered = render(scenes[first : first + TOGETHER], style=style)
            for number, pixels in enumerate(rendered, first):
                path = f"pictures/{self.name}/{number:05}-{kind}.png"
                to_pil(pixels).save(self.folder / path)
                yield path


def _draw_lines(writing: _Writing, scenes: Sequence[Scene]) -> Iterator[Line]:
    """A prompt of each scene; those that were there before are left out."""
    prompts = (captions.prompt(scene, writing.random) for scene in scenes)
    return ({"draw": prompt} for prompt in dict.fromkeys(prompts))


def _ask_lines(writing: _Writing, scenes: Sequence[Scene]) -> Iterator[Line]:
    for scene, path in zip(scenes, writing.pictures(scenes, STYLE, "read"), strict=True):
        asked = captions.questions(scene, writing.random, question_kind(scene, writing.random))
        content = asked_of_picture(asked.question, path, writing.random)
        yield {"messages": [_said("user", content)], "answer": asked.answer}


def _paint_lines(writing: _Writing, scenes: Sequence[Scene]) -> Iterator[Line]:
    """White cards are behind what is painted, as in pretraining: see docs/default_model.md."""
    for scene, path in zip(scenes, writing.pictures(scenes, "square", "painted"), strict=True):
        asked = captions.prompt(scene, writing.random)
        answer = _said("assistant", [{"type": "image", "image": path}])
        yield {"messages": [_said("user", asked), answer]}


def _read_lines(writing: _Writing, scenes: Sequence[Scene]) -> Iterator[Line]:
    for scene, path in zip(scenes, writing.pictures(scenes, STYLE, "read"), strict=True):
        kinds = [question_kind(scene, writing.random) for _ in range(QUESTIONS)]
        if writing.random.random() < 0.5:  # a caption is mostly asked for first
            kinds[0] = captions.DESCRIBE
        messages: list[Line] = []
        for number, kind in enumerate(kinds):
            one = captions.questions(scene, writing.random, kind)
            first = asked_of_picture(one.question, path, writing.random)
            messages.append(_said("user", first if number == 0 else one.question))
            messages.append(_said("assistant", one.answer))
        yield {"messages": messages}


def _place_lines(writing: _Writing, scenes: Sequence[Scene]) -> Iterator[Line]:
    """Where either thing is, each asked alone: a second answer would follow from the first."""
    for scene, path in zip(scenes, writing.pictures(scenes, STYLE, "read"), strict=True):
        for one in captions.places(scene, writing.random):
            asked = _said("user", asked_of_picture(one.question, path, writing.random))
            yield {"messages": [asked, _said("assistant", one.answer)]}


def question_kind(scene: Scene, rng: random.Random) -> str:
    """A kind of question that has one true answer for a scene."""
    kinds = [*captions.question_kinds(scene), captions.DESCRIBE]
    return rng.choices(kinds, [ASKED[kind] for kind in kinds])[0]


def asked_of_picture(question: str, path: str, rng: random.Random) -> list[Line]:
    """A question and its picture, in either order."""
    parts = [{"type": "image", "image": path}, {"type": "text", "text": question}]
    return parts if rng.random() < 0.5 else parts[::-1]


def _said(role: str, content: Any) -> Line:
    return {"role": role, "content": content}
