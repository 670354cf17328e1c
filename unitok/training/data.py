"""What the default model learns from: drawings, readings and conversations of the emoji world."""

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unitok.emoji import captions
from unitok.emoji.scenes import Scene, SceneSampler
from unitok.families.janus import Template
from unitok.prompt import Message, PromptBuilder


@dataclass
class Sample:
    """One line to learn: ids, which of them are targets, and where pictures go.

    `reads`: (start, scene) whose features stand at start; `draws`: likewise, with picture ids.
    """

    ids: list[int]
    target: list[bool]
    reads: list[tuple[int, Scene]] = field(default_factory=list)
    draws: list[tuple[int, Scene]] = field(default_factory=list)


class SampleMaker:
    """Draws samples of the training split; its state resumes exactly."""

    def __init__(self, template: Template, seed: int, drop: float = 0.1, quiz: float = 0.6) -> None:
        self.template, self.drop, self.quiz = template, drop, quiz
        self.scenes = SceneSampler(seed, "train")
        self.random = random.Random(seed)
        # Holds a picture's place; the trainer puts the features of the scene there.
        self.blank = (template.picture(torch.empty(0), "", lambda pixels: pixels),)

    def drawing(self) -> Sample:
        """A prompt and its picture; one prompt in ten is pads, so that guidance has two sides."""
        scene = self.scenes.sample()
        line = self.template.draw([Message("user", captions.prompt(scene, self.random))])
        if self.random.random() < self.drop:
            line = self.template.unconditional(line)
        sample = Sample(list(line.token_ids), [False] * len(line.token_ids))
        self._paint(sample, scene)
        return sample

    def reading(self) -> Sample:
        """A picture and questions with their answers; half of the time the caption comes first.

        Seeing a picture costs more ids than asking about it, so many questions are a bargain.
        """
        scene, sample, builder = self.scenes.sample(), Sample([], []), self.template.start()
        kinds = [captions.DESCRIBE if self.random.random() < 0.5 else None]
        if self.random.random() < self.quiz:
            # To look for a name in the picture is learnt last, and needs the most examples.
            kinds += self.random.choices((*captions.question_kinds(scene), "presence"), k=6)
        for turn, kind in enumerate(kinds):
            question, answer = captions.questions(scene, self.random, kind)
            self.template.turn(builder, Message("user", question, self.blank[: turn == 0]))
            self._answer(builder, sample, answer)
        return self._finish(sample, builder, [scene])

    def conversation(self, length: int) -> Sample:
        """Turns about one picture after another, shown or drawn, up to `length` ids.

        Half of the time the last turn is a request to draw, whose picture is learnt.
        """
        builder, sample, scenes = self.template.start(), Sample([], []), []
        paint = self.random.random() < 0.5
        room = length - (100 if paint else 0)
        while True:
            scene = self.scenes.sample()
            shown = self.random.random() < 0.6
            scenes.append(scene)
            for turn in range(self.random.choice((1, 2, 2, 3))):
                self._turn(builder, sample, scene, shown, first=turn == 0)
            builder.flush()
            if len(builder.token_ids) + 160 > room:
                break
        if paint:
            self._ask_for(builder, scene := self.scenes.sample())
            self.template.open_turn(builder, "assistant").special(self.template.begin_of_image)
        self._finish(sample, builder, scenes)
        if paint:
            self._paint(sample, scene)
        return sample

    def _turn(
        self, builder: PromptBuilder, sample: Sample, scene: Scene, shown: bool, first: bool
    ) -> None:
        """One exchange about a scene; the first one shows it, or has it drawn."""
        question, answer = captions.questions(scene, self.random)
        if first and not shown:
            self._ask_for(builder, scene)
            self.template.turn(builder, Message("assistant", "", self.blank))
            builder.flush()
        self.template.turn(builder, Message("user", question, self.blank[: first and shown]))
        self._answer(builder, sample, answer)

    def _ask_for(self, builder: PromptBuilder, scene: Scene) -> None:
        self.template.turn(builder, Message("user", captions.prompt(scene, self.random)))

    def _answer(self, builder: PromptBuilder, sample: Sample, answer: str) -> Sample:
        """The assistant's turn, whose text and end are targets."""
        self.template.open_turn(builder, "assistant").flush()
        start = len(builder.token_ids)
        builder.text(" " + answer).special(self.template.eos)
        sample.target += [False] * (start - len(sample.target))
        sample.target += [True] * (len(builder.token_ids) - start)
        return sample

    def _finish(self, sample: Sample, builder: PromptBuilder, scenes: list[Scene]) -> Sample:
        line = builder.branch()
        sample.ids = list(line.token_ids)
        sample.target += [False] * (len(line.token_ids) - len(sample.target))
        sample.reads = [(f.start, s) for f, s in zip(line.embeddings, scenes, strict=True)]
        return sample

    def _paint(self, sample: Sample, scene: Scene) -> None:
        sample.draws.append((len(sample.ids), scene))
        sample.ids += [0] * self.template.picture_length  # filled with codes in the batch
        sample.target += [True] * self.template.picture_length

    def state_dict(self) -> dict[str, Any]:
        version, words, gauss = self.random.getstate()
        state = {"version": version, "words": list(words), "gauss": gauss}
        return {"scenes": self.scenes.state_dict(), "random": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scenes.load_state_dict(state["scenes"])
        r = state["random"]
        self.random.setstate((r["version"], tuple(r["words"]), r["gauss"]))


@dataclass(frozen=True)
class PackedLines:
    """Samples as tensors: ids and targets [B, L], right-padded, and (row, start) of pictures."""

    ids: Tensor
    target: Tensor
    read_at: Tensor  # [R, 2]
    draw_at: Tensor  # [D, 2]
    read_scenes: list[Scene]
    draw_scenes: list[Scene]


def pack(samples: list[Sample], pad: int) -> PackedLines:
    """Right-pad samples to the longest."""
    length = max(len(s.ids) for s in samples)
    ids = torch.tensor([s.ids + [pad] * (length - len(s.ids)) for s in samples])
    target = torch.tensor([s.target + [False] * (length - len(s.target)) for s in samples])
    reads = [(row, start, scene) for row, s in enumerate(samples) for start, scene in s.reads]
    draws = [(row, start, scene) for row, s in enumerate(samples) for start, scene in s.draws]
    return PackedLines(
        ids,
        target,
        torch.tensor([r[:2] for r in reads]).reshape(-1, 2),
        torch.tensor([d[:2] for d in draws]).reshape(-1, 2),
        [r[2] for r in reads],
        [d[2] for d in draws],
    )
