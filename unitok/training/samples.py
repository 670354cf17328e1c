"""What a model in training draws and says, by the engine that users call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from unitok.api import Model
from unitok.families import Family, ImageOptions
from unitok.pictures import open_picture
from unitok.preparer import check_text
from unitok.prompt import Message
from unitok.prompt_length import check_length
from unitok.saving import save_whole, write_whole
from unitok.shown import shown
from unitok.training.held_out import in_evaluation
from unitok_engine import EngineConfig

PROMPT_TOKENS = 512  # for which the K/V pool has room, beside a picture
LINE = 14  # pixels of a line of text


@dataclass(frozen=True)
class Sampler:
    """Draws prompts and captions pictures.

    Attributes:
        prompts: What is drawn.
        pictures: What is captioned.
        question: What is asked of each; None for what the model is asked for a caption.
        seed: Of the drawings: the same in every round, so that rounds can be compared.
    """

    prompts: tuple[str, ...]
    pictures: tuple[Path, ...]
    question: str | None = None
    seed: int = 0

    def check(self, family: Family) -> None:
        """Check what is sampled before the training begins, which a mistake would end later.

        Raises:
            OSError: A picture is not there.
            ValueError: A prompt is empty or too long, or a file is no picture.
        """
        for path in self.pictures:
            open_picture(path)
        if self.question is not None:
            check_text(self.question, "samples.question")
        most, options = small_engine(family).max_context, ImageOptions(family.defaults.guidance)
        for prompt in self.prompts:
            check_text(prompt, "a prompt of samples.prompts")
            check_length(prompt, family.tokenizer, most)
            spec = family.generation_spec([Message("user", prompt)], options)
            length = len(spec.branches[0].token_ids) + spec.plan.max_length
            if length > most:
                raise ValueError(
                    f"samples.prompts: {shown(prompt)} and its picture have {length:,} tokens; at "
                    f"most {most:,} are sampled"
                )

    def write(self, family: Family, folder: Path, step: int) -> None:
        """Write a round as FOLDER/step-000250.png and FOLDER/step-000250.txt.

        The random state of the training goes on as if nothing had been sampled.

        Raises:
            OSError: A file cannot be read or written.
            ValueError: A prompt is too long, or a file is no picture.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = folder / f"step-{step:06d}"
        with (
            torch.random.fork_rng(devices=[]),
            in_evaluation(family.model),
            Model(family, small_engine(family)) as model,
        ):
            drawings = self._draw(model)
            captions = self._caption(model)
        if drawings:
            save_whole(sheet(self.prompts, drawings), name.with_suffix(".png"))
        if captions:
            lines = [f"{p}\t{c}\n" for p, c in zip(self.pictures, captions, strict=True)]
            write_whole("".join(lines).encode(), name.with_suffix(".txt"))

    def _draw(self, model: Model) -> list[Image.Image]:
        if not self.prompts:
            return []
        return [drawn.image for drawn in model.draw(list(self.prompts), seed=self.seed)]

    def _caption(self, model: Model) -> list[str]:
        if not self.pictures:
            return []
        return [said.text for said in model.caption(list(self.pictures), question=self.question)]


def small_engine(family: Family) -> EngineConfig:
    """An engine with room for two guided drawings at a time, since training needs the memory."""
    length = min(family.max_context, family.picture_tokens + PROMPT_TOKENS)
    each = family.model.kv_shape.bytes_per_token(family.model.dtype)
    return EngineConfig(memory=4 * length * each, max_context=length, cuda_graphs=False)


def sheet(prompts: Sequence[str], pictures: Sequence[Image.Image], columns: int = 4) -> Image.Image:
    """Pictures in rows, each with its prompt below it."""
    width, height = pictures[0].width, pictures[0].height + LINE
    columns = min(columns, len(pictures))
    made = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    pen = ImageDraw.Draw(made)
    for i, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
        x, y = i % columns * width, i // columns * height
        made.paste(picture, (x, y))
        pen.text((x + 2, y + picture.height), shorten(prompt, width, pen), fill="black")
    return made


def shorten(text: str, width: int, pen: ImageDraw.ImageDraw) -> str:
    """The beginning of a text that fits into a width."""
    while text and pen.textlength(text) > width - 4:
        text = text[:-1]
    return text
