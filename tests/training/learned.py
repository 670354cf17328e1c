"""Tiny families, and sequences that they learn from: text, pictures to read, pictures to paint."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from PIL import Image

from tests.unitok import test_emu3, tiny_chameleon
from tests.unitok.tiny import tiny_model, tiny_template
from unitok.families import Family, ImageOptions, open_folder
from unitok.families.common.family import Defaults
from unitok.families.emu3 import Emu3
from unitok.families.janus import Janus, Preprocessor
from unitok.prompt import Message
from unitok.training.packing import PackedBatch, pack
from unitok.training.sequences import PaintedImage, TrainingSequence
from unitok_engine import Allow, Branch, Force, IdRange, Stop


def janus(folder: Path | None = None) -> Family:
    defaults = Defaults(1.0, 0, 1.0, 3.0, "what is this?", "")
    return Janus("tiny", tiny_model(), tiny_template(), Preprocessor(64), defaults)


def chameleon(folder: Path) -> Family:
    return opened(tiny_chameleon.save_tiny_meta(folder))


def emu3(folder: Path) -> Family:
    return opened(test_emu3.save_transformers(folder))


def unitoken(folder: Path) -> Family:
    return opened(tiny_chameleon.save_unitoken(folder, "AnyRes"))


def opened(folder: Path) -> Family:
    return open_folder(folder, "cpu", torch.float32, strict=True)


FAMILIES: dict[str, Callable[[Path], Family]] = {
    "janus": janus,
    "chameleon": chameleon,
    "emu3": emu3,
    "unitoken": unitoken,
}


def trainable(family: Family) -> Family:
    """The family with weights that are trained, all but those of its image tokenizer."""
    family.model.requires_grad_(True).image_tokenizer.requires_grad_(False)
    return family


def text_range(family: Family) -> IdRange:
    first = family.text_plan(1).next([])
    assert isinstance(first, Allow)
    return first.id_range


def answered(
    family: Family, question: str, answer: str, picture: Image.Image | None = None
) -> TrainingSequence:
    """A question, perhaps about a picture, and the answer, which is learned."""
    pictures = () if picture is None else (family.encode_image(picture),)
    branch = family.chat_prompt([Message("user", question, pictures)], None)
    return continued(branch, family.tokenizer.encode_plain(answer), name=question)


def painted(family: Family, words: str, seed: int, branch: int = 0) -> TrainingSequence:
    """A request to draw and the picture, whose image ids are learned, but no forced ones."""
    size = width, height = (24, 16) if isinstance(family, Emu3) else family.picture_size
    options = ImageOptions(guidance=2.0, negative="blurry", size=size)
    spec = family.generation_spec([Message("user", words)], options)
    emitted: list[int] = []
    sampled: list[bool] = []
    while not isinstance(step := spec.plan.next(emitted), Stop):
        sampled.append(isinstance(step, Allow))
        emitted.append(step.id if isinstance(step, Force) else step.id_range.start)
    pixels = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    sequence = continued(spec.branches[branch], emitted, sampled, name=words)
    places = tuple(i for i, target in enumerate(sequence.targets) if target)
    image = PaintedImage(places, lambda: pixels)
    return TrainingSequence(sequence.branch, sequence.targets, (image,), words)


def continued(
    prompt: Branch, emitted: Sequence[int], sampled: Sequence[bool] = (), name: str = ""
) -> TrainingSequence:
    """A prompt and what follows on it; of that, what was sampled is learned."""
    ids = (*prompt.token_ids, *emitted)
    branch = Branch(ids, prompt.weight, prompt.embeddings, prompt.first_position)
    targets = (False,) * len(prompt.token_ids) + tuple(sampled or [True] * len(emitted))
    return TrainingSequence(branch, targets, name=name)


def mixed_sequences(family: Family) -> list[TrainingSequence]:
    """Text alone, pictures to read and painted pictures, of several lengths."""
    return [
        answered(family, "what is it?", "two dogs", tiny_chameleon.noise(40, 30)),
        painted(family, "a red cat", seed=1),
        answered(family, "hello", "yes, hello"),
        painted(family, "a dog", seed=2, branch=1),
        answered(family, "and this?", "a cat", tiny_chameleon.noise(30, 40, seed=1)),
    ]


def packed_means(family: Family, sequences: Iterable[TrainingSequence]) -> PackedBatch:
    """A batch whose total is the mean loss of text tokens and three times that of image tokens."""
    counts = pack(list(sequences), {}).counts(family.model.vocabulary)
    weights = {"text": 1 / max(1, counts["text"]), "image": 3 / max(1, counts["image"])}
    return pack(list(sequences), weights)
