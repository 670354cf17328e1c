"""What the default model learns from: drawings, questions and conversations of the emoji world."""

import random
from typing import Any

import torch

from unitok.emoji import captions
from unitok.emoji.sample import Sample
from unitok.emoji.sampler import SceneSampler
from unitok.emoji.scenes import Scene
from unitok.families.janus import Template
from unitok.prompt import Message, PromptBuilder

DRAWING_RESERVE = 100  # ids kept free for a request to draw and its picture, at the end
EXCHANGE_RESERVE = 160  # ids kept free for the exchanges about one more picture


class SampleMaker:
    """Makes random samples of the training split; its state resumes exactly."""

    def __init__(self, template: Template, seed: int, drop: float = 0.1, quiz: float = 0.6) -> None:
        """Start a stream of samples.

        Args:
            template: The conversation format.
            seed: Equal seeds make equal samples.
            drop: The share of drawing prompts that become pads, so that guidance has two sides.
            quiz: The share of readings that ask more than one question.
        """
        self.template, self.drop, self.quiz = template, drop, quiz
        self.scenes = SceneSampler(seed, "train")
        self.random = random.Random(seed)
        # It only holds a picture's place: those who render the scene put its embeddings there.
        self.blank = (template.picture(torch.empty(0), "", lambda pixels: pixels),)

    def drawing(self) -> Sample:
        """A prompt and its picture; some prompts are pads."""
        scene = self.scenes.sample()
        branch = self.template.draw([Message("user", captions.prompt(scene, self.random))])
        if self.random.random() < self.drop:
            branch = self.template.unconditional(branch)
        sample: Sample = Sample(list(branch.token_ids), [False] * len(branch.token_ids))
        self._add_drawing(sample, scene)
        return sample

    def reading(self) -> Sample:
        """A picture and questions with their answers; half of the time the caption comes first.

        A picture costs more tokens than a question about it, so many questions share a picture.
        """
        scene, builder = self.scenes.sample(), self.template.start()
        sample: Sample = Sample([], [])
        kinds = [captions.DESCRIBE if self.random.random() < 0.5 else None]
        if self.random.random() < self.quiz:
            # To look for a name in the picture is learned last, and needs the most examples.
            kinds += self.random.choices((*captions.question_kinds(scene), "presence"), k=6)
        for turn, kind in enumerate(kinds):
            question, answer = captions.questions(scene, self.random, kind)
            self.template.turn(builder, Message("user", question, self.blank[: turn == 0]))
            self._add_answer(builder, sample, answer)
        return self._finish(sample, builder, [scene])

    def conversation(self, length: int) -> Sample:
        """Turns about one picture after another, shown or drawn, of up to `length` ids.

        Half of the time the last turn is a request to draw, whose picture is learned.
        """
        builder, scenes = self.template.start(), []
        sample: Sample = Sample([], [])
        ends_in_drawing = self.random.random() < 0.5
        room = length - (DRAWING_RESERVE if ends_in_drawing else 0)
        while True:
            scene = self.scenes.sample()
            shown = self.random.random() < 0.6
            scenes.append(scene)
            for turn in range(self.random.choice((1, 2, 2, 3))):
                self._add_exchange(builder, sample, scene, shown, first=turn == 0)
            builder.flush()
            if len(builder.token_ids) + EXCHANGE_RESERVE > room:
                break
        if ends_in_drawing:
            self._add_request(builder, scene := self.scenes.sample())
            self.template.open_turn(builder, "assistant").special(self.template.begin_of_image)
        self._finish(sample, builder, scenes)
        if ends_in_drawing:
            self._add_drawing(sample, scene)
        return sample

    def state_dict(self) -> dict[str, Any]:
        """Where the random streams stand, in plain lists and numbers."""
        version, words, gauss = self.random.getstate()
        state = {"version": version, "words": list(words), "gauss": gauss}
        return {"scenes": self.scenes.state_dict(), "random": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.scenes.load_state_dict(state["scenes"])
        r = state["random"]
        self.random.setstate((r["version"], tuple(r["words"]), r["gauss"]))

    def _add_exchange(
        self, builder: PromptBuilder, sample: Sample, scene: Scene, shown: bool, first: bool
    ) -> None:
        """A question about a scene and its answer; the first one shows the scene or draws it."""
        question, answer = captions.questions(scene, self.random)
        if first and not shown:
            self._add_request(builder, scene)
            self.template.turn(builder, Message("assistant", "", self.blank))
            builder.flush()
        self.template.turn(builder, Message("user", question, self.blank[: first and shown]))
        self._add_answer(builder, sample, answer)

    def _add_request(self, builder: PromptBuilder, scene: Scene) -> None:
        """The user's turn that asks for a drawing."""
        self.template.turn(builder, Message("user", captions.prompt(scene, self.random)))

    def _add_answer(self, builder: PromptBuilder, sample: Sample, answer: str) -> None:
        """The assistant's turn, whose text and end are targets."""
        self.template.open_turn(builder, "assistant").flush()
        start = len(builder.token_ids)
        builder.text(" " + answer).special(self.template.eos)
        sample.target += [False] * (start - len(sample.target))
        sample.target += [True] * (len(builder.token_ids) - start)

    def _add_drawing(self, sample: Sample, scene: Scene) -> None:
        """The picture at the end, all of it a target; the loss fills in its image tokens."""
        sample.target_pictures.append((len(sample.ids), scene))
        sample.ids += [0] * self.template.picture_length
        sample.target += [True] * self.template.picture_length

    def _finish(self, sample: Sample, builder: PromptBuilder, scenes: list[Scene]) -> Sample:
        """Take over the ids that the builder has, and where its pictures stand."""
        branch = builder.branch()
        sample.ids = list(branch.token_ids)
        sample.target += [False] * (len(branch.token_ids) - len(sample.target))
        starts = [features.start for features in branch.embeddings]
        sample.input_pictures = list(zip(starts, scenes, strict=True))
        return sample
