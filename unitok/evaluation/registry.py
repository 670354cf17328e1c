"""The suites by name. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they import torch, which would delay the command line's help
    from unitok.api import Model
    from unitok.baselines.protocols import Runner
    from unitok.evaluation.suite import Suite, SuiteOptions


@dataclass(frozen=True)
class SuiteEntry:
    """How a suite is made.

    Attributes:
        help: What it asks, in a sentence.
        make: Makes it of options; ValueError or OSError if the data are wrong.
        data: What the user has to name, in a sentence; "" for a suite that brings its own data.
        runner: What takes its requests, if it is not the model itself; such a suite is for our
            models only.
    """

    help: str
    make: Callable[[SuiteOptions], Suite]
    data: str = ""
    runner: Callable[[Model], Runner] | None = None


def _emoji(options: SuiteOptions) -> Suite:
    from unitok.emoji.evaluation import EmojiSuite

    return EmojiSuite(options)


def _emoji_presence(options: SuiteOptions) -> Suite:
    from unitok.emoji.presence import EmojiPresenceSuite

    return EmojiPresenceSuite(options)


def _emoji_reconstruction(options: SuiteOptions) -> Suite:
    from unitok.emoji.evaluation import reconstruction_suite

    return reconstruction_suite(options)


def _questions(options: SuiteOptions) -> Suite:
    from unitok.evaluation.questions import QuestionSuite

    return QuestionSuite(options)


def _reconstruction(options: SuiteOptions) -> Suite:
    from unitok.evaluation.reconstruction import folder_suite

    return folder_suite(options)


def _reconstructor(model: Model) -> Runner:
    from unitok.evaluation.reconstruction import Reconstructor

    return Reconstructor(model)


SUITES: dict[str, SuiteEntry] = {
    "emoji": SuiteEntry(
        "Drawings, captions and answers of held-out scenes of the emoji world.", _emoji
    ),
    "emoji-presence": SuiteEntry(
        "Whether things are in held-out scenes of the emoji world, in the manner of POPE.",
        _emoji_presence,
    ),
    "emoji-reconstruction": SuiteEntry(
        "What the image tokenizer keeps of held-out scenes of the emoji world: PSNR and SSIM.",
        _emoji_reconstruction,
        runner=_reconstructor,
    ),
    "questions": SuiteEntry(
        "Your own pictures with questions or captions and accepted answers, as JSON lines.",
        _questions,
        data="JSON lines with the keys image, question (none for a caption) and answers.",
    ),
    "reconstruction": SuiteEntry(
        "What the image tokenizer keeps of your own pictures: PSNR and SSIM.",
        _reconstruction,
        data="A folder of pictures.",
        runner=_reconstructor,
    ),
}
